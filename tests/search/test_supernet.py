"""The supernet: published size, the sampling law, the genotype by brute force, a path evaluated by hand."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from search.spaces import SPACES
from search.spaces.darts import DARTS, EDGES
from search.supernet import Supernet, gumbel_noise, gumbel_softmax
from tests.networks import empty_layers
from tests.quick import slow_after
from wsrnas.attacks import attack_mode, fgsm, pgd
from wsrnas.complexity import count_parameters
from wsrnas.genotype import Genotype
from wsrnas.network import NetworkCIFAR
from wsrnas.operations import PRIMITIVES
from wsrnas.quick.modules import modules_in_use
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import InputError
from wsrnas.training.losses import LOSSES, LossSettings
from wsrnas.training.trainer import Trainer

FIRST = (0, 2, 5, 9)  # the first edge of each node


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(seed: int = 0, **arguments) -> Supernet:
    torch.manual_seed(seed)
    return Supernet(4, 3, 5, generator=seeded(seed), **arguments)


def set_alphas(supernet: Supernet, values: Tensor) -> None:
    with torch.no_grad():
        for parameter, value in zip(supernet.architecture_parameters(), values, strict=True):
            parameter.copy_(value)


def one_hot(operations) -> Tensor:
    """Gates (2, E, O) of the operations [normal, reduce], each E numbers."""
    return F.one_hot(torch.as_tensor(operations), len(PRIMITIVES)).float()


# ---- parameters ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_supernet_has_the_published_number_of_parameters():
    with empty_layers():
        supernet = Supernet(16, 8, 10)
    assert count_parameters(supernet.weight_parameters()) == 1_930_618
    assert [tuple(p.shape) for p in supernet.architecture_parameters()] == [(14, 8), (14, 8)]
    assert count_parameters(supernet) == 1_930_618 + 2 * 14 * 8


def test_checkpoints_hold_the_architecture():
    source, target = small(0), small(1)
    set_alphas(source, torch.randn(2, EDGES, 8, generator=seeded(3)))
    state = source.state_dict()
    assert {"alphas_normal", "alphas_reduce"} <= set(state)
    assert source.genotype() != target.genotype()
    target.load_state_dict(state)
    assert source.genotype() == target.genotype()


@pytest.mark.slow
def test_initial_architecture_is_small_seeded_noise():
    first, again, other = small(0, alpha_std=1e-3), small(0), small(1)
    assert torch.equal(first.alphas(), again.alphas()) and not torch.equal(first.alphas(), other.alphas())
    values = torch.cat([Supernet(1, 1, 2, generator=seeded(s)).alphas().detach().flatten() for s in range(20)])
    assert values.std() == pytest.approx(1e-3, rel=0.05) and values.mean().abs() < 1e-4


def test_pooling_is_normalised_in_the_supernet_alone():
    supernet = small()
    for cell in supernet.cells:
        for edge in cell.edges:
            for name in ("max_pool_3x3", "avg_pool_3x3"):
                pooling = edge[PRIMITIVES.index(name)]
                output = pooling(torch.rand(16, pooling[1].num_features, 8, 8))
                torch.testing.assert_close(output.mean((0, 2, 3)), torch.zeros(output.shape[1]), atol=1e-4, rtol=0)
                assert not list(pooling.parameters())


# ---- genotype ------------------------------------------------------------------------------------------------


def brute_force(alphas: list[list[float]]) -> tuple[tuple[str, int], ...]:
    """Of all ways to give a node two inputs with an operation each, the strongest; ties go to the lower indices."""
    cell = []
    for node, first in enumerate(FIRST):
        choices = [(alphas[first + i][k], -i, -k) for i in range(node + 2) for k in range(1, 8)]
        best = max(pair for pair in itertools.permutations(choices, 2) if pair[0][1] != pair[1][1])
        cell += [(PRIMITIVES[-k], -i) for _, i, k in best]
    return tuple(cell)


def expected_genotype(supernet: Supernet) -> Genotype:
    normal, reduce = (brute_force(a.tolist()) for a in supernet.architecture_parameters())
    return Genotype(normal, (2, 3, 4, 5), reduce, (2, 3, 4, 5))


def test_genotype_agrees_with_brute_force():
    supernet, draw = small(), seeded(0)
    for _ in range(60):
        set_alphas(supernet, torch.randn(2, EDGES, 8, generator=draw))
        assert supernet.genotype() == expected_genotype(supernet)


def test_by_their_softmax_weights_edges_with_mass_on_none_are_weak():
    values = torch.zeros(2, EDGES, 8)
    values[:, 2, 3], values[:, 2, 0] = 2.0, 6.0  # the first edge of node 3: a large logit, and a larger one on none
    values[:, 3, 4], values[:, 4, 5] = 1.0, 1.0
    assert DARTS.discretize(values).nodes("normal")[1] == (("skip_connect", 0), ("sep_conv_3x3", 1))
    assert DARTS.discretize(values.softmax(-1)).nodes("normal")[1] == (("sep_conv_3x3", 1), ("sep_conv_5x5", 2))


def test_ties_go_to_the_lower_input_and_operation():
    supernet, draw = small(), seeded(1)
    for levels in (1, 2, 3):
        for _ in range(20):
            set_alphas(supernet, torch.randint(levels, (2, EDGES, 8), generator=draw).float())
            assert supernet.genotype() == expected_genotype(supernet)
    set_alphas(supernet, torch.zeros(2, EDGES, 8))
    first = (("max_pool_3x3", 0), ("max_pool_3x3", 1))
    assert supernet.genotype().nodes("normal") == supernet.genotype().nodes("reduce") == (first,) * 4


def test_none_never_enters_the_genotype():
    supernet = small()
    values = torch.randn(2, EDGES, 8, generator=seeded(2))
    set_alphas(supernet, values)
    before = supernet.genotype()
    values[..., 0] = 50.0
    set_alphas(supernet, values)
    assert supernet.genotype() == before == expected_genotype(supernet)


def test_entropy_is_that_of_the_mixture_of_each_cell():
    uniform = small(alpha_std=0.0)
    assert uniform.entropy() == pytest.approx((math.log(8), math.log(8)))
    values = torch.zeros(2, EDGES, 8)
    values[0, :, 3] = 100.0  # the normal cell is decided
    values[1, :, :4] = 100.0  # the reduction cell hesitates between four
    set_alphas(uniform, values)
    assert uniform.entropy() == pytest.approx((0.0, math.log(4)), abs=1e-6)


# ---- sampling ------------------------------------------------------------------------------------------------


def test_gumbel_noise_has_its_distribution():
    noise = gumbel_noise((200_000,), seeded())
    assert noise.mean() == pytest.approx(0.5772157, abs=5 * 1.2825 / 200_000**0.5)
    assert noise.var() == pytest.approx(math.pi**2 / 6, rel=0.03)
    for point in (-1.0, 0.0, 1.0, 3.0):  # the distribution function exp(-exp(-x))
        assert (noise < point).float().mean() == pytest.approx(math.exp(-math.exp(-point)), abs=0.006)


@pytest.mark.parametrize("tau", slow_after(1, [0.1, 5.0]))
def test_sampling_frequencies_are_the_softmax_of_the_alphas(tau):
    """The Gumbel-max law, through ``sample``; the temperature does not matter to it."""
    supernet, samples = small(tau=tau), 1500
    row = torch.tensor([0.5, -1.0, 0.0, 1.5, 0.2, -0.3, 0.8, -2.0])
    set_alphas(supernet, row.expand(2, EDGES, 8))
    draw, counts = seeded(), torch.zeros(2, 8)
    for _ in range(samples):
        for kind, operations in enumerate(supernet.sample(draw).operations):
            counts[kind] += torch.bincount(torch.tensor(operations).flatten(), minlength=8)
    probability = row.softmax(0)
    total = samples * EDGES
    deviation = 5 * (probability * (1 - probability) / total).sqrt()
    assert ((counts / total - probability).abs() < deviation).all()


@pytest.mark.parametrize("tau", [0.1, 1.0, 30.0])
def test_gates_are_the_softmax_of_alphas_plus_noise_over_tau(tau):
    supernet = small(tau=tau)
    alphas = torch.randn(2, EDGES, 8, generator=seeded(4))
    set_alphas(supernet, alphas)
    path = supernet.sample(seeded(9))
    logits = (alphas.double() - torch.empty(2, EDGES, 8).exponential_(generator=seeded(9)).double().log()) / tau
    expected = logits.exp() / logits.exp().sum(-1, keepdim=True) if tau > 0.5 else logits.softmax(-1)
    torch.testing.assert_close(path.gates.double(), expected, rtol=1e-4, atol=1e-6)
    assert path.operations == tuple(tuple((row.argmax().item(),) for row in cell) for cell in expected)
    factors = torch.tensor([[[1.0 if scale is None else scale for scale in edge] for edge in kind]
                            for kind in path.scales])
    assert torch.equal(factors, path.gates.amax(-1, keepdim=True))
    assert torch.equal(path.encoding, torch.cat([path.gates[0], path.gates[1]])) and path.encoding.shape == (28, 8)
    assert not path.gates.requires_grad


def test_only_a_gate_other_than_one_multiplies():
    supernet = Supernet(2, 1, 3)
    gates = DARTS.gates(DARTS.sample(1, torch.Generator().manual_seed(0))[0]).float().view(DARTS.shape)
    assert {scale for kind in supernet.use(gates).scales for edge in kind for scale in edge} == {None}
    halves = supernet.use(gates / 2).scales
    assert all(scale == 0.5 for kind in halves for edge in kind for scale in edge)
    learnt = supernet.use(gates.clone().requires_grad_()).scales  # its gradient has to flow, although it is 1
    assert all(scale is not None and scale.requires_grad for kind in learnt for edge in kind for scale in edge)


def test_limits_of_the_temperature():
    alphas, noise = torch.zeros(EDGES, 8), gumbel_noise((EDGES, 8), seeded())
    cold, hot = gumbel_softmax(alphas, noise, 1e-5), gumbel_softmax(alphas, noise, 1e5)
    torch.testing.assert_close(cold, F.one_hot(noise.argmax(-1), 8).float())
    torch.testing.assert_close(hot, torch.full((EDGES, 8), 1 / 8), atol=1e-4, rtol=0)


def test_same_seed_same_path():
    supernet = small()
    first, again, other = (supernet.sample(seeded(s)) for s in (5, 5, 6))
    assert torch.equal(first.gates, again.gates) and first.operations == again.operations
    assert first.operations != other.operations


def test_a_path_is_kept_until_the_next_sample():
    supernet = small().eval()
    images = torch.rand(2, 3, 8, 8)
    path = supernet.sample(seeded())
    first = supernet(images)
    set_alphas(supernet, torch.randn(2, EDGES, 8))  # the architecture moves, the path does not
    assert supernet.path is path and torch.equal(supernet(images), first)
    supernet.sample(seeded(1))
    assert not torch.equal(supernet(images), first)


def test_forward_without_a_path_is_refused():
    with pytest.raises(InputError, match="sample"):
        small()(torch.rand(1, 3, 8, 8))


# ---- a path --------------------------------------------------------------------------------------------------


def by_hand(supernet: Supernet, images: Tensor, gates: Tensor) -> Tensor:
    """Every edge of every cell: the gate of the strongest operation times its output, ``none`` included."""
    s0 = s1 = supernet.stem.norm(supernet.stem.conv(images))
    for number, cell in enumerate(supernet.cells):
        cell_gates = gates[1 if number in (1, 2) else 0]  # three cells: the second and third are reductions
        states = [cell.preprocess[0](s0), cell.preprocess[1](s1)]
        for node, first in enumerate(FIRST):
            total = 0
            for source in range(node + 2):
                gate, operation = cell_gates[first + source].max(0)
                total = total + gate * cell.edges[first + source][operation](states[source])
            states.append(total)
        s0, s1 = s1, torch.cat(states[2:], 1)
    return s1.mean((2, 3)) @ supernet.classifier.weight.T + supernet.classifier.bias


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("seed", slow_after(1, range(3)))
def test_a_path_equals_its_evaluation_by_hand(seed, training):
    supernet = small(seed, tau=1.0).double()
    images = torch.rand(3, 3, 8, 8).double()
    path = supernet.sample(seeded(seed))
    assert any((0,) in operations for operations in path.operations), "`none` should be among the samples"
    with torch.no_grad():
        for _ in range(2):
            supernet(images)
        supernet.train(training)
        torch.testing.assert_close(supernet(images), by_hand(supernet, images, path.gates.double()))


def test_a_path_of_full_gates_is_the_network_of_its_genotype():
    names = [["sep_conv_3x3", "dil_conv_3x3"], ["skip_connect", "sep_conv_5x5"], ["dil_conv_5x5", "skip_connect"],
             ["sep_conv_3x3", "dil_conv_5x5"]]  # pooling is followed by BatchNorm in a supernet alone
    cells = [[[(0, "n0"), (1, "n1")], [(0, "n0"), (2, "n1")], [(1, "n0"), (3, "n1")], [(2, "n0"), (4, "n1")]],
             [[(0, "n1"), (1, "n0")], [(1, "n0"), (2, "n1")], [(0, "n1"), (2, "n0")], [(3, "n0"), (4, "n1")]]]
    chosen = [[[(source, names[n][which == "n1"]) for source, which in node] for n, node in enumerate(cell)]
              for cell in cells]
    operations = [[0] * EDGES, [0] * EDGES]
    for kind, cell in enumerate(chosen):
        for node, edges in enumerate(cell):
            for source, name in edges:
                operations[kind][FIRST[node] + source] = PRIMITIVES.index(name)
    normal, reduce = ([(name, source) for node in cell for source, name in node] for cell in chosen)
    genotype = Genotype(normal, (2, 3, 4, 5), reduce, (2, 3, 4, 5))

    supernet = small().double()
    set_alphas(supernet, one_hot(operations))
    assert supernet.genotype() == genotype
    supernet.use(one_hot(operations))
    network = NetworkCIFAR(genotype, 4, 3, 5).double()
    parts = [(network.stem, supernet.stem), (network.classifier, supernet.classifier)]
    for cell, search_cell in zip(network.cells, supernet.cells, strict=True):
        parts += zip(cell.preprocess, search_cell.preprocess, strict=True)
        for node, edges in enumerate(chosen[search_cell.kind]):
            parts += [(cell.nodes[node][slot], search_cell.edges[FIRST[node] + source][PRIMITIVES.index(name)])
                      for slot, (source, name) in enumerate(edges)]
    for target, source in parts:
        missing, unexpected = target.load_state_dict(source.state_dict(), strict=False)
        assert not unexpected and all(network_key.endswith(("weight", "bias")) for network_key in missing)
    images = torch.rand(2, 3, 8, 8).double()
    with torch.no_grad():
        torch.testing.assert_close(supernet(images), network(images))


@pytest.mark.parametrize("batch_statistics", [False, True])
def test_a_path_of_nothing_survives_the_attack(batch_statistics):
    supernet = small()
    supernet.use(one_hot([[0] * EDGES] * 2))
    images, labels = torch.rand(3, 3, 9, 9), torch.tensor([0, 1, 2])
    logits = supernet(images)
    torch.testing.assert_close(logits, supernet.classifier.bias.expand(3, 5))
    assert torch.equal(pgd(supernet, images, labels, 0.1, batch_statistics=batch_statistics), images)
    assert torch.equal(fgsm(supernet, images, labels, 0.1, batch_statistics=batch_statistics), images)
    F.cross_entropy(logits, labels).backward()
    assert supernet.stem.conv.weight.grad is None and supernet.classifier.bias.grad.abs().sum() > 0


@pytest.mark.parametrize("height, width", slow_after(1, [(7, 9), (8, 5), (33, 33)]))
def test_odd_images_with_every_operation_and_empty_nodes(height, width):
    supernet = small()
    for operation in range(8):
        operations = torch.full((2, EDGES), operation)
        operations[:, FIRST[2]:FIRST[3]] = 0  # node 4 has no input
        supernet.use(one_hot(operations))
        logits = supernet(torch.rand(2, 3, height, width))
        assert logits.shape == (2, 5) and logits.isfinite().all(), PRIMITIVES[operation]


def test_the_losses_gradient_reaches_the_sampled_operations_alone():
    supernet = small()
    path = supernet.use(one_hot(torch.randint(1, 8, (2, EDGES), generator=seeded())))
    F.cross_entropy(supernet(torch.rand(4, 3, 8, 8)), torch.arange(4)).backward()
    assert supernet.alphas_normal.grad is None and supernet.alphas_reduce.grad is None
    for cell in supernet.cells:
        for edge, candidates in enumerate(cell.edges):
            for number, candidate in enumerate(candidates):
                gradients = [p.grad for p in candidate.parameters()]
                if number in path.operations[cell.kind][edge]:
                    assert all(g is not None for g in gradients)
                else:
                    assert all(g is None for g in gradients)


# ---- a mixture -----------------------------------------------------------------------------------------------


def mixed_by_hand(supernet: Supernet, images: Tensor, weights: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits, and the output of every cell: on every edge the weighted sum of all operations, ``none`` included."""
    s0 = s1 = supernet.stem.norm(supernet.stem.conv(images))
    outputs = []
    for number, cell in enumerate(supernet.cells):
        states = [cell.preprocess[0](s0), cell.preprocess[1](s1)]
        for node, first in enumerate(FIRST):
            total = 0
            for source in range(node + 2):
                edge = first + source
                for operation, weight in zip(cell.edges[edge], weights[int(number > 0), edge], strict=True):
                    total = total + weight * operation(states[source])
            states.append(total)
        s0, s1 = s1, torch.cat(states[2:], 1)
        outputs.append(s1)
    return s1.mean((2, 3)) @ supernet.classifier.weight.T + supernet.classifier.bias, outputs


@pytest.mark.parametrize("training", slow_after(1, [True, False]))
def test_a_mixture_is_the_weighted_sum_of_all_operations(training):
    supernet, draw = small().double(), seeded(5)
    images = torch.rand(2, 3, 8, 8, generator=draw, dtype=torch.float64)
    supernet.mix(torch.rand(2, EDGES, 8, generator=draw, dtype=torch.float64))
    with torch.no_grad():
        supernet(images)  # the running statistics are somebody's
    supernet.train(training)
    values = torch.randn(2, EDGES, 8, generator=draw, dtype=torch.float64)  # negative ones, too: they are but weights
    weights, same = (values.clone().requires_grad_(True) for _ in range(2))
    path, outputs = supernet.mix(weights), []
    logits = supernet(images, outputs)
    expected, by_cell = mixed_by_hand(supernet, images, same)
    torch.testing.assert_close(logits, expected)
    assert supernet.path is path and len(outputs) == 3
    for output, hand in zip(outputs, by_cell, strict=True):
        torch.testing.assert_close(output, hand)
    torch.testing.assert_close(supernet.classifier(outputs[-1].mean((2, 3))), logits)
    assert torch.equal(supernet(images), logits)  # asked for nothing, it is the same function
    labels = torch.tensor([1, 4])
    gradients = [torch.autograd.grad(F.cross_entropy(values, labels), leaf)[0]
                 for values, leaf in ((logits, weights), (expected, same))]
    torch.testing.assert_close(*gradients)
    assert (gradients[0][..., 1:] != 0).all() and (gradients[0][..., 0] == 0).all()  # none gives nothing


def test_a_mixture_of_one_operation_an_edge_is_that_path():
    supernet, draw = small().double().eval(), seeded(6)
    gates = one_hot(torch.randint(8, (2, EDGES), generator=draw)).double()
    images = torch.rand(2, 3, 8, 8, generator=draw, dtype=torch.float64)
    with torch.no_grad():
        results = []
        for choose in (supernet.mix, supernet.use):
            choose(gates)
            outputs = []
            results.append([supernet(images, outputs), *outputs])
    torch.testing.assert_close(*results)
    assert [tuple(output.shape) for output in results[1][1:]] == [(2, 16, 8, 8), (2, 32, 4, 4), (2, 64, 2, 2)]


# ---- a genotype's gates --------------------------------------------------------------------------------------


def test_the_gates_of_a_genotype_and_back():
    supernet, draw = small(), seeded(7)
    for _ in range(20):
        set_alphas(supernet, torch.randn(2, EDGES, 8, generator=draw))
        genotype = supernet.genotype()
        gates = DARTS.path_gates(genotype)
        assert gates.shape == (2, EDGES, 8) and torch.equal(gates.sum(-1), torch.ones(2, EDGES))
        for kind, name in enumerate(("normal", "reduce")):
            for node, edges in enumerate(genotype.nodes(name)):
                rows = gates[kind, FIRST[node]:FIRST[node] + node + 2].argmax(-1).tolist()
                kept = {source: operation for operation, source in edges}
                assert [PRIMITIVES[row] for row in rows] == [kept.get(i, "none") for i in range(node + 2)]
        set_alphas(supernet, 50 * gates)
        again = supernet.genotype()
        for name in ("normal", "reduce"):  # the two edges of a node are equally strong now
            assert list(map(set, again.nodes(name))) == list(map(set, genotype.nodes(name)))


def test_a_genotypes_gates_run_its_eight_operations_a_cell():
    supernet = small().double().eval()
    set_alphas(supernet, torch.randn(2, EDGES, 8, generator=seeded(8)))
    genotype = supernet.genotype()
    images = torch.rand(2, 3, 8, 8, generator=seeded(9), dtype=torch.float64)
    with torch.no_grad():
        s0 = s1 = supernet.stem.norm(supernet.stem.conv(images))
        for number, cell in enumerate(supernet.cells):
            states = [cell.preprocess[0](s0), cell.preprocess[1](s1)]
            for node, edges in enumerate(genotype.nodes("reduce" if number else "normal")):
                states.append(sum(cell.edges[FIRST[node] + source][PRIMITIVES.index(name)](states[source])
                                  for name, source in edges))
            s0, s1 = s1, torch.cat(states[2:], 1)
        path = supernet.use(DARTS.path_gates(genotype).double())
        torch.testing.assert_close(supernet(images), supernet.classifier(s1.mean((2, 3))))
    assert [sum(operation != (0,) for operation in kind) for kind in path.operations] == [8, 8]


# ---- the modules of a path -----------------------------------------------------------------------------------


def modules_that_run(supernet: torch.nn.Module) -> set[torch.nn.Module]:
    """The modules that a forward calls, without containers."""
    ran: list[torch.nn.Module] = []
    handle = torch.nn.modules.module.register_module_forward_hook(lambda module, *_: ran.append(module))
    try:
        with attack_mode(supernet), torch.no_grad():
            supernet(torch.rand(2, 3, 8, 8))
    finally:
        handle.remove()
    return set(ran)


@pytest.mark.parametrize("space", SPACES)
def test_the_modules_in_use_are_those_of_the_path(space):
    torch.manual_seed(0)
    supernet = SPACES[space].supernet(2, 3, 5, 0.1, 1e-3, None)
    everything = set(supernet.modules())
    assert set(modules_in_use(supernet)) == everything
    for seed in range(3):
        supernet.sample(seeded(seed))
        used, ran = set(modules_in_use(supernet)), modules_that_run(supernet)
        assert ran <= used < everything
        operations = {module for cell in supernet.cells for edge in cell.edges for module in edge}
        none = {module for cell in supernet.cells for edge in cell.edges
                for module, name in zip(edge, supernet.space.operations, strict=True) if name == "none"}
        assert operations & used - none == operations & ran - none
    supernet.mix(supernet.alphas().detach().softmax(-1))
    assert set(modules_in_use(supernet)) == everything


def test_an_attack_sets_up_the_path_alone_and_restores_it():
    supernet = small().train()
    supernet.sample(seeded(1))
    used = set(modules_in_use(supernet))
    next(iter(supernet.cells[0].preprocess)).eval()
    modes = {module: module.training for module in supernet.modules()}
    with attack_mode(supernet, path_alone=True):
        assert all(module.training is (module not in used) for module in modes if modes[module])
        assert all(parameter.requires_grad is (module not in used) for module in modes
                   for parameter in module.parameters(recurse=False))
    assert modes == {module: module.training for module in supernet.modules()}
    assert all(parameter.requires_grad for parameter in supernet.parameters())


@pytest.mark.parametrize("batch_statistics", [False, True])
def test_an_attack_on_the_path_alone_is_one_on_the_whole_supernet(batch_statistics, monkeypatch):
    supernet, images = small().train().double(), torch.rand(3, 3, 8, 8, generator=seeded(2), dtype=torch.float64)
    labels = torch.arange(3)
    for seed in range(2):
        supernet.sample(seeded(seed))
        attacked = pgd(supernet, images, labels, 0.1, 2, batch_statistics=batch_statistics)
        with monkeypatch.context() as patch:
            patch.setattr(type(supernet), "idle_modules", lambda self: set())
            assert torch.equal(pgd(supernet, images, labels, 0.1, 2, batch_statistics=batch_statistics), attacked)


def test_a_training_step_trains_the_path_in_training_mode():
    supernet = small().eval()
    supernet.sample(seeded(1))
    supernet.cells[0].preprocess[0].train()
    trainer = Trainer(supernet, LOSSES["standard"], LossSettings(0.1, 1),
                      torch.optim.SGD(supernet.weight_parameters(), 0.1),
                      World(), single_path=True)
    trainer.step(torch.rand(4, 3, 8, 8), torch.arange(4))
    used = modules_in_use(supernet)
    assert all(module.training for module in used)
    assert all(not module.training for module in supernet.modules() if module not in used)
    assert supernet.stem.norm.num_batches_tracked == 1
