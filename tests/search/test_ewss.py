"""The efficient wide spectrum searcher: strengths, objective, memories, the loss estimator, the architecture's step."""

import copy
import itertools
from types import SimpleNamespace

import pytest
import torch
from scipy.stats import kendalltau
from torch import Tensor, nn

from search.loss_estimator import ValidationLossEstimator, train_loss_estimator
from search.strategy.memory import Memory
from search.strategy.objective import RobustObjective, update_architecture
from search.strategy.strengths import attacked_indices, check_attacked, check_strengths, split_strengths
from search.supernet import Supernet, gumbel_noise, gumbel_softmax
from search.vulnerability.predicted import project_architecture
from search.wsr_nas_settings import PRESETS, SearchConfig, schedule
from wsrnas.operations import PRIMITIVES
from wsrnas.runtime.errors import InputError


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- strengths and objective ---------------------------------------------------------------------------------


@pytest.mark.parametrize("count, attacked, expected", [
    (6, 3, (0, 2, 4)), (11, 3, (0, 4, 8)), (5, 5, (0, 1, 2, 3, 4)), (5, 1, (0,)), (7, 3, (0, 3, 5)), (1, 1, (0,)),
])
def test_the_first_strength_of_each_interval_is_attacked(count, attacked, expected):
    assert split_strengths(count, attacked)[0] == expected


def test_intervals_partition_the_strengths_into_nearly_equal_lengths():
    for count in range(1, 31):
        for attacked in range(1, count + 1):
            first, rest = split_strengths(count, attacked)
            assert sorted(first + rest) == list(range(count)) and len(first) == attacked and first[0] == 0
            assert list(first) == sorted(first) and list(rest) == sorted(rest)
            lengths = [b - a for a, b in itertools.pairwise((*first, count))]
            assert max(lengths) - min(lengths) <= 1 and lengths == sorted(lengths, reverse=True)


def test_objective_and_its_gradient():
    losses = torch.tensor([[1.0, 2.0, 4.0, 8.0], [0.5, 1.0, 1.0, 1.0]], requires_grad=True)
    value = RobustObjective(0.8, 0.2, (0.5, 0.25, 0.25))(losses)
    # 0.8 * 1 + 0.2 * (0.5 * 2 + 0.25 * 4 + 0.25 * 8) and 0.8 * 0.5 + 0.2 * 1
    torch.testing.assert_close(value.detach(), torch.tensor([1.6, 0.6]))
    value.sum().backward()
    torch.testing.assert_close(losses.grad, torch.tensor([0.8, 0.1, 0.05, 0.05]).expand(2, 4))


def objective_of(alpha, beta, weights, count):
    return RobustObjective.from_settings(SimpleNamespace(alpha=alpha, beta=beta, strength_weights=weights,
                                                         strengths=(0.1,) * count))


@pytest.mark.parametrize("alpha, beta, weights, count, named", [
    (1.2, -0.2, (1.0,), 1, "alpha is 1.2 and beta is -0.2; expected both at least 0"),
    (-0.2, 1.2, (1.0,), 1, "alpha is -0.2"),
    (0.5, 0.6, (1.0,), 1, r"alpha \+ beta is 1.1; expected 1"),
    (0.8, 0.2, (0.5, 0.5), 3, "strength_weights has 2 entries; expected one for each strength, 3"),
    (0.8, 0.2, (1.5, -0.5), 2, "strength_weights contains -0.5"),
    (0.8, 0.2, (1.0, 0.0), 2, "strength_weights contains 0"),
    (0.8, 0.2, (0.5, 0.6), 2, "strength_weights sum to 1.1; expected 1"),
    (float("nan"), 0.2, (1.0,), 1, "alpha is nan"),
    (0.8, 0.2, (float("nan"),), 1, "strength_weights contains nan"),
])
def test_weights_that_break_the_constraints_are_refused(alpha, beta, weights, count, named):
    with pytest.raises(InputError, match=named):
        objective_of(alpha, beta, weights, count)


def test_weights_that_sum_to_one_are_accepted():
    objective_of(0.8, 0.2, (1 / 3, 1 / 3, 1 / 3), 3)


@pytest.mark.parametrize("strengths, attacked, estimated, named", [
    ((0.1,), 0, 1, r"num_pgd_strengths \(N1\) is 0"),
    ((0.1,), 1, -1, r"num_estimated_strengths \(N2\) is -1"),
    ((0.1, 0.2), 1, 2, r"strengths has 2 entries; expected N1 \+ N2 = 1 \+ 2 = 3"),
    ((0.0, 0.2), 1, 1, "strengths contains 0; .*inside"),
    ((0.1, 1.0), 1, 1, "strengths contains 1; "),
    ((0.1, 8.0), 1, 1, "strengths contains 8; "),
    ((0.1, float("nan")), 1, 1, "strengths contains nan"),
    ((0.2, 0.1), 1, 1, "strengths must increase, but 0.2 comes before 0.1"),
    ((0.1, 0.1), 1, 1, "strengths contains 0.1 twice"),
])
def test_strengths_that_do_not_fit_are_refused(strengths, attacked, estimated, named):
    with pytest.raises(InputError, match=named):
        check_strengths(strengths, attacked, estimated)


@pytest.mark.parametrize("attacked, count, named", [
    ((0.15,), 1, "attacked_strengths contains 0.15, which is not among strengths; expected some of 0.1, 0.2, 0.3"),
    ((0.2, 0.2), 2, "attacked_strengths contains 0.2 twice; expected each once"),
    ((0.1, 0.2), 1, "attacked_strengths has 2 entries; expected N1 = 1, or none"),
    ((0.1,), 2, "attacked_strengths has 1 entries; expected N1 = 2, or none"),
    ((float("nan"),), 1, "attacked_strengths contains nan"),
])
def test_attacked_strengths_that_do_not_fit_are_refused(attacked, count, named):
    with pytest.raises(InputError, match=named):
        check_attacked(attacked, (0.1, 0.2, 0.3), count)


def test_the_attacked_strengths_are_a_choice():
    strengths = (0.1, 0.2, 0.3, 0.4)
    check_attacked((), strengths, 2)
    check_attacked((0.4, 0.2), strengths, 2)
    assert attacked_indices(strengths, (), 2) == [0, 2]
    assert attacked_indices(strengths, (0.4, 0.2), 2) == [1, 3]
    assert attacked_indices(strengths, (0.3,), 1) == [2]
    SearchConfig(num_pgd_strengths=2, num_estimated_strengths=4, attacked_strengths=(0.105, 0.045))
    with pytest.raises(InputError, match="attacked_strengths has 1 entries; expected N1 = 3"):
        SearchConfig(attacked_strengths=(0.03,))


@pytest.mark.parametrize("fields, named", [
    ({"check_images": -1}, "check_images is -1; expected at least 0"),
    ({"max_estimator_gap": -0.1}, "max_estimator_gap is -0.1; expected at least 0"),
    ({"max_estimator_gap": 2.0}, "max_estimator_gap is 2; expected a share of accuracy below 1"),
    ({"max_estimator_gap": float("nan")}, "max_estimator_gap is nan"),
    ({"max_estimator_gap": 0.02, "check_images": 0}, "max_estimator_gap is 0.02 but check_images is 0; expected"),
])
def test_checks_that_cannot_be_made_are_refused(fields, named):
    with pytest.raises(InputError, match=named):
        SearchConfig(**fields)
    SearchConfig(check_images=0)


# ---- presets and schedule ------------------------------------------------------------------------------------


def attacked_strengths(config: SearchConfig) -> list[float]:
    indices = attacked_indices(config.strengths, config.attacked_strengths, config.num_pgd_strengths)
    return [config.strengths[i] for i in indices]


@pytest.mark.parametrize("name, attacked, estimated", [
    ("paper", 3, 3), ("plus", 3, 8), ("naive-1", 1, 0), ("naive-3", 3, 0), ("naive-6", 6, 0), ("naive-11", 11, 0),
    ("tiny", 2, 2), ("wide", 1, 15),
])
def test_the_strengths_and_weights_of_every_preset_fit_together(name, attacked, estimated):
    config = PRESETS[name]
    assert (config.preset, config.num_pgd_strengths, config.num_estimated_strengths) == (name, attacked, estimated)
    check_strengths(config.strengths, attacked, estimated)
    RobustObjective.from_settings(config)
    assert set(config.strength_weights) and list(config.strength_weights) == sorted(config.strength_weights)
    assert config.strengths[0] <= config.estimator_max_epsilon
    assert config.strengths[-1] <= config.estimator_max_epsilon, "the estimator never sees the strongest noise"


def test_basic_and_plus_attack_at_the_same_strengths():
    assert attacked_strengths(PRESETS["paper"]) == attacked_strengths(PRESETS["plus"]) == [0.03, 0.06, 0.09]
    assert set(PRESETS) == {"paper", "plus", "wide", "naive-1", "naive-3", "naive-6", "naive-11", "tiny"}


def test_wide_attacks_one_strength_in_the_middle_and_checks_the_rest():
    config = PRESETS["wide"]
    assert attacked_strengths(config) == [0.06] and config.estimator == "C-ANE"
    assert (config.strengths[0], config.strengths[-1]) == (0.01, 0.25) and set(config.strength_weights) == {1 / 16}
    assert [name for name, preset in PRESETS.items() if preset.max_estimator_gap] == ["wide"]
    assert config.max_estimator_gap == 0.05 and config.check_images == 100


def test_equal_weights_are_nearly_those_of_the_area():
    """Of the trapezoidal area over (0, 0.25], the evaluation's."""
    ends = (0.0, *PRESETS["wide"].strengths, 0.25)
    shares = [b - a for a, b in zip(ends, ends[2:], strict=False)]
    shares = [share / sum(shares) for share in shares]
    for weight, share in zip(PRESETS["wide"].strength_weights, shares, strict=True):
        assert 0.65 < share / weight < 1.35

def test_the_schedule_is_algorithm_1():
    config = SearchConfig(warmup_architectures=3, iterations=2)
    steps = schedule(config)
    assert [(s.phase, s.number) for s in steps] == [
        ("warm-up", 0), ("warm-up", 1), ("warm-up", 2), ("population", 0), ("population", 1), ("population", 2),
        ("search", 0), ("search", 1)]
    assert [s.index for s in steps] == list(range(8))
    # Line 18: once, after the population; line 23: in every search iteration.
    assert [s.trains_losses for s in steps] == [False] * 5 + [True] * 3
    assert len(schedule(PRESETS["paper"])) == 300


# ---- memories ------------------------------------------------------------------------------------------------


def test_the_oldest_rows_leave_first():
    memory = Memory(5)
    assert len(memory) == 0 and memory.iterations() == 0
    for iteration in range(4):
        values = torch.tensor([10.0 * iteration, 10.0 * iteration + 1], requires_grad=True)
        memory.append(iteration, value=values, square=(values**2).unsqueeze(1))
        assert len(memory) == min(5, 2 * (iteration + 1))
    assert memory["value"].tolist() == [11.0, 20.0, 21.0, 30.0, 31.0]
    assert memory["square"].flatten().tolist() == [121.0, 400.0, 441.0, 900.0, 961.0]
    assert memory["iteration"].tolist() == [1, 2, 2, 3, 3] and memory.iterations() == 3
    assert not memory["value"].requires_grad


def test_more_rows_than_the_capacity_keep_the_newest():
    memory = Memory(2)
    memory.append(0, value=torch.arange(5))
    assert memory["value"].tolist() == [3, 4]
    assert memory["value"].untyped_storage().nbytes() == 2 * 8, "rows that left would be kept, and saved"


def test_the_memory_owns_its_rows():
    memory, values = Memory(4), torch.zeros(2)
    memory.append(0, value=values)
    values += 1
    assert memory["value"].tolist() == [0, 0]


def test_the_state_makes_the_same_memory(tmp_path):
    memory, other = Memory(4), Memory(4)
    for iteration in range(3):
        memory.append(iteration, value=torch.full((2, 3), float(iteration)))
    torch.save(memory.state_dict(), tmp_path / "memory.pt")
    other.load_state_dict(torch.load(tmp_path / "memory.pt", weights_only=True), torch.device("cpu"))
    for both in (memory, other):
        both.append(9, value=torch.zeros(1, 3))
    assert memory.rows.keys() == other.rows.keys()
    assert all(torch.equal(memory[name], other[name]) for name in memory.rows)


def test_rows_that_do_not_fit_are_refused_and_nothing_is_lost():
    memory = Memory(4)
    with pytest.raises(InputError, match="different numbers"):
        memory.append(0, first=torch.zeros(2), second=torch.zeros(3))
    memory.append(0, first=torch.zeros(2))
    with pytest.raises(InputError, match=r"first.*second"):
        memory.append(1, second=torch.zeros(2))
    assert len(memory) == 2 and memory.iterations() == 1


def test_the_papers_estimator_memory_holds_fifteen_networks():
    config = PRESETS["paper"]
    tasks = config.estimator_images * (config.num_pgd_strengths + 1)
    memory = Memory(config.estimator_memory)
    for iteration in range(40):
        memory.append(iteration, images=torch.full((tasks, 1), float(iteration)))
    assert (tasks, len(memory), memory.iterations()) == (40, 600, 15)
    assert memory["iteration"].unique().tolist() == list(range(25, 40))


# ---- the validation loss estimator ---------------------------------------------------------------------------

# A law of the architecture: each operation adds its gain, alike on all 28 edges, to a base. Natural, weak, strong.
BASE = torch.tensor([0.3, 1.0, 3.0])
GAIN = torch.tensor([[0.050, 0.090, 0.30], [0.010, 0.050, 0.20], [-0.004, 0.020, 0.10], [0.008, -0.03, -0.1],
                     [-0.014, -0.06, -0.3], [0.002, 0.040, 0.02], [-0.008, 0.010, 0.15], [0.016, 0.000, -0.2]])
OBJECTIVE = RobustObjective(0.8, 0.2, (0.4, 0.6))


def law(gates: Tensor) -> Tensor:
    """(M, 28, 8) -> losses (M, 3)."""
    return BASE + gates.sum(1) @ GAIN


def architectures(count: int, seed: int) -> Tensor:
    return gumbel_softmax(torch.zeros(count, 28, 8), gumbel_noise((count, 28, 8), seeded(seed)), 0.1)


@pytest.fixture(scope="module")
def learned() -> tuple[ValidationLossEstimator, float]:
    torch.manual_seed(0)
    estimator = ValidationLossEstimator(8, 3)
    optimizer = torch.optim.Adam(estimator.parameters(), 3e-3, betas=(0.5, 0.999))
    gates = architectures(400, 1)
    return estimator, train_loss_estimator(estimator, optimizer, gates, law(gates), 150, seeded())


def test_shapes_of_the_estimator():
    estimator = ValidationLossEstimator()
    assert estimator(torch.rand(5, 28, 8)).shape == (5, 7)
    assert ValidationLossEstimator(num_edges=40)(torch.rand(1, 40, 8)).shape == (1, 7)
    assert ValidationLossEstimator(3, 12)(torch.rand(2, 28, 3)).shape == (2, 12)


def test_predictions_are_standardised_ones_in_the_unit_of_the_losses():
    estimator, losses = ValidationLossEstimator(8, 3), torch.tensor([[1.0, 10.0, 5.0], [3.0, 50.0, 5.0]])
    estimator.standardize(losses)
    torch.testing.assert_close(estimator.mean, torch.tensor([2.0, 30.0, 5.0]))
    torch.testing.assert_close(estimator.std[:2], torch.tensor([1.0, 20.0]))
    gates = torch.rand(4, 28, 8)
    expected = estimator.standardized(gates) * estimator.std + torch.tensor([2.0, 30.0, 5.0])
    torch.testing.assert_close(estimator(gates), expected)
    assert torch.isfinite((losses - estimator.mean) / estimator.std).all(), "a constant column must not divide by zero"
    assert {"mean", "std"} <= set(estimator.state_dict())


def test_the_error_is_that_of_standardised_losses():
    """With a learning rate of zero the error is that of the fresh network, whatever the columns' units."""
    estimator = ValidationLossEstimator(8, 3)
    optimizer = torch.optim.SGD(estimator.parameters(), 0.0)
    gates = architectures(100, 3)
    losses = law(gates)
    error = train_loss_estimator(estimator, optimizer, gates, losses, 2, seeded(), batch_size=7, input_noise=0.0)
    standard = (losses - losses.mean(0)) / losses.std(0, correction=0)
    with torch.no_grad():
        assert error == pytest.approx((estimator.standardized(gates) - standard).square().mean().item(), rel=1e-4)
    scaled = train_loss_estimator(estimator, optimizer, gates, losses * 1000, 1, seeded(), input_noise=0.0)
    assert scaled == pytest.approx(error, rel=1e-3)


@pytest.mark.slow
def test_the_estimator_learns_a_law_of_the_architecture(learned):
    estimator, error = learned
    gates = architectures(200, 2)
    with torch.no_grad():
        predicted, true = estimator(gates), law(gates)
    for column in range(3):
        assert kendalltau(predicted[:, column], true[:, column]).statistic > 0.9
    explained = 1 - (predicted - true).var(0) / true.var(0)
    assert (explained > 0.95).all() and error < 0.05
    assert predicted[:, 2].max() > 4, "losses above 2 must be possible"


# ---- the step of the architecture ----------------------------------------------------------------------------


class Linear(nn.Module):
    """A loss estimator that is the law itself."""

    def forward(self, gates: Tensor) -> Tensor:
        return law(gates)


def test_one_step_is_against_the_gradient_of_the_mean_objective():
    torch.manual_seed(0)
    supernet = Supernet(2, 2, 4, tau=0.7, alpha_std=0.5, generator=seeded())
    before = supernet.alphas().detach().double().requires_grad_(True)
    optimizer = torch.optim.SGD(supernet.architecture_parameters(), 10.0)
    value = update_architecture(supernet, Linear(), optimizer, OBJECTIVE, 5, seeded(3))

    noise = gumbel_noise((5, 2, 14, 8), seeded(3)).double()
    total = 0.0
    for draw in noise:
        gates = torch.softmax((before + draw) / 0.7, -1)
        natural, weak, strong = BASE.double() + gates.sum((0, 1)) @ GAIN.double()
        total = total + (0.8 * natural + 0.2 * (0.4 * weak + 0.6 * strong)) / 5
    assert value == pytest.approx(total.item(), rel=1e-5)
    gradient, = torch.autograd.grad(total, before)
    expected = before.detach() - 10 * gradient
    torch.testing.assert_close(supernet.alphas().detach().double(), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_the_search_finds_the_optimum_of_the_law_and_moves_nothing_else(learned):
    estimator = copy.deepcopy(learned[0])
    torch.manual_seed(0)
    supernet = Supernet(2, 3, 4, generator=seeded())
    supernet.sample(seeded())
    supernet(torch.rand(4, 3, 8, 8)).sum().backward()  # gradients and statistics that must survive
    others = {**{f"supernet {n}": p for n, p in supernet.named_parameters() if not n.startswith("alphas")},
              **{f"supernet {n}": b for n, b in supernet.named_buffers()},
              **{f"estimator {n}": t for n, t in estimator.state_dict(keep_vars=True).items()}}
    kept = {name: (tensor.detach().clone(), None if tensor.grad is None else tensor.grad.clone())
            for name, tensor in others.items()}

    optimizer = torch.optim.Adam(supernet.architecture_parameters(), 0.03, betas=(0.5, 0.999))
    draw, before = seeded(1), supernet.genotype()
    values = [update_architecture(supernet, estimator, optimizer, OBJECTIVE, 32, draw) for _ in range(60)]

    gain = OBJECTIVE(GAIN)
    best = PRIMITIVES[1 + gain[1:].argmin()]
    genotype = supernet.genotype()
    chosen = [name for kind in ("normal", "reduce") for node in genotype.nodes(kind) for name, _ in node]
    initial = [name for kind in ("normal", "reduce") for node in before.nodes(kind) for name, _ in node]
    assert initial.count(best) < 8 and chosen.count(best) >= 14
    assert values[-1] < values[0]
    for name, tensor in others.items():
        value, gradient = kept[name]
        assert torch.equal(tensor, value), name
        assert (tensor.grad is None) if gradient is None else torch.equal(tensor.grad, gradient), name
    assert all(p.grad is None for p in supernet.architecture_parameters())


# ---- the projection of the architecture ----------------------------------------------------------------------------


class Columns(nn.Module):
    """Three losses that do not matter, then two vulnerabilities, linear in the gates."""

    SLOPES = torch.randn(28, 8, 2, generator=seeded(8)).abs()

    def forward(self, gates: Tensor) -> Tensor:
        vulnerabilities = torch.einsum("beo,eon->bn", gates, self.SLOPES)
        return torch.cat([gates.new_full((len(gates), 3), torch.nan), vulnerabilities], 1)


def predicted(supernet: Supernet, samples: int, draw: torch.Generator) -> Tensor:
    noise = gumbel_noise((samples, 2, 14, 8), draw)
    with torch.no_grad():
        return Columns()(gumbel_softmax(supernet.alphas(), noise, supernet.tau).flatten(1, 2))[:, 3:].mean(0)


def test_the_architecture_is_moved_within_the_bound_at_every_strength():
    torch.manual_seed(0)
    supernet = Supernet(2, 3, 4, tau=1.0, generator=seeded())
    weights = [parameter.detach().clone() for parameter in supernet.weight_parameters()]
    start, state = supernet.alphas().detach().clone(), torch.get_rng_state()
    before = predicted(supernet, 8, seeded(3))
    found = project_architecture(supernet, Columns(), before * torch.tensor([0.9, 2.0]), 8, seeded(3))
    after = predicted(supernet, 8, seeded(3))
    assert found.feasible and found.before == pytest.approx(1 / 0.9, rel=1e-4)
    assert after[0] <= 0.9 * before[0] * 1.011 and after[1] <= 2 * before[1]
    assert found.distance == pytest.approx((supernet.alphas().detach() - start).norm().item(), rel=1e-4)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(*pair) for pair in zip(weights, supernet.weight_parameters(), strict=True))
    assert all(parameter.grad is None for parameter in supernet.parameters())
    again = supernet.alphas().detach().clone()
    assert project_architecture(supernet, Columns(), before, 8, seeded(3)).iterations == 0
    assert torch.equal(supernet.alphas().detach(), again)  # within the bound, nothing moves


def test_the_objective_does_not_read_what_follows_the_losses():
    losses = torch.tensor([[1.0, 2.0, 4.0, 8.0, torch.nan, torch.inf]])
    value = RobustObjective(0.8, 0.2, (0.5, 0.25, 0.25))(losses)
    torch.testing.assert_close(value, torch.tensor([1.6]))
