"""The projection of alphas under a bound on F: closed forms, scipy's SLSQP, and what it must leave alone."""

import math
import weakref
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from search.vulnerability.projection import METHODS, least, project, summarize
from wsrnas.runtime.errors import InputError

EDGES, OPERATIONS, FEATURES = 28, 8, 16


class Toy:
    """F of about 2.6e-4 over the softmaxes of 28 edges x 8 operations, not convex; counts its calls."""

    def __init__(self, seed: int = 0, dtype: torch.dtype = torch.float64):
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)
        self.shift = normal(EDGES, OPERATIONS, FEATURES) + normal(EDGES, 1, FEATURES)
        self.shift[:, 0] = 0
        self.signal = normal(EDGES, OPERATIONS, FEATURES)
        self.alphas = normal(EDGES, OPERATIONS).to(dtype)
        self.scale, self.calls = 1.0, 0
        self.scale = 2.6e-4 / self(self.alphas).item()
        self.calls = 0

    def __call__(self, alphas: Tensor) -> Tensor:
        self.calls += 1
        weights = alphas.to(self.shift.dtype).softmax(-1).unsqueeze(-1)
        shift, signal = (weights * self.shift).sum(1), (weights * self.signal).sum(1)
        moved = shift.square().sum() + 0.3 * shift.sum(0).square().sum()
        return self.scale * moved / (1 + signal.square().mean())


def slsqp(toy: Toy, bound: float) -> Tensor:
    """The nearest alphas with F <= bound, by scipy."""
    start = toy.alphas.flatten().numpy()

    def slack(flat: np.ndarray) -> float:
        return 1 - toy(torch.tensor(flat).view_as(toy.alphas)).item() / bound

    def slack_slope(flat: np.ndarray) -> np.ndarray:
        alphas = torch.tensor(flat).view_as(toy.alphas).requires_grad_(True)
        return -torch.autograd.grad(toy(alphas), alphas)[0].flatten().numpy() / bound

    found = minimize(lambda x: 0.5 * ((x - start) ** 2).sum(), start, jac=lambda x: x - start, method="SLSQP",
                     constraints={"type": "ineq", "fun": slack, "jac": slack_slope},
                     options={"maxiter": 500, "ftol": 1e-14})
    assert found.success
    return torch.tensor(found.x).view_as(toy.alphas)


@pytest.fixture(scope="module", params=[0.9, 0.7, 0.5])
def problem(request) -> tuple[float, float, Tensor]:
    """The bound's share of F at the start, the bound, and SLSQP's solution for ``Toy()``."""
    toy = Toy()
    bound = request.param * toy(toy.alphas).item()
    return request.param, bound, slsqp(toy, bound)


def relative(found: Tensor, expected: Tensor, start: Tensor) -> float:
    return ((found - expected).norm() / (expected - start).norm()).item()


# ---- the solution --------------------------------------------------------------------------------------------

# Steps that are taken at a tolerance of 1e-4, by the bound's share of F at the start. (SLSQP: 9, 15, 25; steps
# of "slp" with the identity in place of its Hessian: 5, 20, 25.)
STEPS = {"slp": {0.9: 5, 0.7: 8, 0.5: 15}, "dual": {0.9: 154, 0.7: 170, 0.5: 195}}


@pytest.mark.parametrize("method", METHODS)
def test_the_projection_is_that_of_slsqp(problem, method):
    share, bound, expected = problem
    toy = Toy()
    found = project(toy, toy.alphas, bound, method, max_iterations=300, tolerance=1e-4)
    assert found.feasible
    assert found.after == pytest.approx(bound, rel=1e-4)
    assert found.distance == pytest.approx((expected - toy.alphas).norm().item(), rel=1e-3)
    assert relative(found.alphas, expected, toy.alphas) < 1e-3
    assert found.iterations <= 1.15 * STEPS[method][share]


def test_the_defaults_of_slp_are_within_the_bound_near_the_solution(problem):
    _, bound, expected = problem
    toy = Toy()
    found = project(toy, toy.alphas, bound)
    assert found.feasible and found.after <= 1.01 * bound
    assert found.distance == pytest.approx((expected - toy.alphas).norm().item(), rel=1e-2)
    assert relative(found.alphas, expected, toy.alphas) < 0.1
    assert found.evaluations <= 10


@pytest.mark.parametrize("method", METHODS)
def test_what_is_reported_is_true(problem, method):
    share, bound, _ = problem
    toy = Toy()
    found = project(toy, toy.alphas, bound, method)
    assert found.evaluations == toy.calls
    assert found.before == toy(toy.alphas).item() and found.before * share == pytest.approx(bound)
    assert found.after == toy(found.alphas).item()
    assert found.distance == pytest.approx((found.alphas - toy.alphas).norm().item())
    assert not found.alphas.requires_grad
    leaf = found.alphas.clone().requires_grad_(True)
    slope = torch.autograd.grad(toy(leaf), leaf)[0] / bound
    assert found.multiplier == pytest.approx(found.distance / slope.norm().item(), rel=0.05)


@pytest.mark.parametrize("method", METHODS)
def test_an_edges_mean_logit_is_kept_where_f_sees_softmaxes(problem, method):
    toy = Toy()
    found = project(toy, toy.alphas, problem[1], method)
    torch.testing.assert_close(found.alphas.mean(-1), toy.alphas.mean(-1), atol=1e-10, rtol=0)


def test_the_dual_reaches_the_bound_for_any_unit_of_f():
    toy = Toy()
    bound = 0.7 * toy(toy.alphas).item()
    found, large = (project(lambda a, k=k: k * toy(a), toy.alphas, k * bound, "dual") for k in (1, 1e4))
    assert found.iterations == large.iterations
    torch.testing.assert_close(found.alphas, large.alphas)


def test_the_dual_climbs_with_the_multiplier_and_descends_with_the_alphas():
    alphas, normal = torch.tensor([3.0, 1.0], dtype=torch.float64), torch.tensor([2.0, -1.0], dtype=torch.float64)
    found = project(lambda a: (normal * a).sum(), alphas, 4.0, "dual", max_iterations=2, multiplier=0.5)
    # F = 5, c = 1/4, gradient of c = normal / 4; then F = 5 - 0.1 * 1.75 * 5/4 = 4.78125.
    first = 0.5 + 5 / 4
    step = -0.1 * first * normal / 4
    second = first + 5 * (4.78125 / 4 - 1)
    torch.testing.assert_close(found.alphas, alphas + step - 0.1 * (step + second * normal / 4))
    assert found.multiplier == pytest.approx(second) and (found.iterations, found.evaluations) == (2, 3)


@pytest.mark.parametrize("shape", [(5,), (2, 14, 8)])
def test_slp_solves_a_linear_f_in_one_step_to_the_nearest_point_of_the_half_space(shape):
    generator = torch.Generator().manual_seed(1)
    alphas, normal = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    excess = 6.0
    bound = ((normal * alphas).sum() + 40 - excess).item()
    found = project(lambda a: (normal * a).sum() + 40, alphas, bound, trust_region=math.inf)
    square = normal.square().sum()
    torch.testing.assert_close(found.alphas, alphas - excess / square * normal)
    assert (found.iterations, found.evaluations, found.feasible) == (1, 2, True)
    assert found.distance == pytest.approx(excess / square.sqrt().item())
    assert found.multiplier == pytest.approx(excess * bound / square.item())


@pytest.mark.parametrize("method", METHODS)
def test_no_step_is_longer_than_the_trust_region(method):
    visited = []

    def vulnerability(alphas: Tensor) -> Tensor:
        visited.append(alphas.detach().clone())
        return alphas.square().sum()
    project(vulnerability, torch.full((4,), 5.0), 1.0, method, trust_region=0.25)
    steps = torch.stack(visited).diff(dim=0).norm(dim=1)
    assert len(steps) >= 8 and steps.max().item() == pytest.approx(0.25, rel=1e-4)


def test_a_step_that_does_not_lower_the_merit_is_shortened():
    # A well at 0 seen from 3: the tangent leads to -11.7 and its half to -4.3, both past the well. From inside it, all
    # of the way back to 3 is worse again, although no constraint is in sight. F is at the bound at sqrt(2 log 2).
    found = project(lambda a: (3 - 2 * (-a.square() / 2).exp()).sum(), torch.tensor([3.0], dtype=torch.float64), 2.0,
                    trust_region=math.inf)
    assert found.feasible and found.alphas.item() == pytest.approx(math.sqrt(2 * math.log(2)), abs=0.02)


def test_the_multiplier_of_the_dual_is_never_negative():
    found = project(lambda a: 10 * a.sum(), torch.ones(1, dtype=torch.float64), 1.0, "dual", max_iterations=2,
                    trust_region=math.inf)
    # c = 9 and the multiplier 45, so the first step is -45; there c = -441, and the second is a tenth of the way back.
    assert found.multiplier == 0 and found.evaluations == 3
    assert found.distance == pytest.approx(40.5)


# ---- points that need no step, or that none reaches -------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("share", [0.992, 1.0, 2.0, math.inf])  # the first within the tolerance
def test_alphas_within_the_bound_come_back_untouched_for_one_evaluation(method, share):
    toy = Toy(dtype=torch.float32)
    found = project(toy, toy.alphas, share * 2.6e-4, method)
    assert torch.equal(found.alphas, toy.alphas) and found.alphas.dtype == torch.float32
    assert found.alphas.data_ptr() != toy.alphas.data_ptr()
    assert (found.iterations, found.evaluations, toy.calls) == (0, 1, 1)
    assert found.feasible and found.distance == 0 and found.before == found.after


def test_a_projected_point_is_not_projected_again():
    toy = Toy()
    first = project(toy, toy.alphas, 1.8e-4)
    again = project(toy, first.alphas, 1.8e-4)
    assert again.evaluations == 1 and torch.equal(again.alphas, first.alphas)


@pytest.mark.parametrize("method", METHODS)
def test_a_bound_that_no_point_meets_gives_the_least_vulnerable_point_that_was_met(method):
    values = []

    def vulnerability(alphas: Tensor) -> Tensor:
        value = 1 + alphas.square().sum() + 0.3 * (7 * alphas).sin().sum()
        values.append(value.item())
        return value
    found = project(vulnerability, torch.full((3,), 2.0, dtype=torch.float64), 0.05, method)
    assert not found.feasible
    assert found.after == min(values) < values[0]
    assert vulnerability(found.alphas).item() == found.after


@pytest.mark.parametrize("method", METHODS)
def test_too_few_iterations_are_not_called_feasible(method):
    toy = Toy()
    found = project(toy, toy.alphas, 1e-4, method, max_iterations=2)
    assert not found.feasible and found.iterations == 2 and 1e-4 < found.after < found.before


def test_of_points_within_the_bound_the_nearest_is_kept_when_the_iterations_run_out():
    met = []

    def vulnerability(alphas: Tensor) -> Tensor:
        met.append((alphas.item(), alphas.atan().item() + 2))
        return alphas.atan().sum() + 2
    found = project(vulnerability, torch.tensor([5.0], dtype=torch.float64), 2 + math.pi / 4, trust_region=math.inf,
                    max_iterations=2)
    within = [at for at, value in met if value <= 1.01 * (2 + math.pi / 4)]
    assert len(within) > 1 and found.feasible and found.alphas.item() == max(within)


@pytest.mark.parametrize("method", METHODS)
def test_an_f_that_ignores_the_alphas_is_infeasible_and_not_an_error(method):
    alphas = torch.ones(3)
    for vulnerability in (lambda a: torch.tensor(2.0), lambda a: 2 + 0 * a.sum()):
        found = project(vulnerability, alphas, 1.0, method)
        assert not found.feasible and found.after == 2 and torch.equal(found.alphas, alphas)


# ---- values that are not finite -------------------------------------------------------------------------------


def logarithm(alphas: Tensor) -> Tensor:
    return 2 + alphas.log().sum()  # NaN below 0


def test_a_trial_that_is_not_finite_is_a_failed_one():
    found = project(logarithm, torch.tensor([4.0], dtype=torch.float64), 1.5, trust_region=math.inf)
    # The tangent's solution is 4 - 4 * 1.886 < 0; F is at the bound at exp(-0.5).
    assert found.feasible and found.alphas.item() == pytest.approx(math.exp(-0.5), abs=0.02)
    assert found.evaluations > found.iterations + 1


@pytest.mark.parametrize("method", METHODS)
def test_a_start_from_which_no_step_is_finite_is_returned(method):
    start = torch.tensor([1.0])

    def cliff(alphas: Tensor) -> Tensor:  # its gradient is 1 everywhere
        return alphas.sum() + torch.where(alphas.detach() == start, 1.0, math.nan).sum()
    found = project(cliff, start, 1.0, method)
    assert not found.feasible and found.after == found.before == 2 and torch.equal(found.alphas, start)
    assert found.evaluations == {"slp": 4, "dual": 2}[method]


@pytest.mark.parametrize("method", METHODS)
def test_a_gradient_that_is_not_finite_ends_the_search(method):
    found = project(lambda a: 2 + (a - a).sqrt().sum(), torch.ones(2), 1.0, method)
    assert not found.feasible and found.after == 2 and found.alphas.isfinite().all() and found.evaluations == 1


# ---- what is left alone -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_nothing_global_changes(method):
    layer, alphas = nn.Linear(6, 3), nn.Parameter(torch.linspace(-1, 1, 6))
    for parameter in (*layer.parameters(), alphas):
        parameter.grad = torch.full_like(parameter, 7)
    before, state = alphas.detach().clone(), torch.get_rng_state()
    with torch.no_grad():  # the caller's mode is not the projection's
        start = layer(alphas.softmax(-1)).square().sum().item()
        found = project(lambda a: layer(a.softmax(-1)).square().sum(), alphas, 0.7 * start, method)
        least(lambda a: layer(a.softmax(-1)).square().sum(), alphas)
    assert found.after < start and not torch.equal(found.alphas, before)
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(alphas, before)
    assert all((parameter.grad == 7).all() for parameter in (*layer.parameters(), alphas))
    assert alphas.requires_grad and not found.alphas.requires_grad


class Traced(torch.autograd.Function):
    """The identity, whose graph holds a token as a network's holds its feature maps."""

    alive: ClassVar[weakref.WeakSet] = weakref.WeakSet()

    @staticmethod
    def forward(ctx, alphas: Tensor) -> Tensor:
        ctx.token = type("Token", (), {})()
        Traced.alive.add(ctx.token)
        return alphas.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient


@pytest.mark.parametrize("solve", [lambda f, a: project(f, a, 1.5, trust_region=math.inf),
                                   lambda f, a: project(f, a, 1.5, "dual"), lambda f, a: least(f, a)])
def test_one_graph_is_alive_at_a_time(solve):
    counts = []

    def vulnerability(alphas: Tensor) -> Tensor:
        counts.append(len(Traced.alive))
        return logarithm(Traced.apply(alphas))
    kept = solve(vulnerability, torch.tensor([4.5], dtype=torch.float64))
    assert len(counts) > 2 and max(counts) == 0
    assert kept is not None and not Traced.alive


# ---- the least F ------------------------------------------------------------------------------------------------


def test_least_finds_the_minimum_of_a_convex_f():
    centre = torch.linspace(-2, 3, 10, dtype=torch.float64).view(2, 5)
    values = []

    def vulnerability(alphas: Tensor) -> Tensor:
        values.append((0.3 + (alphas - centre).square().mean()).item())
        return 0.3 + (alphas - centre).square().mean()
    value, alphas = least(vulnerability, torch.zeros(2, 5, dtype=torch.float64))
    assert value == pytest.approx(0.3, abs=1e-4) and value == min(values)
    torch.testing.assert_close(alphas, centre, atol=0.05, rtol=0)
    assert len(values) == 31 and not alphas.requires_grad


def test_least_is_below_every_bound_that_a_projection_meets():
    toy = Toy()
    value, alphas = least(toy, toy.alphas)
    assert toy(alphas).item() == value
    found = project(toy, toy.alphas, 0.1 * 2.6e-4, max_iterations=60)
    assert found.feasible and value < found.after


def test_least_survives_values_that_are_not_finite_and_stops_where_nothing_falls():
    value, alphas = least(lambda a: logarithm(a) + 1 / a.sum(), torch.tensor([4.0], dtype=torch.float64), 40, 8.0)
    assert value == pytest.approx(3) and alphas.item() == pytest.approx(1, abs=1e-3)
    assert least(lambda a: 2 + 0 * a.sum(), torch.ones(2))[0] == 2
    assert math.isfinite(least(logarithm, torch.tensor([4.0]))[0])  # two steps of 2 lead to the logarithm of 0


# ---- bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [0.0, -1.0, math.nan])
def test_a_bound_must_be_above_zero(bound):
    with pytest.raises(InputError, match=f"the bound of the vulnerability is {bound}; expected a number above 0"):
        project(torch.sum, torch.ones(2), bound)


def test_an_unknown_method_is_named():
    with pytest.raises(InputError, match="unknown projection method 'admm'; expected one of slp, dual"):
        project(torch.sum, torch.ones(2), 1.0, "admm")


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("solve", [lambda f: project(f, torch.ones(2), 1.0), lambda f: least(f, torch.ones(2))])
def test_f_must_be_finite_at_the_start(value, solve):
    with pytest.raises(InputError, match=f"the vulnerability at the given alphas is {value}; expected a finite number"):
        solve(lambda alphas: value * alphas.sum())


@pytest.mark.parametrize(("alphas", "vulnerability", "said"), [
    (torch.arange(6).view(2, 3), lambda alphas: alphas.sum(), "the alphas have the type torch.int64; expected"),
    (torch.ones(2, 3), lambda alphas: 0.5, "the vulnerability of the alphas is a float; expected a tensor with one"),
    (torch.ones(2, 3), lambda alphas: alphas.sum(1), r"is \(2,\); expected a tensor with one number")])
def test_what_is_no_vulnerability_is_named(alphas, vulnerability, said):
    for run in (lambda: project(vulnerability, alphas, 0.1), lambda: least(vulnerability, alphas)):
        with pytest.raises(InputError, match=said):
            run()


def test_a_projection_that_finds_nothing_better_has_not_moved():
    still = project(lambda alphas: 0.5 + 0 * alphas.sum(), torch.ones(4, dtype=torch.float64), 0.1)
    moved = project(lambda alphas: alphas.square().sum(), torch.ones(4, dtype=torch.float64), 0.1)
    assert still.iterations >= 0 and still.distance == 0 < moved.distance
    found = summarize([still, moved])
    assert found["active"] == 0.5 and found["distance"] == moved.distance and found["multiplier"] == moved.multiplier
