"""Search spaces: choices and architectures, sampling, neighbours, and costs against the networks themselves."""

import itertools

import numpy as np
import pytest
import torch

import genotypes
from search.spaces import SPACES
from search.spaces.darts import DARTS, EDGES, NONE
from search.spaces.nas_bench_201 import NasBench201
from search.spaces.space import Space, measured_cost
from tests.networks import empty_layers
from wsrnas.architectures.nas_bench_201 import CellGraph
from wsrnas.architectures.nas_bench_201.network import NetworkNB201
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
        with empty_layers():
            network = space.network(architecture, *arguments, shape[0])
        found.append(measured_cost(network, shape))
    return found


# ---- all spaces ----------------------------------------------------------------------------------------------


@ALL
def test_a_space_has_as_many_rows_as_its_supernet(space):
    with empty_layers():
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
def test_samples_are_architectures_uniform_over_operations_and_seeded(space, generator):
    choices = space.sample(2000, generator(0))
    assert choices.dtype == torch.int64 and choices.shape == (2000, space.num_rows)
    assert torch.equal(space.sample(2000, generator(0)), choices)
    assert not torch.equal(space.sample(2000, generator(1)), choices)
    assert all(torch.equal(space.encode(space.decode(row)), row) for row in choices[:50])
    counts = space.gates(choices).sum(0)
    counts = torch.cat([counts[:, :space.none], counts[:, space.none + 1:]], 1)  # of the other operations
    shares = counts / counts.sum(1, keepdim=True)
    assert (shares - 1 / shares.shape[1]).abs().max() < 6 * (1 / shares.shape[1] / counts.sum(1).min()) ** 0.5


@ALL
def test_weights_become_the_choices_of_their_architecture(space):
    weights = torch.randn(40, *space.shape, generator=seeded(5))
    assert torch.equal(space.discrete(weights), torch.stack([space.encode(space.discretize(w)) for w in weights]))


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
def test_neighbours_differ_in_one_decision_and_are_neighbours_of_each_other(space):
    choices = space.sample(1, seeded(1))[0]
    architecture, found = space.decode(choices), space.neighbours(choices)
    assert len(set(map(tuple, found.tolist()))) == len(found)
    for row in found:
        assert torch.equal(space.encode(space.decode(row)), row)
        assert space.differences(space.decode(row), architecture) == 1
    for row in found[::7]:
        assert choices.tolist() in space.neighbours(row).tolist()


@ALL
def test_exchanges_keep_the_operations_of_each_cell(space):
    choices = space.sample(1, seeded(2))[0]
    found = space.exchanges(choices)
    assert len(found) and len(set(map(tuple, found.tolist()))) == len(found)
    for row in found:
        assert torch.equal(space.encode(space.decode(row)), row) and (row != choices).sum() == 2
        cells, before = (c.view(len(space.cells), -1).sort().values for c in (row, choices))
        assert torch.equal(cells, before)


@ALL
def test_mutations_are_at_most_two_decisions_away(space):
    choices = space.sample(1, seeded(3))[0]
    found = space.mutations(choices, 30, seeded(4))
    assert found.shape == (30, space.num_rows) and torch.equal(found, space.mutations(choices, 30, seeded(4)))
    distances = {space.differences(space.decode(row), space.decode(choices)) for row in found}
    assert 2 in distances and distances <= {0, 1, 2}
    assert space.mutations(choices, 0, seeded()).shape == (0, space.num_rows)


def test_the_neighbours_of_a_graph_are_all_with_one_other_operation():
    space = SPACES["nas-bench-201"]
    choices = space.sample(1, seeded(6))[0]
    every = torch.cartesian_prod(*[torch.arange(5)] * 6)
    expected = every[(every != choices).sum(1) == 1]
    assert sorted(space.neighbours(choices).tolist()) == sorted(expected.tolist())


def test_of_equally_strong_inputs_a_genotype_keeps_the_first():
    weights = torch.randint(3, (300, *DARTS.shape), generator=seeded()).double()
    found = torch.stack([DARTS.encode(DARTS.discretize(row)) for row in weights])
    assert torch.equal(DARTS.discrete(weights), found)


def test_the_neighbours_of_a_genotype_have_another_operation_or_input():
    # Six other operations on 16 edges; node i + 2 has i inputs that it does not use, for each of its two edges.
    assert len(DARTS.neighbours(DARTS.sample(1, seeded())[0])) == 16 * 6 + 2 * (2 * 1 + 2 * 2 + 2 * 3)


@pytest.mark.slow
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


@pytest.mark.slow
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
    ([[("skip_connect", 0), ("none", 1)]] * 4, [2, 3, 4, 5], "the operation 'none'; expected one of max_pool_3x3"),
], ids=["nodes", "concat", "inputs", "operation", "none"])
def test_a_cell_outside_the_space_is_refused(cell, concat, words):
    usual = genotypes.load("WsrNet_Basic")
    with pytest.raises(InputError, match=words):
        DARTS.encode(Genotype(usual.normal, usual.normal_concat, cell, concat))


def test_the_space_of_darts_has_the_published_size():
    assert DARTS.shape == (2, 14, 8) and DARTS.num_choices == 16 and DARTS.operations == PRIMITIVES


# ---- NAS-Bench-201 -------------------------------------------------------------------------------------------

NB201 = SPACES["nas-bench-201"]


def nb201_supernet(seed: int = 0, **arguments):
    torch.manual_seed(seed)
    arguments = {"tau": 1.0, "alpha_std": 0.5} | arguments
    return NB201.supernet(4, 6, 5, generator=seeded(seed), **arguments)


def test_the_choices_of_a_graph_are_its_own_and_those_of_the_published_tables():
    graph = CellGraph.from_string("|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_3x3~0|none~1|none~2|")
    assert NB201.encode(graph).tolist() == list(graph.choices) == [4, 2, 1, 3, 0, 0]
    assert NB201.decode(torch.tensor([4, 2, 1, 3, 0, 0])) == graph
    assert NB201.shape == (1, 6, 5) and NB201.num_choices == 6


def test_the_largest_weight_of_an_edge_decides_also_for_none():
    weights = torch.zeros(1, 6, 5)
    weights[0, range(6), [0, 1, 2, 3, 4, 0]] = 1
    assert NB201.encode(NB201.discretize(weights)).tolist() == [0, 1, 2, 3, 4, 0]


@pytest.mark.slow
def test_all_graphs_have_as_many_keys_as_the_published_tables_have_results():
    choices = torch.cartesian_prod(*[torch.arange(5)] * 6)
    assert len(set(NB201.key(choices))) == 6466


def test_equal_keys_for_isomorphic_graphs():
    first, second, other = [1, 0, 3, 0, 0, 1], [3, 0, 1, 0, 0, 1], [3, 0, 1, 0, 0, 4]
    keys = NB201.key(torch.tensor([first, second, other]))
    assert keys[0] == keys[1] != keys[2]
    assert len(set(DARTS.key(DARTS.sample(5, seeded())))) == 5


@pytest.mark.slow
def test_the_published_cost_of_the_graph_of_convolutions():
    """The largest of the tables, in millions; there, an addition for each bias of the classifier counts as well."""
    parameters, operations = NB201.cost(torch.full((1, 6), 3), 16, 15, 10, (3, 32, 32))[0].tolist()
    assert (parameters, operations + 10) == (1_531_546, 220_119_690)


@pytest.mark.parametrize("layers", [1, 8, 16])
def test_a_number_of_cells_that_three_stages_cannot_share_is_refused(layers):
    with pytest.raises(InputError, match=f"layers is {layers}; the space nas-bench-201 expects a multiple of 3"):
        NB201.supernet(2, layers, 4, 1.0, 0.0, None)
    assert NB201.fitting_layers(layers) % 3 == 0 and DARTS.fitting_layers(layers) == layers


def test_presets_of_another_space_get_the_published_number_of_cells_or_the_smallest():
    assert [NB201.fitting_layers(layers) for layers in (3, 4, 8, 9, 20)] == [3, 3, 15, 9, 15]


def copied_network(supernet, graph):
    """The stand-alone network of a graph with the weights of a supernet."""
    network = NetworkNB201(graph, 4, 2, 5)
    own = {name: value for name, value in supernet.state_dict().items() if not name.startswith(("cells.", "alphas_"))}
    missing, unknown = network.load_state_dict(own, strict=False)
    assert not unknown and all(name.startswith("cells.") for name in missing)
    for cell, search_cell in zip(network.cells, supernet.cells, strict=True):
        for edge, candidates, choice in zip(cell.edges, search_cell.edges, graph.choices, strict=True):
            edge.load_state_dict(candidates[choice].state_dict(), strict=False)  # without scale and shift, 1 and 0
    return network


@pytest.mark.parametrize("training", [True, False])
def test_a_path_of_full_gates_is_the_network_of_its_graph(training):
    supernet = nb201_supernet().train()
    images = torch.rand(4, 3, 8, 8, generator=seeded(1))
    for row in [*NB201.sample(4, seeded(2)), torch.full((6,), 4), torch.zeros(6, dtype=torch.long)]:
        graph = NB201.decode(row)
        supernet.use(NB201.path_gates(graph))
        with torch.no_grad():
            supernet.train()(images)  # the running statistics are somebody's
            network, outputs, expected = copied_network(supernet, graph).train(training), [], []
            supernet.train(training)
            torch.testing.assert_close(supernet(images, outputs), network(images, expected))
            torch.testing.assert_close(outputs, expected)
        assert [tuple(output.shape[1:]) for output in outputs] == [(4, 8, 8)] * 2 + [(8, 4, 4)] * 2 + [(16, 2, 2)] * 2


def nb201_by_hand(supernet, images, weights):
    """Every operation of every edge, weighted."""
    features = supernet.stem(images)
    for number, cell in enumerate(supernet.cells):
        features = supernet.reductions[number // 2 - 1](features) if number in (2, 4) else features
        states = [features, 0, 0, 0]
        for (source, target), candidates, row in zip(NB201.edges, cell.edges, weights[0], strict=True):
            total = sum(weight * operation(states[source]) for weight, operation in zip(row, candidates, strict=True))
            states[target] = states[target] + total
        features = states[3]
    return supernet.classifier(supernet.activation(features).mean((2, 3)))


def test_a_mixture_of_a_graph_is_the_weighted_sum_of_its_operations_with_its_gradient():
    supernet = nb201_supernet().double()
    images = torch.rand(3, 3, 8, 8, generator=seeded(1), dtype=torch.float64)
    weights, same = (torch.randn(1, 6, 5, generator=seeded(2), dtype=torch.float64).requires_grad_() for _ in range(2))
    supernet.mix(weights)
    found, expected = supernet(images), nb201_by_hand(supernet, images, same)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(logits.square().sum(), leaf)[0]
                 for logits, leaf in ((found, weights), (expected, same))]
    torch.testing.assert_close(*gradients)
    assert (gradients[0][..., 0] == 0).all() and (gradients[0][..., 1:] != 0).all()


def test_a_sampled_path_of_a_graph_multiplies_by_its_gates():
    supernet = nb201_supernet().double()
    images = torch.rand(3, 3, 8, 8, generator=seeded(1), dtype=torch.float64)
    path = supernet.sample(seeded(3))
    strongest = path.gates == path.gates.amax(-1, keepdim=True)
    assert path.encoding.shape == (6, 5)
    torch.testing.assert_close(supernet(images), nb201_by_hand(supernet, images, path.gates * strongest))


def test_batch_norm_of_the_operations_learns_no_scale_in_the_supernet():
    cells = nb201_supernet().cells
    assert not [name for name, _ in cells.named_parameters() if name.endswith("bias")]
    assert {tuple(weight.shape[2:]) for weight in cells.parameters()} == {(1, 1), (3, 3)}


# ---- another space -------------------------------------------------------------------------------------------


class Chain(NasBench201):
    """Search the three edges of a chain; the other edges of the graph are ``none``."""

    name = "chain"
    help = "three operations in a row"
    edges = ((0, 1), (1, 2), (2, 3))


def test_a_space_may_search_some_edges_of_a_graph():
    space = Chain()
    graph = space.decode(torch.tensor([3, 4, 2]))
    assert graph == CellGraph.from_string("|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|none~0|none~1|nor_conv_1x1~2|")
    assert space.encode(graph).tolist() == [3, 4, 2]
    with pytest.raises(InputError, match=r"has an operation on the edges \[\(0, 2\)\]; expected none there"):
        space.encode(NB201.decode(torch.tensor([3, 1, 4, 0, 0, 2])))
    size, choices = (4, 3, 10, (3, 8, 8)), space.sample(5, seeded())
    assert list(map(tuple, space.cost(choices, *size).tolist())) == built_cost(space, choices, *size)
    supernet = space.supernet(2, 3, 4, 1.0, 0.1, seeded())
    supernet.sample(seeded())
    assert supernet(torch.rand(2, 3, 8, 8)).shape == (2, 4) and isinstance(supernet.genotype(), CellGraph)
