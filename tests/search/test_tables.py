"""Tables of measured architectures: reading, refusing, size classes, and what a query shows."""

import json
import re
from pathlib import Path

import pytest
import torch

import genotypes
from search.spaces import SPACES
from search.tables.demo import demo
from search.tables.queries import Queries, pretended
from search.tables.reading import FORMATS, open_table
from search.tables.table import Table
from search.tables.task import parse_size_class, table_task
from tests.quick import slow_after
from wsrnas.runtime.errors import InputError

SPACE = SPACES["nas-bench-201"]
SHARED = Path(__file__).parents[3] / "shared" / "data"
MEASURED = pytest.mark.parametrize("name", slow_after(1, ["cifar10", "cifar100", "imagenet16"]))


def says(*words: str):
    """Expect one sentence, on one line, that holds every word in this order."""
    return pytest.raises(InputError, match=r"\A[^\n]*" + r"[^\n]*".join(map(re.escape, words)) + r"[^\n]*\Z")


def mean(losses: torch.Tensor) -> torch.Tensor:
    return losses.mean(-1)


def shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"no measured table at {path}")
    return path


def robbench(**changes) -> dict:
    """Four graphs, two of which share a row."""
    return {"ops": ["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"],
            "edges": ["in->1", "in->2", "1->2", "in->out", "1->out", "2->out"],
            "columns": ["clean", "pgd_3", "autoattack_8", "pgd_8"],
            "arch": ["333333", "000300", "000000", "300301"], "row_of": [0, 1, 2, 0],
            "results": [[.9, .8, .1, .4], [.8, .7, .1, .3], [.1, .1, .1, .1]]} | changes


def written(tmp_path: Path, document) -> str:
    path = tmp_path / "table.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return str(path)


# ---- reading -------------------------------------------------------------------------------------------------


def test_losses_are_points_of_lost_accuracy_in_the_usual_columns(tmp_path):
    table = open_table(written(tmp_path, robbench()))
    assert table.columns == ("clean", "pgd_3", "pgd_8") and table.space is SPACE and not table.synthetic
    torch.testing.assert_close(table.lookup(torch.tensor([[3, 0, 0, 3, 0, 1], [0, 0, 0, 3, 0, 0]])),
                               torch.tensor([[10., 20, 60], [20, 30, 70]], dtype=torch.float64))


def test_columns_can_be_chosen(tmp_path):
    table = open_table(written(tmp_path, robbench()), ("pgd_8", "clean"))
    torch.testing.assert_close(table.losses[0], torch.tensor([60., 10], dtype=torch.float64))


def test_operations_and_edges_are_found_by_name(tmp_path):
    shuffled = robbench(ops=["nor_conv_3x3", "none", "skip_connect", "avg_pool_3x3", "nor_conv_1x1"],
                        edges=["2->out", "in->1", "in->2", "1->2", "in->out", "1->out"], arch=["401111", "111101"],
                        row_of=[0, 1])
    names = [[SPACE.operations[choice] for choice in row]
             for row in open_table(written(tmp_path, shuffled)).choices.tolist()]
    assert names[0] == ["nor_conv_3x3", "none", "none", "none", "none", "nor_conv_1x1"]
    assert names[1] == ["none", "none", "none", "nor_conv_3x3", "none", "none"]


def test_what_is_not_in_the_table_is_not_found(tmp_path):
    table = open_table(written(tmp_path, robbench()))
    every = torch.cartesian_prod(*[torch.arange(5)] * 6)
    found = table.find(every)
    assert (found >= 0).sum() == 4
    assert torch.equal(table.choices[found[found >= 0]], every[found >= 0])
    assert table.find(table.choices).tolist() == [0, 1, 2, 3]


BAD = {
    "not JSON": ("{", ["is not JSON"]),
    "a list": ([], ["list", "object"]),
    "another form": ({"networks": []}, ["known form", "arch", "genotype"]),
    "no arch": ({"row_of": [], "results": [], "columns": [], "ops": [], "edges": []}, ["no 'arch'"]),
    "another space": (robbench(ops=["none", "skip_connect", "sep_conv_3x3"]), ["another space", "sep_conv_3x3",
                                                                               "nas-bench-201"]),
    "other edges": (robbench(edges=["in->1", "1->out"]), ["another space", "2 edges"]),
    "missing column": (robbench(columns=["clean", "pgd_3", "a", "b"]), ["no column 'pgd_8'", "clean, pgd_3, a, b"]),
    "row out of range": (robbench(row_of=[0, 1, 2, 3]), ["row_of", "3", "0 to 2"]),
    "negative row": (robbench(row_of=[0, 1, 2, -1]), ["row_of", "-1"]),
    "row that is no integer": (robbench(row_of=[0, 1, 2, True]), ["row_of", "True"]),
    "too few rows": (robbench(row_of=[0, 1]), ["row_of has 2", "arch 4"]),
    "NaN": (json.dumps(robbench(results=[[.9, .8, .1, .4], [.8, float("nan"), .1, .3], [.1] * 4])), ["row 1", "nan",
                                                                                                    "pgd_3"]),
    "a huge number": (robbench(results=[[10**400] * 4, [.8] * 4, [.1] * 4]), ["row 0", "from 0 to 1"]),
    "percent": (robbench(results=[[90, 80, 10, 40], [.8] * 4, [.1] * 4]), ["row 0", "90", "from 0 to 1"]),
    "short row": (robbench(results=[[.9], [.8] * 4, [.1] * 4]), ["row 0", "4 numbers"]),
    "text": (robbench(results=[["a"] * 4, [.8] * 4, [.1] * 4]), ["row 0", "'a'"]),
    "short architecture": (robbench(arch=["33333", "000300", "000000", "300301"]), ["'33333'", "6 digits"]),
    "unknown digit": (robbench(arch=["333337", "000300", "000000", "300301"]), ["'333337'", "from 0 to 4"]),
    "twice": (robbench(arch=["333333", "333333", "000000", "300301"]), ["twice"]),
    "empty": (robbench(arch=[], row_of=[]), ["empty"]),
    "results of another kind": (robbench(results={}), ["results is an object"]),
    "no cells": ({"cells": []}, ["cells is empty"]),
    "cell without genotype": ({"cells": [{"clean": 1}]}, ["cell 0", "genotype"]),
    "cell of another space": ({"cells": [{"genotype": {"normal": [], "normal_concat": [], "reduce": [],
                                                       "reduce_concat": []}, "clean": 50, "pgd": 30}]}, ["cell 0"]),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_table_is_refused_in_one_sentence(case, tmp_path):
    document, words = BAD[case]
    with says(*words):
        open_table(written(tmp_path, document))


def test_isomorphic_graphs_that_were_trained_each_are_one_architecture_with_their_mean(tmp_path):
    every = torch.cartesian_prod(*[torch.arange(5)] * 6)[:300]
    keys = SPACE.key(every)
    twin, first = next((place, keys.index(key)) for place, key in enumerate(keys) if keys.index(key) < place)
    names = ["".join(map(str, every[place].tolist())) for place in (first, twin)]
    document = robbench(arch=[*names, "333333"], row_of=[0, 1, 2])
    table = open_table(written(tmp_path, document))
    assert table.row.tolist() == [0, 0, 1]
    torch.testing.assert_close(table.losses[0], torch.tensor([15.0, 25, 65], dtype=torch.float64))
    document["row_of"] = [1, 1, 1]  # where the file shares rows, it says what is the same
    assert open_table(written(tmp_path, document)).row.tolist() == [1, 1, 1]


@pytest.mark.parametrize("column", ["clean", "pgd"])
def test_cells_without_an_accuracy_or_with_shares_are_named(column, tmp_path):
    cell = json.loads(genotypes.load("RACL").to_json())
    cells = [{"genotype": cell, "clean": 80.0, "pgd": 40.0} for _ in range(3)]
    del cells[1][column]
    with says(f"cell 1 has no {column}; expected an accuracy for every cell"):
        open_table(written(tmp_path, {"cells": cells}))
    for each in cells:
        each[column] = 0.8
    cells[2][column] = 140
    with says(f"cell 2 has 140 in the column {column}; expected an accuracy from 0 to 100"):
        open_table(written(tmp_path, {"cells": cells}))
    cells[2][column] = 0.8
    with says(f"no cell has more than 1 in the column {column}; expected accuracies in percent"):
        open_table(written(tmp_path, {"cells": cells}))


def test_a_column_called_mean_is_not_taken_for_the_mean_of_all(tmp_path):
    path = written(tmp_path, robbench(columns=["clean", "mean", "a", "b"]))
    with says("the column mean of table would be taken for the mean of all"):
        open_table(path, ("clean", "mean"))
    assert open_table(path, ("mean",)).columns == ("mean",)


def test_a_missing_file_is_refused():
    with says("nowhere.json does not exist", "demo"):
        open_table("nowhere.json")


def test_darts_cells_are_read_in_percent_and_equal_cells_are_one(tmp_path):
    found = [json.loads(genotypes.load(name).to_json()) for name in ("RACL", "AdvRush", "RACL")]
    cells = [{"genotype": cell, "clean": clean, "pgd": 40.0, "extra": 1}
             for cell, clean in zip(found, (80, 70, 84), strict=True)]
    table = open_table(written(tmp_path, {"cells": cells}))
    assert table.space.name == "darts" and table.columns == ("clean", "pgd") and len(table.choices) == 2
    losses = table.lookup(torch.stack([table.space.encode(genotypes.load(name)) for name in ("RACL", "AdvRush")]))
    torch.testing.assert_close(losses, torch.tensor([[18., 60], [30, 60]], dtype=torch.float64))


def test_cells_keep_their_numbers_in_the_file(tmp_path):
    """The table sorts its cells, and takes equal ones together under the number of the first."""
    names = ("WsrNet_Basic", "RACL", "AdvRush", "RACL", "WsrNet_Plus")
    found = [genotypes.load(name) for name in names]
    table = open_table(written(tmp_path, {"cells": [
        {"genotype": json.loads(cell.to_json()), "clean": 80.0 + number, "pgd": 40.0}
        for number, cell in enumerate(found)]}))
    numbers = table.numbers(torch.arange(4))
    assert sorted(numbers) == [0, 1, 2, 4] and numbers != sorted(numbers)
    for choices, number in zip(table.choices, numbers, strict=True):
        assert choices.equal(table.space.encode(found[number]))
    assert table.restricted(("pgd",)).numbers(torch.tensor([3, 0])) == [numbers[3], numbers[0]]


def test_every_form_recognises_its_own_files_alone():
    documents = {"nas-robbench-201": robbench(), "darts-cells": {"cells": []}}
    assert documents.keys() == FORMATS.keys()
    for name, document in documents.items():
        assert [other for other, form in FORMATS.items() if form.recognise(document)] == [name]


@MEASURED
def test_the_measured_tables_hold_all_graphs(name):
    table = open_table(str(shared(f"nas_robbench_201_{name}.json")))
    assert len(table.choices) == 15625 and len(table.losses) == 6466
    keys = SPACE.key(table.choices)
    assert len(set(zip(keys, table.row.tolist(), strict=True))) == len(set(keys)) == 6466


@pytest.mark.slow
def test_the_measured_table_has_a_class_of_fixed_size():
    table = open_table(str(shared("nas_robbench_201_cifar10.json")))
    task = table_task(table, mean, "18:20")
    assert len(task.distinct) == 1793
    assert table_task(table, mean).best == pytest.approx(34.47, abs=0.005)


def test_the_measured_cells_of_darts_are_read():
    table = open_table(str(shared("darts_robust_223.json")))
    assert len(table.choices) == 223 and table.losses.min() > 0


# ---- the demo ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def synthetic() -> Table:
    return demo()


@pytest.mark.slow
def test_the_demo_says_that_it_is_synthetic_and_shares_results_among_equal_graphs(synthetic):
    assert synthetic.synthetic and "SYNTHETIC" in synthetic.source
    assert len(synthetic.choices) == 15625 and len(synthetic.losses) == 6466
    assert ((synthetic.losses >= 0) & (synthetic.losses <= 100)).all()
    keys = SPACE.key(synthetic.choices)
    assert len(set(zip(keys, synthetic.row.tolist(), strict=True))) == 6466


@pytest.mark.slow
def test_the_demo_is_not_solved_by_size_alone(synthetic):
    task = table_task(synthetic, mean)
    largest = torch.full((6,), SPACE.operations.index("nor_conv_3x3"))
    assert task.regret(largest) > 0


def test_the_demo_refuses_unknown_columns():
    with says("demo", "'autoattack_8'", "clean, pgd_3, pgd_8"):
        demo(("clean", "autoattack_8"))
    assert demo(("pgd_8", "clean")).columns == ("pgd_8", "clean")


# ---- the task ------------------------------------------------------------------------------------------------


def brute_force_live(choices: list[int]) -> set[int]:
    """Edges on a path from node 0 to node 3 without ``none``, by walking along all paths."""
    found: set[int] = set()

    def walk(node: int, path: tuple[int, ...]) -> None:
        if node == 3:
            found.update(path)
        for edge, (source, target) in enumerate(SPACE.edges):
            if source == node and choices[edge] != SPACE.none:
                walk(target, (*path, edge))

    walk(0, ())
    return found


def test_the_weight_counts_operations_on_a_path_from_input_to_output():
    choices = SPACE.sample(300, torch.Generator().manual_seed(0))
    weight = {SPACE.operations.index("nor_conv_3x3"): 9, SPACE.operations.index("nor_conv_1x1"): 1}
    for row, live, total in zip(choices.tolist(), SPACE.live(choices), SPACE.weight(choices), strict=True):
        assert set(live.nonzero().squeeze(1).tolist()) == brute_force_live(row)
        assert total == sum(weight.get(row[edge], 0) for edge in brute_force_live(row))


def test_a_size_class_bounds_what_may_be_measured(synthetic):
    task = table_task(synthetic, mean, "18:20")
    weights = SPACE.weight(synthetic.choices)
    assert torch.equal(task.problem.allowed(synthetic.choices), (weights >= 18) & (weights <= 20))
    assert ((SPACE.weight(task.problem.pool) >= 18) & (SPACE.weight(task.problem.pool) <= 20)).all()
    assert task.best == float(task.truth[(weights >= 18) & (weights <= 20)].min())
    assert task.regret(torch.full((6,), 3)) is None  # too large
    assert len(task.distinct) == len(set(synthetic.row[task.allowed].tolist()))


def test_architectures_outside_of_a_table_are_not_allowed_and_have_no_regret(tmp_path):
    task = table_task(open_table(written(tmp_path, robbench())), mean)
    assert task.problem.allowed(torch.tensor([[3] * 6, [1] * 6])).tolist() == [True, False]
    assert task.regret(torch.ones(6, dtype=torch.long)) is None
    assert task.regret(torch.tensor([0, 0, 0, 3, 0, 0])) == pytest.approx(10)
    assert task.best == pytest.approx(30)


def test_a_gain_over_the_mean_is_split_into_that_of_its_size_and_the_rest(synthetic):
    task = table_task(synthetic, mean, "9:30")
    parameters = SPACE.cost(synthetic.choices, *synthetic.network)[:, 0].double()
    for place in task.distinct[::97].tolist():
        alike = task.distinct[(parameters[task.distinct] / parameters[place] - 1).abs() <= 0.02]
        whole = float(task.truth[task.distinct].mean())
        expected = whole - float(task.truth[place]), whole - float(task.truth[alike].mean())
        assert task.gain(synthetic.choices[place]) == pytest.approx(expected)
    assert task.gain(torch.full((6,), 3)) is None  # too large


@pytest.mark.parametrize("size_class", ["", "18:20", "1:2", "27:27"])
def test_every_allowed_architecture_has_a_gain(synthetic, size_class):
    """Also a graph with dead convolutions, which is larger than the one that stands for its row of results."""
    task = table_task(synthetic, mean, size_class)
    assert bool(task.mean_of_equal_size[task.allowed].isfinite().all())


def test_a_budget_bounds_what_may_be_measured(synthetic):
    parameters = SPACE.cost(synthetic.choices, *synthetic.network)[:, 0]
    value = int(parameters.median())
    task = table_task(synthetic, mean, "", f"params={value}", 0.05)
    assert torch.equal(task.allowed, (parameters - value).abs() <= 0.05 * value)
    assert torch.equal(task.problem.allowed(synthetic.choices), task.allowed)
    with says("budget is params=1", "no such architecture", "0.02 of it"):
        table_task(synthetic, mean, "", "params=1")


@pytest.mark.parametrize("text", ["18", "a:b", "20:18", "-1:3", "1:2:3", ":"])
def test_a_size_class_is_two_numbers(text):
    with says("size_class", repr(text), "18:20"):
        parse_size_class(text)


def test_an_empty_size_class_is_refused(synthetic):
    with says("size_class 55:60", "no architecture", "0 to 54"):
        table_task(synthetic, mean, "55:60")


def test_a_space_without_weights_has_no_size_class(tmp_path):
    cells = {"cells": [{"genotype": json.loads(genotypes.load("RACL").to_json()), "clean": 80.0, "pgd": 40.0}]}
    with says("size_class", "darts"):
        table_task(open_table(written(tmp_path, cells)), mean, "18:20")


# ---- queries -------------------------------------------------------------------------------------------------


def test_noise_is_shared_by_the_columns_new_in_every_query_and_equal_for_a_seed(synthetic):
    task = table_task(synthetic, mean)
    architecture = synthetic.choices[77]
    queries = Queries(task, 3, 400, noise=2.0)
    shown = torch.stack([queries(architecture, number) for number in range(400)]) - synthetic.lookup(
        architecture.unsqueeze(0))
    torch.testing.assert_close(shown, shown[:, :1].expand(-1, 3))
    assert len(set(shown[:, 0].tolist())) == 400
    assert shown[:, 0].mean().abs() < 0.3 and abs(float(shown[:, 0].std()) - 2) < 0.2
    again = Queries(task, 3, 500, noise=1.0)(synthetic.choices[5], 9) - synthetic.lookup(synthetic.choices[5:6])[0]
    torch.testing.assert_close(2 * again, shown[9])
    assert not torch.equal(Queries(task, 4, 400, noise=2.0).noise, queries.noise)


def test_without_noise_a_query_shows_the_truth(synthetic):
    queries = Queries(table_task(synthetic, mean), 0, 1)
    assert torch.equal(queries(synthetic.choices[9], 0), synthetic.lookup(synthetic.choices[9:10])[0])


@pytest.mark.parametrize("correlation", [0.3, 0.6, 0.95])
def test_a_proxy_permutes_the_results_with_the_asked_correlation_of_normal_scores(synthetic, correlation):
    task = table_task(synthetic, mean)
    shown = pretended(task, correlation, torch.Generator().manual_seed(0))
    assert torch.equal(shown.sort().values, torch.arange(len(synthetic.losses)))
    truth = mean(synthetic.losses)

    def scores(values: torch.Tensor) -> torch.Tensor:
        ranks = values.argsort(stable=True).argsort()
        return torch.special.ndtri((ranks + 0.5).double() / len(values))

    measured = torch.corrcoef(torch.stack([scores(truth), scores(truth[shown])]))[0, 1]
    assert abs(float(measured) - correlation) < 0.03


def test_a_proxy_is_fixed_for_a_seed_and_stays_inside_the_size_class(synthetic):
    task = table_task(synthetic, mean, "18:20")
    first, second, other = (Queries(task, seed, 2, proxy=0.6).shown for seed in (1, 1, 2))
    assert torch.equal(first, second) and not torch.equal(first, other)
    inside = synthetic.row[task.allowed].unique()
    outside = torch.ones(len(first), dtype=torch.bool).index_fill(0, inside, False).nonzero().squeeze(1)
    assert torch.equal(first[inside].sort().values, inside) and torch.equal(first[outside], outside)


def test_a_proxy_of_correlation_one_is_the_truth(synthetic):
    task = table_task(synthetic, mean)
    shown = pretended(task, 1.0, torch.Generator().manual_seed(0))
    torch.testing.assert_close(mean(synthetic.losses)[shown], mean(synthetic.losses))
