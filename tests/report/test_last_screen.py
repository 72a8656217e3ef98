"""The last screen of the quickstart, made of the files that its programs leave."""

import json

import pytest

from tests.report.run_pages import evaluation
from wsrnas.report.last_screen import NETWORKS, last_screen
from wsrnas.runtime.errors import InputError

NAME = "quickstart-digits"


@pytest.fixture
def runs(tmp_path):
    """A folder of runs with the results that the screen shows."""
    def regret(first, second):
        return {"25": {"best": [first, 0.1]}, "50": {"best": [second, None]}}

    table = {"table": "demo", "strategy": "wsr", "regret": regret(0.19, 0.031), "seeds": [0, 1, 2, 3],
             "task": {"distinct": 1793, "synthetic": True, "source": "a formula"}, "tau": [],
             "others": [{"strategy": "random", "regret": regret(0.96, 0.7)}]}
    (tmp_path / "tabular" / NAME).mkdir(parents=True)
    (tmp_path / "tabular" / NAME / "results.json").write_text(json.dumps(table))
    for which, clean in zip(NETWORKS, ("11110", "11100"), strict=True):
        folder = tmp_path / "retrain" / f"{NAME}-{which}" / "eval"
        folder.mkdir(parents=True)
        (folder / "a.json").write_text(json.dumps(evaluation(which, clean)))
    return tmp_path


def test_it_fits_a_terminal_and_names_three_next_commands(runs):
    lines = last_screen(runs, NAME)
    assert len(lines) <= 24 and max(map(len, lines)) - len(str(runs)) <= 100
    start = next(number for number, line in enumerate(lines) if line.startswith("next "))
    begin = [line[8:].partition(" ")[0] for line in lines[start:]]
    assert begin == ["DATASET=folder", "python", "python"]


def test_it_says_what_was_found_and_what_that_does_not_show(runs):
    text = "\n".join(last_screen(runs, NAME))
    assert "Among 1,793 graphs of about one size in the table demo" in text and "mean of 4 searches" in text
    assert "0.19 after 25 looked at    0.03 after 50 looked at" in text.replace("this project's search", "")
    assert "formula, not measurements" in text and "not that this search pays" in text
    assert "80.0 [70.0, 90.0]" in text and "points [" in text and "4,544,830 and 4,544,830 parameters" in text


def test_a_missing_result_is_one_sentence(runs):
    (runs / "retrain" / f"{NAME}-searched" / "eval" / "a.json").write_text(json.dumps(evaluation(complete=False)))
    with pytest.raises(InputError, match="quickstart-digits-searched holds no complete evaluation"):
        last_screen(runs, NAME)


@pytest.mark.parametrize("damage", ["{}", "[]", "{broken"])
def test_damaged_results_of_the_table_are_one_sentence(damage, runs):
    (runs / "tabular" / NAME / "results.json").write_text(damage)
    with pytest.raises(InputError, match=r"results\.json holds no results of strategies"):
        last_screen(runs, NAME)
