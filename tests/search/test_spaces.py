"""Search spaces: choices and architectures, sampling, neighbours, and costs against the networks themselves."""

import itertools

import numpy as np
import pytest
import torch

import genotypes
from search.spaces import SPACES
from search.spaces.darts import DARTS, EDGES, NONE
from search.spaces.space import Space, measured_cost
from wsrnas.genotype import Genotype, random_genotype
from wsrnas.operations import PRIMITIVES
from wsrnas.runtime.errors import InputError

ALL = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def built_cost(space: Space, choices: torch.Tensor, *size) -> list[tuple[int, int]]:
    """Parameters and multiply-adds of the networks of choices (n, R), each built and counted."""
    *arguments, shape = size
    found = []
    for row in choices:
        architecture = space.decode(row)
        with torch.device("meta"):
            network = space.network(architecture, *arguments, shape[0])
        found.append(measured_cost(network, shape))
    return found


# ---- all spaces ----------------------------------------------------------------------------------------------


@ALL
def test_a_space_has_as_many_rows_as_its_supernet(space):
    with torch.device("meta"):
        supernet = space.supernet(2, 3, 4, 1.0, 0.0, None)
    assert [tuple(p.shape) for p in supernet.architecture_parameters()] == [space.shape[1:]] * len(space.cells)
    assert space.num_rows == len(space.cells) * len(space.edges)
    assert SPACES[space.name] is space and space.help


@ALL
def test_edges_go_forward_and_reach_every_node(space):
    inputs = {source for source, _ in space.edges} - {target for _, target in space.edges}
    assert all(source < target for source, target in space.edges)
    assert inputs == set(range(len(inputs)))
    assert len(set(space.edges)) == len(space.edges)


@ALL
@pytest.mark.parametrize("generator", [seeded, np.random.default_rng], ids=["torch", "numpy"])
def test_samples_are_uniform_and_seeded(space, generator):
    choices = space.sample(2000, generator(0))
    assert choices.dtype == torch.int64 and choices.shape == (2000, space.num_rows)
    assert torch.equal(space.sample(2000, generator(0)), choices)
    assert not torch.equal(space.sample(2000, generator(1)), choices)
    count = len(space.operations)
    frequencies = space.gates(choices).mean(0)
    assert (frequencies - 1 / count).abs().max() < 6 * (1 / count / 2000) ** 0.5


@ALL
def test_an_architecture_survives_its_choices_and_its_file(space, tmp_path):
    for row in space.sample(10, seeded()):
        architecture = space.decode(row)
        again = space.decode(space.encode(architecture))
        assert space.differences(again, architecture) == 0
        assert torch.equal(space.encode(again), space.encode(architecture))
        assert space.discretize(space.path_gates(architecture)) == again
        architecture.save(tmp_path / "a.json", {"found": "here"})
        assert space.load(tmp_path / "a.json") == architecture


@ALL
def test_differences_count_single_changes(space):
    first, second = (space.decode(row) for row in space.sample(2, seeded(3)))
    assert space.differences(first, first) == 0
    assert 0 < space.differences(first, second) <= space.num_choices


@ALL
def test_neighbours_are_all_that_differ_in_one_row(space):
    choices = space.sample(1, seeded(1))[0]
    found = space.neighbours(choices)
    assert found.shape == (space.num_rows * (len(space.operations) - 1), space.num_rows)
    assert ((found != choices).sum(1) == 1).all() and len(set(map(tuple, found.tolist()))) == len(found)
    assert found.min() >= 0 and found.max() < len(space.operations)


@ALL
@pytest.mark.parametrize("size", [(4, 6, 10, (3, 8, 8)), (5, 3, 7, (1, 9, 12))], ids=str)
def test_the_cost_of_choices_is_that_of_the_network_built(space, size):
    choices = space.sample(12, seeded(2))
    choices[0], choices[1] = 0, len(space.operations) - 1
    found = space.cost(choices, *size)
    assert found.dtype == torch.int64 and list(map(tuple, found.tolist())) == built_cost(space, choices, *size)


@ALL
def test_the_expected_cost_is_the_mean_over_the_operations_of_a_row(space):
    size = 4, 6, 10, (3, 8, 8)
    choices = space.sample(6, seeded(4))
    row, gates = 1, space.gates(choices).double()
    gates[:, row] = 0.5 * gates[:, row] + 0.5 * space.gates(torch.tensor(2))
    gates.requires_grad_(True)
    expected = space.expected_cost(gates, *size)
    kept = space.kept(gates.detach())[:, row]
    other = choices.clone()
    other[:, row] = 2
    same = kept & space.kept(space.gates(choices))[:, row] & space.kept(space.gates(other))[:, row]
    mean = (space.cost(choices, *size) + space.cost(other, *size)) / 2
    assert same.any()
    torch.testing.assert_close(expected[same], mean[same].double())
    slope, = torch.autograd.grad(expected[:, 0].sum(), gates)
    _, table = space.cost_table(*size)
    torch.testing.assert_close(slope, (table[..., 0] * space.kept(gates.detach()).unsqueeze(-1)))


@ALL
def test_a_record_holds_what_a_page_draws(space):
    record = space.record()
    assert record["choices"] == space.num_choices and record["operations"] == space.operations
    names = space.chosen(space.decode(space.sample(1, seeded(5))[0]))
    assert set(names) == set(space.cells) and set(itertools.chain(*names.values())) <= set(space.operations)


# ---- DARTS ---------------------------------------------------------------------------------------------------


def test_a_genotype_keeps_the_edges_that_its_choices_name():
    for row in DARTS.sample(200, seeded(6)):
        genotype = DARTS.decode(row)
        kept = DARTS.kept(DARTS.gates(row).unsqueeze(0))[0].view(2, EDGES)
        for kind, name in enumerate(("normal", "reduce")):
            drawn = {(source, node) for node, edges in enumerate(genotype.nodes(name), start=2) for _, source in edges}
            assert drawn == {edge for edge, keep in zip(DARTS.edges, kept[kind].tolist(), strict=True) if keep}


def test_random_and_published_cells_survive_their_choices():
    for genotype in [random_genotype(seeded(seed)) for seed in range(20)] + [genotypes.load("WsrNet_Basic")]:
        choices = DARTS.encode(genotype)
        assert (choices != NONE).sum() == DARTS.num_choices
        assert DARTS.differences(DARTS.decode(choices), genotype) == 0


def test_the_cost_of_a_published_cell_by_its_choices():
    genotype = genotypes.load("WsrNet_Basic")
    network = DARTS.network(genotype, 36, 20, 10)
    found = DARTS.cost(DARTS.encode(genotype).unsqueeze(0), 36, 20, 10, (3, 32, 32))
    assert tuple(found[0].tolist()) == measured_cost(network.to("meta"), (3, 32, 32))


@pytest.mark.parametrize(("cell", "concat", "words"), [
    ([[("skip_connect", 0), ("skip_connect", 1)]] * 3, [2, 3, 4], "3 nodes"),
    ([[("skip_connect", 0), ("skip_connect", 1)]] * 4, [2, 3], r"the concat \[2, 3\]"),
    ([[("skip_connect", 0), ("max_pool_3x3", 0)]] + [[("skip_connect", 0), ("skip_connect", 1)]] * 3, [2, 3, 4, 5],
     r"the inputs \[0, 0\]; expected two different ones"),
    ([[("skip_connect", 0), ("sep_conv_7x7", 1)]] * 4, [2, 3, 4, 5], "the operation 'sep_conv_7x7'"),
], ids=["nodes", "concat", "inputs", "operation"])
def test_a_cell_outside_the_space_is_refused(cell, concat, words):
    usual = genotypes.load("WsrNet_Basic")
    with pytest.raises(InputError, match=words):
        DARTS.encode(Genotype(usual.normal, usual.normal_concat, cell, concat))


def test_the_space_of_darts_has_the_published_size():
    assert DARTS.shape == (2, 14, 8) and DARTS.num_choices == 16 and DARTS.operations == PRIMITIVES
