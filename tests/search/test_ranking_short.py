"""``search.ranking --measure short``: architectures after trainings of their own, which are those of a search."""

import dataclasses
import json
from pathlib import Path

import pytest

from search.ranking import main
from search.rankings import alone as alone_module
from search.rankings.alone import alone
from search.rankings.bench import build_bench, build_short
from search.rankings.inherited import path_values
from search.rankings.rows import read_rows, row_tasks
from search.rankings.trained import open_trained
from search.short_training import ShortTraining
from search.spaces import SPACES
from search.strategy.step import Step
from search.supernet_training import train_alone
from search.tables.reading import open_table
from search.wsr_nas_searcher import Searcher
from tests.search.small_ranking import SEED, arguments, results, rows
from wsrnas.report.reading.rankings import answers
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import InputError, Preempted
from wsrnas.training.epoch import Diverged

pytestmark = pytest.mark.usefixtures("quick_programs")

SPACE = SPACES["nas-bench-201"]
ALONE = "--measure", "short", "--short_epochs", "2", "--short_images", "30", "--short_learning_rate", "0.2"


@pytest.fixture
def rank(trained, table, tmp_path):
    """Run the program on ten graphs and return the folder of its results."""
    def run(*argv, save="ranked") -> Path:
        main(arguments(trained, table, tmp_path, save, "--sample", "10", *argv))
        return tmp_path / "ranking" / save
    return run


def test_a_short_training_is_that_of_a_search(rank, trained, table):
    folder = rank(*ALONE)
    run = open_trained(trained, "")
    config = dataclasses.replace(run.config, measure="short", short_epochs=2, short_images=30, learning_rate=0.2)
    searcher = Searcher(config, run.data, run.split, World())
    bench = build_bench(run, 20, (0.05, 0.1), 2, 1, 100, SEED, World())
    found = [json.loads(line) for line in rows(folder)["short-0000.jsonl"].splitlines()]
    assert len(found) == 10
    short = ShortTraining(searcher)
    for row in found[7], found[0]:  # in another order
        path = searcher.supernet.use(SPACE.gates(
            open_table(str(table)).choices[row["place"]]).view(SPACE.shape))
        short.train(path, Step(0, "search", 0, True, True))
        values = path_values(bench, searcher.supernet, lambda: False)
        for name in "losses", "accuracies", "vulnerabilities":
            assert row[name] == pytest.approx(values[name], rel=1e-4), name


def test_short_trainings_have_the_settings_of_the_run_where_no_flag_says_others(trained):
    run = open_trained(trained, "")
    like_run, other = (build_short(run, *settings, World()) for settings in ((0, 0, 0.0), (30, 2, 0.2)))
    assert (like_run.epochs, like_run.learning_rate) == (run.config.short_epochs, run.config.learning_rate)
    assert len(like_run.loader.image_set) == len(run.split[0]) == 40
    assert (other.epochs, other.learning_rate, len(other.loader.image_set)) == (2, 0.2, 30)


def test_short_trainings_happen_only_when_asked_for(rank):
    folder = rank()
    assert results(folder)["measured"] == ["supernet", "untrained", "training-free"]
    assert not list((folder / "rows").glob("short*"))
    both = results(rank("--measure", "short", save="ranked"))  # adds to what is there
    assert both["measured"] == ["supernet", "untrained", "training-free", "short"]
    assert {"loss, clean", "accuracy, mean", "vulnerability F, at 0.1"} <= {
        entry["score"] for entry in both["scores"] if entry["group"] == "short"}
    assert [sentence for sentence in answers(both) if "F at 0.1 after short trainings predict" in sentence]


def test_a_stop_in_a_short_training_loses_that_architecture_alone(rank, trained, table, tmp_path):
    whole = rank(*ALONE, save="whole")
    known = open_table(str(table))
    places = [json.loads(line)["place"] for line in rows(whole)["short-0000.jsonl"].splitlines()]
    run = open_trained(trained, "")
    bench = build_bench(run, 20, (0.05, 0.1), 2, 1, 100, SEED, World(), short=build_short(run, 30, 2, 0.2, World()))
    asked = []

    def stop():
        asked.append(True)
        return len(asked) == 7  # a training has four steps

    task, = row_tasks(tmp_path, "short", places, known, lambda: alone(bench), World())
    with pytest.raises(Preempted, match="stopped in short-0000; the architectures before are saved"):
        task.work(stop)
    assert 1 <= len(read_rows(tmp_path / "short-0000.jsonl")) < 3 and not task.done()
    task.work(lambda: False)
    assert task.done() and (tmp_path / "short-0000.jsonl").read_text() == rows(whole)["short-0000.jsonl"]


def test_an_architecture_that_diverges_is_the_worst_and_ends_no_ranking(rank, capsys, monkeypatch):
    calls = []

    def diverging(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise Diverged("the loss is nan")
        return train_alone(*arguments)

    monkeypatch.setattr(alone_module, "train_alone", diverging)
    folder = rank(*ALONE)
    values = results(folder)
    assert values["architectures"] == 10 and "this architecture counts as the worst" in capsys.readouterr().err
    lines = [json.loads(line) for line in rows(folder)["short-0000.jsonl"].splitlines()]
    assert [row["losses"] == [None] * 3 and row["vulnerabilities"] == [None] * 2 for row in lines].count(True) == 1
    places, losses = values["values"]["place"], values["values"]["scores"][0]
    assert losses[places.index(lines[2]["place"])] == min(losses)


def test_a_learning_rate_that_would_rise_is_refused(rank):
    with pytest.raises(InputError, match=r"short_learning_rate is 1e-05; expected at least the run's learning_rate"):
        rank(*ALONE[:-1], "1e-5")


def test_a_dry_run_counts_the_training(rank, capsys):
    rank(*ALONE, "--dry_run")
    assert "short: 180 images forward and backward and 75 forward for each architecture" in capsys.readouterr().out
