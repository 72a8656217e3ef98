"""``search.tabular``: regrets against the table, resuming, sharing, refusing, and what it writes."""

import json
import re
import statistics
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

import search.tabular
import search.tabular_search
from search.from_python import search_table
from search.spaces import SPACES
from search.strategies import STRATEGIES, StrategyEntry
from search.strategy.baselines.base import Baseline
from search.strategy.baselines.random_search import RandomSearch
from search.tables.reading import open_table
from search.tables.table import Table
from search.tables.task import table_task
from search.tabular import main
from search.tabular_results import estimate
from search.tabular_search import require_architecture, taus
from search.tabular_settings import TabularConfig
from tests.processes import copies
from wsrnas.report import write_report
from wsrnas.runtime.errors import InputError, Preempted
from wsrnas.runtime.program import run_program

SPACE = SPACES["nas-bench-201"]
BASELINES = ("evolution", "local-search", "gp")


def choices() -> torch.Tensor:
    """All graphs of three operations."""
    return torch.cartesian_prod(*[torch.tensor([1, 3, 4])] * 6)


def accuracies(graphs: torch.Tensor) -> torch.Tensor:
    """Clean accuracies and those under two attacks (n, 3): operations and pairs of them, by chance."""
    generator = torch.Generator().manual_seed(7)
    gates = SPACE.gates(graphs).flatten(1).double()
    pairs = torch.randn(30, 30, generator=generator, dtype=torch.float64)
    value = ((gates @ pairs) * gates).sum(-1)
    return torch.stack([torch.sigmoid(value / scale) for scale in (6.0, 8.0, 12.0)], -1)


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    graphs, first = choices(), {}
    owners = [first.setdefault(key, place) for place, key in enumerate(SPACE.key(graphs))]
    kept = sorted(set(owners))
    path = tmp_path_factory.mktemp("table") / "small.json"
    path.write_text(json.dumps({
        "source": "a test", "ops": list(SPACE.operations),
        "edges": ["in->1", "in->2", "1->2", "in->out", "1->out", "2->out"], "columns": ["clean", "pgd_3", "pgd_8"],
        "arch": ["".join(map(str, row)) for row in graphs.tolist()], "row_of": [kept.index(owner) for owner in owners],
        "results": accuracies(graphs[kept]).tolist()}))
    return path


@pytest.fixture(scope="module")
def table(file) -> Table:
    return open_table(str(file))


@pytest.fixture
def judge(file, tmp_path, words_only):
    """Run the program and return the folder of its results."""
    def run(*argv, strategy=("local-search",), queries=(5, 12), seeds=2, out="out", table=None) -> Path:
        main(["--table", str(table or file), "--strategy", *strategy, "--queries", *map(str, queries), "--seeds",
              str(seeds), "--out", str(tmp_path / out), *argv])
        return tmp_path / out
    return run


@pytest.fixture
def refused(file, tmp_path, capsys):
    """Run the program and return the one sentence that it left with."""
    def run(*argv) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            run_program(lambda: main(["--table", str(file), "--strategy", "random", "--out", str(tmp_path / "out"),
                                      *argv]))
        said = capsys.readouterr().err
        assert caught.value.code == 2
        assert said.startswith("error: ") and said.count("\n") == 1 and "Traceback" not in said
        return said
    return run


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def searches(folder: Path) -> dict[str, dict]:
    """All searches of a folder, without the time that they took."""
    found = {path.name: json.loads(path.read_text()) for path in sorted((folder / "searches").glob("*.json"))}
    return {name: {key: value for key, value in search.items() if key != "seconds_per_query"}
            for name, search in found.items()}


# ---- what is written -----------------------------------------------------------------------------------------


def test_results_hold_what_is_promised_for_one_strategy(judge):
    values = results(judge(strategy=("gp",)))
    assert values["table"] == "small" and values["strategy"] == "gp"
    assert list(values["regret"]) == ["5", "12"]
    assert list(values["regret"]["5"]) == ["best", "verified", "argmax"]
    mean, error = values["regret"]["12"]["best"]
    assert mean >= 0 and error >= 0
    assert values["regret"]["12"]["argmax"] is None  # a Gaussian process has no A
    assert len(values["tau"]["12"]["all"]) == len(values["tau"]["12"]["best fifth"]) == 2
    assert values["seconds_per_query"] > 0
    assert [other["strategy"] for other in values["others"]] == ["random", "largest-first"]
    assert values["others"][0]["tau"]["12"] == {"all": None, "best fifth": None}


def test_regrets_are_those_of_the_measured_architectures(judge, table):
    folder = judge(strategy=("evolution",), seeds=3)
    objective = table.losses.mean(-1)[table.row]
    final = []
    for seed in range(3):
        search = searches(folder)[f"evolution-{seed}.json"]
        assert len(search["measured"]) == len(search["curve"]) == 12
        for count, regret in enumerate(search["curve"], start=1):
            assert regret == pytest.approx(float(objective[search["measured"][:count]].min() - objective.min()))
        assert search["regret"]["12"]["best"] == pytest.approx(search["curve"][-1])
        final.append(search["curve"][-1])
    mean, error = results(folder)["regret"]["12"]["best"]
    assert mean == pytest.approx(statistics.fmean(final))
    assert error == pytest.approx(statistics.stdev(final) / 3**0.5)
    assert results(folder)["curve"][-1][0] == pytest.approx(mean)


def test_the_best_under_noise_is_the_best_observed_and_its_regret_is_the_true_one(judge, table):
    folder = judge("--noise", "30", seeds=1, queries=(20,))
    search = searches(folder)["random-0.json"]
    objective = table.losses.mean(-1)[table.row][search["measured"]]
    noise = 30 * torch.randn(20, generator=search_noise(0), dtype=torch.float64)
    for count in range(1, 21):
        chosen = (objective + noise)[:count].argmin()
        truth = table.losses.mean(-1).min()
        assert search["curve"][count - 1] == pytest.approx(float(objective[chosen] - truth))
    assert min(search["curve"]) < search["curve"][-1] or objective.argmin() == (objective + noise).argmin()


def search_noise(seed: int) -> torch.Generator:
    from wsrnas.runtime.seeding import generator
    return generator(seed, "table noise")


def test_the_objective_follows_its_weights(judge, table):
    folder = judge("--alpha", "0.8", "--strength_weights", "0.25", "0.75", seeds=1, queries=(6,))
    weights = torch.tensor([0.8, 0.2 * 0.25, 0.2 * 0.75], dtype=torch.float64)
    assert results(folder)["task"]["weights"] == pytest.approx(weights.tolist())
    truth = (table.losses @ weights)[table.row]
    search = searches(folder)["random-0.json"]
    assert search["curve"][-1] == pytest.approx(float(truth[search["measured"]].min() - truth.min()))


def test_all_strategies_of_a_seed_see_the_same_noise(judge, monkeypatch):
    seen: dict[str, list] = {}

    class Watching(RandomSearch):
        def propose(self, measured, generator):
            if len(measured):
                true = task.table.lookup(measured.choices)
                seen.setdefault(self.name, []).append(float((measured.losses - true)[-1, 0]))
            return super().propose(measured, generator)

    def entry(name):
        def build(problem, settings, columns, seed):
            strategy = Watching(problem)
            strategy.name = name
            return strategy
        return StrategyEntry(build, "")

    for name in ("a", "b"):
        monkeypatch.setitem(STRATEGIES, name, entry(name))
    tasks = []
    real = search.tabular.table_task
    monkeypatch.setattr(search.tabular, "table_task", lambda *a: tasks.append(real(*a)) or tasks[0])
    task = type("Later", (), {"table": property(lambda self: tasks[0].table)})()
    judge("--noise", "2", strategy=("a", "b"), seeds=1)
    assert seen["a"] == pytest.approx(seen["b"]) and len(set(seen["a"])) == 11


class Outside(Baseline):
    """Give out something that the table does not hold."""

    def propose(self, measured, generator):
        return self.fresh(measured, generator)

    def outputs(self, measured, generator):
        return super().outputs(measured, generator) | {"argmax": torch.zeros(6, dtype=torch.long)}


def test_an_output_that_may_not_be_measured_has_no_regret(judge, monkeypatch, capsys):
    monkeypatch.setitem(STRATEGIES, "outside", StrategyEntry(lambda problem, *rest: Outside(problem), ""))
    folder = judge(strategy=("outside",))
    assert results(folder)["regret"]["5"]["argmax"] is None
    assert results(folder)["outside"] == {"5": {"argmax": 2}, "12": {"argmax": 2}}
    assert "– (2 not allowed)" in capsys.readouterr().out
    assert "2 of 2 searches" in (folder / "report.html").read_text()


def test_the_terminal_and_the_page_show_every_strategy(judge, capsys, drawn_pages):
    folder = judge(strategy=("local-search", "gp"), seeds=3)
    out, page = capsys.readouterr().out, (folder / "report.html").read_text()
    values = results(folder)
    mean, error = values["regret"]["5"]["best"]
    assert f"| local-search | best | {mean:.2f} ± {error:.2f} |" in out
    gain = " ± ".join(f"{value:.2f}" for value in values["gain"]["12"]["best"]["size"])
    for text in ("local-search", "gp", "random", "largest-first", f"{mean:.2f} ± {error:.2f}", "Rank correlation",
                 "of this, its size gives", gain):
        assert text in page
    assert "SYNTHETIC" not in out and "synthetic" not in page
    lines = (folder / "figures" / "regret-over-queries.csv").read_text().splitlines()
    assert lines[0] == "strategy,output,queries,mean,standard error"
    assert len([line for line in lines if line.startswith("gp,best,")]) == 12
    before = page
    (folder / "report.html").unlink()
    assert write_report([folder]) == folder / "report.html"
    assert (folder / "report.html").read_text() == before


def test_the_demo_is_called_synthetic_everywhere(tmp_path, capsys, words_only):
    main(["--strategy", "random", "--queries", "3", "--seeds", "1", "--out", str(tmp_path)])
    assert capsys.readouterr().out.count("SYNTHETIC") == 2
    assert results(tmp_path)["task"]["synthetic"] is True
    assert "The table is synthetic." in (tmp_path / "report.html").read_text()


def test_a_damaged_result_is_no_page(judge):
    folder = judge(seeds=1)
    (folder / "results.json").write_text('{"table": 1}')
    with pytest.raises(ValueError, match="holds no results"):
        write_report([folder])


def test_the_standard_error_needs_two_seeds(judge):
    assert estimate([2.0, 4.0]) == [3.0, pytest.approx(1.0)]
    assert estimate([2.0]) == [2.0, None] and estimate([None, 2.0]) == [2.0, None]
    assert estimate([None]) is None and estimate([]) is None
    assert results(judge(seeds=1))["regret"]["5"]["best"][1] is None


# ---- rank correlation ----------------------------------------------------------------------------------------


def test_tau_is_that_of_all_pairs_and_of_the_best_fifth():
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(25, generator=generator).double()
    predicted = truth + torch.randn(25, generator=generator)

    def by_hand(a, b):
        pairs = [(i, j) for i in range(len(a)) for j in range(i)]
        return sum(float(((a[i] - a[j]) * (b[i] - b[j])).sign()) for i, j in pairs) / len(pairs)

    best = truth.argsort()[:5]
    assert taus(predicted, truth) == {"all": pytest.approx(by_hand(predicted, truth)),
                                      "best fifth": pytest.approx(by_hand(predicted[best], truth[best]))}


class Knowing(RandomSearch):
    """Predict the truth, and remember what for."""

    seen: ClassVar[list] = []

    def __init__(self, problem, table):
        super().__init__(problem)
        self.table = table

    def predict(self, measured, choices, generator):
        Knowing.seen.append((measured.keys.copy(), SPACE.key(choices)))
        return self.table.lookup(choices).mean(-1)


def test_predictions_are_ranked_on_what_was_not_measured(judge, monkeypatch, table):
    monkeypatch.setattr(Knowing, "seen", seen := [])
    monkeypatch.setitem(STRATEGIES, "knowing", StrategyEntry(lambda problem, *rest: Knowing(problem, table), ""))
    monkeypatch.setattr(search.tabular_search, "UNSEEN", 100)
    folder = judge(strategy=("knowing",), seeds=2)
    assert results(folder)["tau"]["5"]["all"] == [pytest.approx(1), pytest.approx(0)]
    assert len(seen) == 4
    for measured, asked in seen:
        assert len(set(asked)) == len(asked) == 100 and not measured & set(asked)
    early, late = set(seen[0][1]), set(seen[1][1])
    assert len(early & late) >= 90  # the same ones but for what was measured meanwhile


@pytest.mark.parametrize(("strategy", "more"), [
    ("wsr", ("--population", "6")), ("wsr", ("--predictor", "lstm", "--loss_passes", "5")), ("gp", ()),
    ("wsr", ("--proposal_batch", "4")),
    ("wsr-paper", ("--warmup_architectures", "5", "--loss_passes", "5", "--architecture_samples", "8"))])
def test_a_report_changes_no_search(judge, strategy, more):
    one, several = (searches(judge(*more, strategy=(strategy,), queries=queries, seeds=1, out=f"out{len(queries)}"))
                    for queries in ((14,), (5, 9, 14)))
    alone, reported = (found[f"{strategy}-0.json"] for found in (one, several))
    assert alone["measured"] == reported["measured"]
    assert alone["regret"]["14"] == reported["regret"]["14"] and alone["tau"]["14"] == reported["tau"]["14"]


def test_a_damaged_search_is_done_again(judge):
    folder = judge()
    before, file = searches(folder), folder / "searches" / "local-search-0.json"
    for damage in ({"seconds_per_query": None}, {"regret": 3}, {"tau": []}):
        file.write_text(json.dumps(json.loads(file.read_text()) | damage))
        assert searches(judge()) == before


# ---- resuming, sharing ---------------------------------------------------------------------------------------


def test_a_stopped_run_resumes_to_the_results_of_an_unbroken_one(judge, monkeypatch):
    whole = searches(judge(strategy=BASELINES, out="whole"))
    calls = []
    real = search.tabular_search.STRATEGIES["gp"].build

    def stopping(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise Preempted("stopped")
        return real(*arguments)

    monkeypatch.setitem(STRATEGIES, "gp", StrategyEntry(stopping, ""))
    with pytest.raises(Preempted):
        judge(strategy=BASELINES, out="broken")
    folder = judge(strategy=BASELINES, out="broken")
    assert len(calls) == 3 and searches(folder) == whole


def test_a_request_to_stop_is_heard_between_two_queries(judge, monkeypatch, table):
    from search.tabular_settings import TabularConfig
    from wsrnas.runtime.distributed import World
    heard = iter([False] * 4 + [True])
    config = TabularConfig(queries=(9,))
    task = table_task(table, config.objective(table.columns))
    with pytest.raises(Preempted, match="query 4 of random, seed 1"):
        search.tabular_search.search(config, task, "random", 1, World(), lambda: next(heard))


def test_finished_searches_are_kept_when_seeds_and_strategies_are_added(judge):
    first = judge(seeds=1)
    before = {path: path.stat().st_mtime_ns for path in (first / "searches").iterdir()}
    judge("--first_seed", "0", seeds=2, strategy=("local-search", "evolution"))
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert results(first)["seeds"] == [0, 1]
    assert {path.name for path in (first / "searches").iterdir()} == {
        f"{name}-{seed}.json" for name in ("local-search", "evolution", "random", "largest-first") for seed in (0, 1)}


def test_another_configuration_or_table_is_refused_by_name(judge, refused, file, tmp_path):
    judge()
    said = refused("--queries", "7", "--noise", "1")
    assert re.search(r"queries: \[5, 12\] -> \[7\].*noise: 0.0 -> 1.0.*--out", said)
    other = json.loads(file.read_text())
    other["results"][0][0] = 0.123
    path = tmp_path / "other.json"
    path.write_text(json.dumps(other))
    assert "other inputs (table); choose another --out" in refused("--table", str(path), "--queries", "5", "12")
    judge("--overwrite", table=path)
    assert (tmp_path / "out.old1").is_dir()


def _judge(argv: list[str]) -> None:
    from tests.quick import undrawn_pages
    with undrawn_pages():
        main(argv)


@pytest.mark.slow
def test_two_processes_share_the_seeds(file, tmp_path, judge):
    argv = ["--table", str(file), "--strategy", "gp", "--queries", "12", "--seeds", "4", "--out",
            str(tmp_path / "both")]
    context = copies()
    processes = [context.Process(target=_judge, args=(argv,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
    assert [process.exitcode for process in processes] == [0, 0]
    alone = judge(strategy=("gp",), queries=(12,), seeds=4)
    assert searches(tmp_path / "both") == searches(alone)
    assert results(tmp_path / "both")["regret"] == results(alone)["regret"]


# ---- refusing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("argv", "words"), [
    (["--queries", "10", "5"], ["queries", "10, 5", "increasing"]),
    (["--queries", "0", "5"], ["queries", "from 1"]),
    (["--queries", "five"], ["queries", "five"]),
    (["--queries", "5000"], ["5000", "different"]),
    (["--queries", "40", "--size_class", "54:54"], ["40", "different ones within these limits"]),
    (["--budget", "params=1"], ["budget is params=1", "no such architecture"]),
    (["--budget", "much"], ["budget is 'much'", "params=4.5M"]),
    (["--budget", "macs=1M@C4L4"], ["layers is 4", "nas-bench-201"]),
    (["--budget", "params=1M@C99999999999L15"], ["budget is", "at most C10000L1000"]),
    (["--budget", "params=1M@C16L30000"], ["at most C10000L1000"]),
    (["--tau", "1e-300"], ["tau is 1e-300; expected at least 1e-06"]),
    (["--budget_tolerance", "0"], ["budget_tolerance is 0"]),
    (["--proposal_batch", "0"], ["proposal_batch is 0"]),
    (["--size_class", "60:70"], ["no architecture", "60:70"]),
    (["--size_class", "x"], ["size_class", "18:20"]),
    (["--strategy", "luck"], ["luck", "local-search"]),
    (["--strategy", "random", "--seeds", "0"], ["seeds is 0"]),
    (["--first_seed", "-1"], ["first_seed is -1"]),
    (["--noise", "-1"], ["noise is -1"]),
    (["--proxy", "1"], ["proxy is 1"]),
    (["--alpha", "0.5", "--beta", "0.6"], ["alpha + beta is 1.1"]),
    (["--strength_weights", "1"], ["strength_weights has 1", "pgd_3, pgd_8"]),
    (["--columns", "clean"], ["columns", "at least one under attack"]),
    (["--columns", "clean", "clean"], ["clean twice"]),
    (["--columns", "clean", "autoattack"], ["no column 'autoattack'"]),
    (["--table", "nowhere.json"], ["nowhere.json"]),
    (["--predictor", "oracle"], ["predictor", "oracle"]),
    (["--population", "0"], ["population is 0"]),
])
def test_bad_input_is_one_sentence(argv, words, refused, tmp_path):
    said = refused(*argv)
    assert all(word in said for word in words), said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("proposed", "said"), [
    (None, "proposes NoneType"), (torch.zeros(1, 6, dtype=torch.long), r"proposes torch.int64 \(1, 6\)"),
    (torch.zeros(6), r"proposes torch.float32 \(6,\)"), (torch.full((6,), 9), "proposes operations from 9 to 9")])
def test_what_a_strategy_proposes_must_be_an_architecture(proposed, said, table):
    task = table_task(table, TabularConfig().objective(table.columns))
    require_architecture(torch.ones(6, dtype=torch.long), task, "mine")
    with pytest.raises(InputError, match=f"the strategy mine {said}; expected a tensor of 6 integers from 0 to 4"):
        require_architecture(proposed, task, "mine")


@pytest.mark.parametrize(("proposed", "size_class", "said"), [
    ([0, 1, 1, 1, 1, 1], "", "which the table does not hold"),
    ([3, 1, 1, 1, 1, 1], "0:0", "which is not among those of the asked size or cost")])
def test_what_a_strategy_proposes_must_be_one_of_the_task(proposed, size_class, said, table):
    """The last row of the table once answered for an architecture that it does not hold."""
    task = table_task(table, TabularConfig().objective(table.columns), size_class)
    with pytest.raises(InputError, match=re.escape(f"the strategy mine proposes {proposed}, {said}; expected an arch")):
        require_architecture(torch.tensor(proposed), task, "mine")


def test_a_dry_run_writes_nothing(judge, capsys, tmp_path):
    judge("--dry_run", seeds=3)
    out = capsys.readouterr().out
    assert "searches: 9, of 12 queries each" in out and "729 architectures" in out
    assert not (tmp_path / "out").exists()


def test_the_strategy_of_the_project_runs_with_its_options(judge):
    values = results(judge("--predictor", "pairwise", "--proposal_draws", "8", strategy=("wsr",), seeds=1))
    assert all(values["regret"]["12"][kind] for kind in ("best", "verified"))
    assert -1 <= values["tau"]["12"]["all"][0] <= 1


def test_the_strategy_of_the_paper_runs_with_its_options(judge):
    values = results(judge("--loss_passes", "5", "--warmup_architectures", "4", strategy=("wsr-paper",), seeds=1))
    assert values["regret"]["12"]["best"] and values["regret"]["12"]["verified"] is None


def test_cells_that_a_search_measured_are_found_in_the_file_again(judge, tmp_path):
    """The largest are measured first, whatever their order in the file, of which the table has another one."""
    darts = SPACES["darts"]
    choices = darts.sample(12, torch.Generator().manual_seed(3))
    listed = [{"genotype": json.loads(darts.decode(row).to_json()), "clean": 60.0 + number, "pgd": 30.0}
              for number, row in enumerate(choices)]
    (tmp_path / "cells.json").write_text(json.dumps({"cells": listed}))
    folder = judge(strategy=("largest-first",), seeds=1, table=tmp_path / "cells.json")
    search = searches(folder)["largest-first-0.json"]
    parameters = darts.cost(choices, 16, 8, 10, (3, 32, 32))[:, 0]
    assert len(set(parameters.tolist())) == 12
    assert search["in_file"] == parameters.argsort(descending=True).tolist() != search["measured"]


def test_a_table_is_searched_from_python(file):
    found = search_table(str(file), "local-search", queries=(5, 20), seed=3)
    table = open_table(str(file))
    task = table_task(table, TabularConfig().objective(table.columns), "", "", 0.02)
    place = int(table.find(SPACE.encode(found["found"]).unsqueeze(0)))
    assert float(task.truth[place]) - task.best == found["curve"][-1] == found["regret"]["20"]["best"]
    assert len(found["measured"]) == len(found["curve"]) == 20 and found["found"] in found["measured"]
    assert search_table(str(file), "local-search", queries=20, seed=3)["measured"] == found["measured"]
    again = search_table(file, "local-search", queries=np.array(20), seed=np.int64(3),
                         columns=["clean", "pgd_3", "pgd_8"])
    assert again["measured"] == found["measured"], "a path, numbers of numpy"
    with pytest.raises(InputError, match="columns are clean; expected a clean one and at least one under attack"):
        search_table(str(file), "random", 5, columns="clean")
    for settings, said in (
            ({"strategy": "best"}, "unknown strategy 'best'"), ({"strategy": ["wsr"]}, r"unknown strategy \['wsr'\]"),
            ({"queries": (9999,)}, "asks for 9999"), ({"queries": "5"}, r"queries is \['5'\]; expected"),
            ({"queries": [5.0]}, r"queries is \[5.0\]; expected"), ({"queries": True}, "queries is .*expected"),
            ({"seed": "a"}, "seed is 'a'; expected a whole number from 0"), ({"colour": 3}, "unknown .*'colour'"),
            ({"noise": "much"}, "noise is 'much'; expected float"), ({"columns": "pgd"}, "no column 'pgd'")):
        with pytest.raises(InputError, match=said):
            search_table(str(file), **settings)
