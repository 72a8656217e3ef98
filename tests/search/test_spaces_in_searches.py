"""Searches in other spaces than that of DARTS: both programs from the command line, their files and pages."""

import csv
import json
import re

import pytest
import torch

import search.rnas
import search.supernet_training
import search.wsr_nas
import search.wsr_nas_searcher
from search.rnas_settings import PRESETS as RNAS_PRESETS
from search.rnas_settings import RnasConfig
from search.spaces import SPACES
from search.spaces.nas_bench_201 import NasBench201
from search.supernet_strategies import SUPERNET_STRATEGIES
from search.wsr_nas_settings import PRESETS, SearchConfig
from tests.quick import pages_without_sections
from tests.run_files import assert_equal, read, without_time
from wsrnas.architectures.nas_bench_201 import CellGraph
from wsrnas.report.reading.runs import read_run
from wsrnas.report.reading.space import DARTS
from wsrnas.runtime.config import parse_config
from wsrnas.runtime.errors import InputError

pytestmark = pytest.mark.usefixtures("quick_pages")

PROGRAMS = pytest.mark.parametrize(("config", "presets"), [(SearchConfig, PRESETS), (RnasConfig, RNAS_PRESETS)],
                                   ids=["wsr_nas", "rnas"])
SMALL = ["--preset", "tiny", "--device", "cpu", "--init_channels", "2", "--num_steps", "1", "--batch_size", "15",
         "--recalibration_batches", "1"]
WSR_NAS = [*SMALL, "--max_train", "60", "--max_validation", "20", "--loss_passes", "3", "--estimator_images", "2",
           "--warmup_architectures", "2", "--iterations", "3"]
GRAPH = [*WSR_NAS, "--space", "nas-bench-201", "--strategy", "wsr-paper"]
RNAS = [*SMALL, "--batch_size", "20", "--max_train", "80", "--epochs", "2", "--warmup_epochs", "1", "--bound_batches",
        "2", "--vulnerability_bound", "rel:0.8"]


# ---- the number of cells -------------------------------------------------------------------------------------


@PROGRAMS
def test_every_preset_runs_in_every_space_with_a_number_of_cells_that_fits(config, presets):
    for preset in presets:
        usual = parse_config(config, presets, ["--preset", preset])[0]
        assert usual.space == "darts" and usual.layers == presets[preset].layers
        found = parse_config(config, presets, ["--preset", preset, "--space", "nas-bench-201"])[0]
        assert found.layers == (3 if preset == "tiny" else 15)
        assert found.name != usual.name and "nas-bench-201" in found.name


@PROGRAMS
def test_a_number_of_cells_that_is_asked_for_is_taken_or_refused(config, presets):
    asked = ["--preset", "tiny", "--space", "nas-bench-201", "--layers"]
    assert parse_config(config, presets, [*asked, "9"])[0].layers == 9
    with pytest.raises(InputError, match=r"^layers is 8; the space nas-bench-201 expects a multiple of 3"):
        parse_config(config, presets, [*asked, "8"])


@PROGRAMS
def test_the_stored_configuration_of_another_space_is_read_again(config, presets, tmp_path):
    first = parse_config(config, presets, ["--space", "nas-bench-201"])[0]
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**vars(first), "space": "nas-bench-201"}))
    assert parse_config(config, presets, ["--config", str(path)])[0] == first
    assert parse_config(config, presets, ["--config", str(path), "--space", "darts"])[0].space == "darts"


def test_the_configuration_of_an_earlier_run_is_one_of_the_space_of_darts(tmp_path):
    values = {name: value for name, value in vars(PRESETS["tiny"]).items() if name != "space"}
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert parse_config(SearchConfig, PRESETS, ["--config", str(tmp_path / "config.json")])[0] == PRESETS["tiny"]


# ---- the page of a record ------------------------------------------------------------------------------------


def test_a_run_without_a_record_is_one_of_the_space_of_darts(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert read_run(tmp_path).space == DARTS
    space = SPACES["darts"]
    assert (DARTS.cells, DARTS.edges, DARTS.operations, DARTS.choices) == (
        space.cells, space.edges, space.operations, space.num_choices)


@pytest.mark.parametrize("text", ["{", "[]", '{"cells": ["cell"]}', '{"cells": 1, "edges": 2}'])
def test_a_damaged_record_of_the_space_is_a_problem_of_the_page(text, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "space.json").write_text(text)
    run = read_run(tmp_path)
    assert run.space == DARTS and "space.json" in " ".join(run.problems)


# ---- searches ------------------------------------------------------------------------------------------------


def start(program, folder, argv):
    program.main([*argv, "--save", "run", "--runs", str(folder)])
    return folder / "search" / "run"


def drawn(run, figure):
    with open(run / "figures" / f"{figure}.csv", encoding="utf-8") as file:
        return list(csv.reader(file))


@pytest.fixture(scope="module")
def wsr_nas(tmp_path_factory):
    return start(search.wsr_nas, tmp_path_factory.mktemp("whole"), GRAPH)


@pytest.mark.slow
def test_wsr_nas_searches_a_graph(wsr_nas):
    found = CellGraph.load(wsr_nas / "genotype.json")
    last = read(wsr_nas)[-1]["architecture"]
    assert last["genotype"] == {"cell": list(found.operations)}
    assert torch.tensor(last["alphas"]["cell"]).argmax(-1).tolist() == list(found.choices)
    assert last["pools"]["cell"] == found.operations.count("avg_pool_3x3") and "none_mass" in last
    assert CellGraph.load(wsr_nas / "genotypes" / "epoch_002.json") == found
    assert (wsr_nas / "genotypes" / "initial.json").exists()
    assert re.search(r"changed \d/6", (wsr_nas / "log.txt").read_text())
    assert "of 6 choices differ" in (wsr_nas / "FINISHED").read_text()


@pytest.mark.slow
def test_the_page_draws_the_weights_of_a_graph(wsr_nas):
    page = (wsr_nas / "report.html").read_text()
    assert "of 6" in page and "6 edges of the cell" in page and "The cell" in page
    assert not read_run(wsr_nas).problems
    header, *rows = drawn(wsr_nas, "weights-cell")
    assert header[1] == "input->1 none" and header[-1] == "2->3 avg_pool_3x3" and len(header) == 1 + 30
    assert len(rows) == 3
    assert [sum(map(float, row[1:])) for row in rows] == pytest.approx([6] * 3, abs=1e-2)


@pytest.mark.slow
def test_a_search_of_a_graph_interrupted_in_every_phase_equals_the_uninterrupted_one(wsr_nas, tmp_path):
    class Killed(BaseException):
        pass

    original = search.supernet_training.train_epoch
    for step in (1, 3, 6):  # of the warm-up, the population and the search

        def dying(trainer, loader, number, step=step, **more):
            if number == step:
                raise Killed
            return original(trainer, loader, number, **more)

        with pages_without_sections(), pytest.MonkeyPatch.context() as context, pytest.raises(Killed):
            context.setattr(search.supernet_training, "train_epoch", dying)
            start(search.wsr_nas, tmp_path, GRAPH)
        assert len(read(tmp_path / "search" / "run")) == step
    with pages_without_sections():
        run = start(search.wsr_nas, tmp_path, GRAPH)
    assert_equal(*(without_time(read(folder)) for folder in (run, wsr_nas)))
    assert_equal(*(torch.load(folder / "checkpoint.pt", weights_only=True)["searcher"] for folder in (run, wsr_nas)))
    for name in ("genotype.json", "genotypes/initial.json"):
        assert (run / name).read_text() == (wsr_nas / name).read_text()


@pytest.mark.slow
def test_a_run_of_one_space_is_not_resumed_in_another(wsr_nas):
    with pytest.raises(InputError, match="space: nas-bench-201 -> darts"):
        start(search.wsr_nas, wsr_nas.parents[1], [*WSR_NAS, "--strategy", "wsr-paper"])


@pytest.mark.slow
@pytest.mark.parametrize(("relaxation", "layers"), [("mixed", 6), ("sampled", 3)])
def test_rnas_searches_a_graph_under_a_bound_at_its_cells(relaxation, layers, tmp_path):
    run = start(search.rnas, tmp_path, [*RNAS, "--space", "nas-bench-201", "--layers", str(layers), "--relaxation",
                                        relaxation])
    found = json.loads((run / "vulnerability.json").read_text())
    assert len(found["child"]["cells"]) == layers and found["child"]["vulnerability"] > 0
    assert found["architecture"]["genotype"] == {"cell": list(CellGraph.load(run / "genotype.json").operations)}
    assert drawn(run, "masses")[0][:2] == ["step", "none, cell"]
    assert f"supernet and of its {layers} cells" in (run / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("program", "argv"), [(search.wsr_nas, WSR_NAS), (search.rnas, RNAS)], ids=["wsr", "rnas"])
def test_a_dry_run_prints_the_cost_of_a_search_of_a_graph(program, argv, tmp_path, capsys):
    program.main([*argv, "--space", "nas-bench-201", "--runs", str(tmp_path), "--dry_run"])
    printed = capsys.readouterr().out
    assert "supernet:" in printed and re.search(r"space +nas-bench-201", printed)
    assert list(tmp_path.iterdir()) == []


class Pair(NasBench201):
    """Search two of the six edges, and three operations."""

    name = "pair"
    help = "two convolutions in a row"
    edges = ((0, 1), (1, 3))
    operations = ("skip_connect", "nor_conv_1x1", "nor_conv_3x3")


def test_a_space_counts_its_different_architectures():
    pair = Pair()
    assert pair.distinct(100) == len(set(pair.key(torch.cartesian_prod(torch.arange(3), torch.arange(3))))) == 7
    assert [pair.distinct(most) for most in (2, 7, 8)] == [2, 7, 7]
    assert SPACES["nas-bench-201"].distinct(10**6) == 6466  # of 15,625 graphs
    assert SPACES["darts"].distinct(10**6) == 10**6


def test_a_search_that_would_run_out_of_architectures_is_refused(monkeypatch):
    monkeypatch.setitem(SPACES, "pair", Pair())
    few = ["--preset", "tiny", "--space", "pair", "--iterations"]
    assert parse_config(SearchConfig, PRESETS, [*few, "5"])[0].iterations == 5
    said = (r"strategy is wsr, which measures no architecture twice, but the space pair has 7 and the search "
            "measures 7; expected fewer --iterations, or --strategy wsr-paper")
    with pytest.raises(InputError, match=said):
        parse_config(SearchConfig, PRESETS, [*few, "6"])
    assert parse_config(SearchConfig, PRESETS, [*few, "6", "--strategy", "wsr-paper"])[0].iterations == 6


@pytest.mark.slow
@pytest.mark.parametrize("strategy", SUPERNET_STRATEGIES)
def test_a_space_that_is_added_is_searched_and_drawn(strategy, tmp_path, monkeypatch):
    monkeypatch.setitem(SPACES, "pair", Pair())
    run = start(search.wsr_nas, tmp_path, [*WSR_NAS, "--space", "pair", "--strategy", strategy])
    found = CellGraph.load(run / "genotype.json")
    assert all((name in Pair.operations) == (number in (0, 4)) for number, name in enumerate(found.operations))
    header, *_ = drawn(run, "weights-cell")
    assert header == ["step", *(f"{edge} {name}" for edge in ("input->1", "1->3") for name in Pair.operations)]
    row = read(run)[-1]["architecture"]
    assert "none_mass" not in row and set(row["skip_mass"]) == {"cell"}
    assert "of 2" in (run / "report.html").read_text()
