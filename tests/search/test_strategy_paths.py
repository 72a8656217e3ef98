"""Numbers of paths through a cell: against a walk over all of them, and as features."""

import itertools

import pytest
import torch

from search.spaces import SPACES
from search.spaces.nas_bench_201 import NasBench201
from search.strategy.paths import Paths, count_paths, sets_of_operations


def walked(space, weights):
    """Return the number of paths for weights (M, E), by a walk over every path, summed over products of weights."""
    def from_state(kind, state):
        total = float(state in space.outputs())
        for place, (source, target) in enumerate(space.edges):
            if source == state:
                total += float(weights[kind, place]) * from_state(kind, target)
        return total
    return [sum(from_state(kind, state) for state in space.inputs()) for kind in range(len(space.cells))]


@pytest.mark.parametrize("name", SPACES)
def test_the_numbers_are_those_of_a_walk_over_all_paths(name):
    space = SPACES[name]
    sets = sets_of_operations(space)
    soft = torch.rand(2, space.num_rows, len(space.operations), generator=torch.Generator().manual_seed(0)).double()
    gates = torch.cat([space.gates(space.sample(4, torch.Generator().manual_seed(1))).double(), soft])
    found = count_paths(space, sets, gates).view(6, len(space.cells), len(sets))
    for one, counts in zip(gates, found, strict=True):
        for number, weights in enumerate(sets):
            expected = walked(space, (one @ weights).view(len(space.cells), -1))
            assert counts[:, number].tolist() == pytest.approx(expected)


def test_a_skip_connection_of_two_edges_is_one():
    space = SPACES["nas-bench-201"]
    skip = space.gates(torch.tensor([space.operations.index("skip_connect")])).double()
    direct, in_two, neither = [3, 3, 3, 1, 3, 3], [1, 3, 3, 2, 1, 3], [1, 3, 3, 2, 3, 3]
    counts = count_paths(space, skip, space.gates(torch.tensor([direct, in_two, neither])).double())
    assert counts.flatten().tolist() == [1, 1, 0]


def test_sets_are_skip_connections_with_each_other_operation_alone_and_everything():
    space = SPACES["nas-bench-201"]
    named = [{space.operations[index] for index in members.nonzero().flatten().tolist()}
             for members in sets_of_operations(space)]
    assert named == [{"skip_connect", "nor_conv_1x1"}, {"skip_connect", "nor_conv_3x3"},
                     {"skip_connect", "avg_pool_3x3"}, {"skip_connect"}, set(space.operations) - {"none"}]


@pytest.mark.parametrize("name", SPACES)
def test_features_are_standardised_and_differentiable(name):
    space = SPACES[name]
    paths, gates = Paths(space), space.gates(space.sample(400, torch.Generator().manual_seed(3))).double()
    features = paths(gates)
    assert features.mean(0).abs().max() < 0.3 and (features.std(0) - 1).abs().max() < 0.6
    soft = torch.softmax(torch.randn(2, *gates.shape[1:], dtype=torch.float64), -1).requires_grad_()
    assert torch.autograd.gradcheck(paths, soft)


def test_a_number_that_never_changes_is_no_division_by_zero():
    class Direct(NasBench201):
        edges = ((0, 3),)
        operations = ("nor_conv_1x1", "nor_conv_3x3")

    features = Paths(Direct())(torch.tensor([[[1.0, 0.0]], [[0.3, 0.7]]]).double())  # one path, through either
    assert features.abs().max() < 10 and features[:, -1].abs().max() < 1e-6


def test_isomorphic_graphs_have_equal_paths():
    """Nodes 1 and 2 of a graph without an edge between them may change places."""
    space, paths = SPACES["nas-bench-201"], Paths(SPACES["nas-bench-201"])
    for a, b, c, d in itertools.product(range(5), repeat=4):
        pair = space.gates(torch.tensor([[a, b, 0, 1, c, d], [b, a, 0, 1, d, c]])).double()
        torch.testing.assert_close(*paths(pair))


def test_fewer_edges_keep_input_and_output():
    class Fewer(NasBench201):
        edges = ((0, 2), (2, 3))

    counts = count_paths(Fewer(), torch.ones(1, 5).double(), torch.full((1, 2, 5), 0.2).double())
    assert counts.item() == pytest.approx(1) and Fewer().inputs() == (0,) and Fewer().outputs() == (3,)
