"""A search that collapses to operations without weights is told in words."""

import json

import pytest
import torch

import search.wsr_nas as program
from search.collapse import MOST_FREE, MOST_SKIPS, RECENT, collapse_warnings, free_shares
from search.spaces import SPACES
from tests.run_files import read

pytestmark = pytest.mark.usefixtures("quick_programs")

GRAPHS = SPACES["nas-bench-201"]
SKIP, NONE, POOL, WIDE = (GRAPHS.operations.index(name)
                          for name in ("skip_connect", "none", "avg_pool_3x3", "nor_conv_3x3"))


def graph(*operations):
    return GRAPHS.graph(operations)


def paths(*rows):
    return GRAPHS.gates(torch.tensor(rows))


def test_shares_count_the_operations_but_none():
    assert free_shares(GRAPHS, [graph(SKIP, NONE, POOL, WIDE, NONE, WIDE)]) == {"skips": 0.25, "pools": 0.25}
    assert free_shares(GRAPHS, [graph(*[NONE] * 6)]) == {"skips": 0, "pools": 0}
    two = [graph(*[SKIP] * 6), graph(NONE, NONE, NONE, NONE, POOL, WIDE)]
    assert free_shares(GRAPHS, two) == {"skips": 6 / 8, "pools": 1 / 8}
    darts = SPACES["darts"]
    choices = darts.sample(1, torch.Generator().manual_seed(0))[0]
    names = [darts.operations[choice] for choice in choices]
    assert free_shares(darts, [darts.decode(choices)]) == {
        "skips": names.count("skip_connect") / 16, "pools": sum("pool" in name for name in names) / 16}


def test_a_sentence_says_what_has_collapsed_and_to_what():
    sound, half = [WIDE] * 6, [SKIP] * 3 + [WIDE] * 3
    skips, free = [SKIP] * 4 + [WIDE] * 2, [SKIP] * 2 + [POOL] * 3 + [WIDE]
    many = paths(*[sound] * RECENT)
    assert MOST_SKIPS == 0.5 and MOST_FREE == 0.75
    assert collapse_warnings(GRAPHS, graph(*sound), many) == collapse_warnings(GRAPHS, graph(*half), many) == []
    assert collapse_warnings(GRAPHS, graph(*skips), many) == [
        "67% of the operations of the architecture found are skip connections"]
    assert collapse_warnings(GRAPHS, graph(*free), many) == [
        "83% of the operations of the architecture found are skip connections and pools"]
    newest = paths(*[sound] * 5, *[skips] * RECENT)
    assert collapse_warnings(GRAPHS, graph(*sound), newest) == [
        "67% of the operations of the last 10 measured architectures are skip connections"]
    assert collapse_warnings(GRAPHS, graph(*sound), newest[-RECENT + 1:]) == []  # too few to judge
    assert collapse_warnings(GRAPHS, graph(*sound), torch.cat([newest, many])) == []  # it has recovered


def test_log_and_metrics_say_that_a_search_collapses(tmp_path, monkeypatch):
    monkeypatch.setattr("search.collapse.MOST_SKIPS", -1)  # whatever is found
    program.main(["--preset", "tiny", "--device", "cpu", "--space", "nas-bench-201", "--layers", "3",
                  "--init_channels", "2", "--num_steps", "1", "--max_train", "60", "--max_validation", "20",
                  "--batch_size", "15", "--recalibration_batches", "1", "--estimator_images", "2", "--loss_passes", "2",
                  "--warmup_architectures", "1", "--iterations", "1", "--save", "run", "--runs", str(tmp_path)])
    run = tmp_path / "search" / "run"
    rows = read(run)
    assert ["collapse" in row for row in rows] == [False, False, True]
    sentence, = rows[-1]["collapse"]
    assert sentence.endswith("of the operations of the architecture found are skip connections")
    assert f"| COLLAPSE: {sentence} |" in (run / "log.txt").read_text()
    found = GRAPHS.load(run / "genotype.json")
    assert rows[-1]["architecture"]["shares"] == free_shares(GRAPHS, [found])
    measured = [GRAPHS.graph([GRAPHS.operations.index(name) for name in path["architecture"]["cell"]])
                for path in rows[-1]["paths"]]
    assert rows[-1]["measured_shares"] == free_shares(GRAPHS, measured)
    json.dumps(rows)
