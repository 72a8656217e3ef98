"""The ranking of a table's architectures during a search: what it says, and that it changes nothing."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

import search.wsr_nas as program
from search.cost import iteration_passes, total_passes
from search.rankings.sample import open_sample, rank_sample
from search.strategy.step import Step
from search.wsr_nas_searcher import Searcher
from search.wsr_nas_settings import PRESETS, schedule
from tests.run_files import assert_equal
from wsrnas.data.datasets import load_dataset
from wsrnas.report.figures.supernet_ranking import supernet_ranking
from wsrnas.runtime.config import parse_config
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import InputError

pytestmark = pytest.mark.usefixtures("quick_programs")

SMALL = ["--preset", "tiny", "--device", "cpu", "--space", "nas-bench-201", "--layers", "3", "--init_channels", "2",
         "--num_steps", "1", "--max_train", "60", "--max_validation", "20", "--batch_size", "15",
         "--recalibration_batches", "1", "--loss_passes", "2", "--estimator_images", "2", "--population", "2",
         "--warmup_architectures", "1", "--iterations", "3", "--save", "run"]
RANKED = ["--ranking_table", "demo", "--ranking_sample", "10", "--ranking_every", "2"]


def config_of(*argv):
    return parse_config(type(PRESETS["tiny"]), PRESETS, [*SMALL, *argv])[0]


def searcher_of(config):
    return Searcher(config, load_dataset("digits", max_train=60), (torch.arange(0, 60, 2), torch.arange(1, 60, 2)),
                    World())


def test_correlations_are_those_of_the_measured_losses(monkeypatch):
    monkeypatch.setattr("search.rankings.sample.RESAMPLES", 50)
    config = config_of(*RANKED)
    searcher, (table, places) = searcher_of(config), open_sample(config)
    sampled = searcher.supernet.use(table.space.gates(table.choices[0]).view(table.space.shape))
    losses = {place: torch.arange(5) * 0.1 + torch.rand(5, generator=torch.Generator().manual_seed(place))
              for place in places}
    shown = []

    def validate(step):
        place = next(place for place in places if torch.equal(
            searcher.space.discrete(searcher.supernet.path.encoding.view(1, *searcher.space.shape))[0],
            table.choices[place]))
        shown.append(place)
        return {"losses": losses[place], "accuracies": 1 - losses[place] / 3}
    monkeypatch.setattr(searcher, "recalibrate", lambda step: None)
    monkeypatch.setattr(searcher, "validate", validate)
    found = rank_sample(searcher, (table, places), Step(0, "search", 0, True, True))
    assert shown == places and searcher.supernet.path is sampled and found["architectures"] == 10
    truth = (100 - table.losses[table.row[places]].numpy()).mean(1)
    clean = np.array([losses[place][0] for place in places])
    assert found["tau"]["loss, clean"]["all"][0] == pytest.approx(kendalltau(-clean, truth).statistic)
    objective = np.array([searcher.objective(losses[place]).item() for place in places])
    assert found["tau"]["objective"]["all"][0] == pytest.approx(kendalltau(-objective, truth).statistic)
    size = np.log(table.space.cost(table.choices[places], *table.network)[:, 0].double().numpy())
    assert found["tau"]["parameters"]["all"][0] == pytest.approx(kendalltau(size, truth).statistic)
    rest = [values - np.polyval(np.polyfit(size, values, 1), size) for values in (-clean, truth)]
    assert found["tau"]["loss, clean"]["fixed size"][0] == pytest.approx(kendalltau(*rest).statistic)
    assert found["tau"]["parameters"]["fixed size"] is None
    assert all(low <= value <= high for by in found["tau"].values() for value, low, high in filter(None, by.values()))


def comparable(row):
    """A row of the metrics without rankings and what depends on the clock."""
    row["train"] = {name: row["train"][name] for name in ("loss", "adversarial_accuracy")}
    return {name: value for name, value in row.items()
            if name not in ("ranking", "seconds", "passes", "peak_memory_gib", "time")}


@pytest.mark.slow
def test_a_ranking_changes_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr("search.rankings.sample.RESAMPLES", 20)
    for name, more in (("plain", []), ("ranked", RANKED)):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        program.main([*SMALL, *more])
    rows = [json.loads(line) for line in (tmp_path / "ranked/runs/search/run/metrics.jsonl").read_text().splitlines()]
    ranked = [row for row in rows if "ranking" in row]
    assert [(row["phase"], row["number"]) for row in ranked] == [("search", 1), ("search", 2)]
    assert ranked[0]["passes"]["ranking"]["forward"] > ranked[0]["passes"]["validate"]["forward"]
    assert all("ranking" in row["seconds"] for row in ranked)
    plain = [json.loads(line) for line in (tmp_path / "plain/runs/search/run/metrics.jsonl").read_text().splitlines()]
    for one, other in zip(map(comparable, plain), map(comparable, rows), strict=True):
        assert_equal(one, other)
    genotypes = [(tmp_path / name / "runs/search/run/genotype.json").read_text() for name in ("plain", "ranked")]
    assert genotypes[0] == genotypes[1]
    assert supernet_ranking(rows).rows and supernet_ranking(plain) is None


def test_rankings_are_due_every_few_iterations_and_in_the_last():
    config = config_of(*RANKED, "--iterations", "5")
    assert [step.number for step in schedule(config) if config.ranks_in(step)] == [1, 3, 4]
    assert not any(map(config_of().ranks_in, schedule(config_of())))


def test_the_passes_of_rankings_are_those_of_as_many_paths():
    searcher = searcher_of(config_of(*RANKED))
    passes = iteration_passes(searcher, 2, ranked=True)
    for kind in ("forward", "forward_backward"):
        assert passes["ranking"][kind] == 5 * (passes["recalibrate"][kind] + passes["validate"][kind])
    plain, ranked = total_passes(searcher_of(config_of())), total_passes(searcher)
    for kind in plain:
        assert ranked[kind] == plain[kind] + 2 * passes["ranking"][kind]


@pytest.mark.parametrize(("flags", "words"), [
    (["--ranking_table", "nowhere.json"], "nowhere.json"),
    (["--ranking_table", "demo", "--space", "darts"], "ranking_table is a table of nas-bench-201, but space is darts"),
    (["--ranking_table", "demo", "--ranking_sample", "99999"], "ranking_sample is 99999; "),
    (["--ranking_sample", "9"], "ranking_sample is 9; expected at least 10"),
    (["--ranking_every", "0"], "ranking_every is 0; expected at least 1"),
])
def test_wrong_samples_are_refused_also_by_a_dry_run(tmp_path, monkeypatch, flags, words):
    monkeypatch.chdir(tmp_path)
    for more in ([], ["--dry_run"]):
        with pytest.raises(InputError) as caught:
            program.main([*SMALL, *flags, *more])
        assert words in str(caught.value) and not (tmp_path / "runs/search/run/metrics.jsonl").exists()


@pytest.mark.parametrize("tau", [1, [], {"objective": 1}, {"objective": {"all": [0.1, 0.2]}},
                                 {"objective": {"all": [0.1, "a", None]}}])
def test_damaged_rankings_are_not_drawn(tau):
    good = {"objective": {"all": [0.1, 0.0, 0.2], "fixed size": None}}
    rows = [{"step": step, "ranking": {"architectures": 10, "tau": value}} for step, value in enumerate([tau, good])]
    assert len(supernet_ranking(rows).rows) == isinstance(tau, dict) + 1
