"""The architecture's gradient: against exact double backward in float64, and the weights restored bit for bit."""

import pytest
import torch
from torch import nn

from search.unrolled import architecture_gradient, sgd_direction, unrolled_gradient

RATE = 0.3


class Problem:
    """Losses over A (2, 3) and two weights that are multiplied with each other, so that all derivatives are at work.

    ``curved`` adds a fourth power to the lower loss, where a finite difference is not exact.
    """

    def __init__(self, curved: float = 0.0):
        draw = torch.Generator().manual_seed(0)

        def normal(*shape):
            return torch.randn(*shape, generator=draw, dtype=torch.float64)
        self.curved, self.alphas = curved, normal(2, 3)
        self.weights = [nn.Parameter(normal(6)), nn.Parameter(normal(4))]
        self.mixed, self.other, self.target, self.bowl = normal(6, 6), normal(6, 4), normal(4), normal(6, 6)
        self.steps = [normal(6), normal(4)]

    def lower_at(self, alphas, first, second):
        flat = alphas.flatten()
        return (flat @ self.mixed @ first + 0.5 * (flat @ self.other @ second)
                + 0.5 * (self.bowl @ first).square().sum() + self.curved * (flat * first).pow(4).sum())

    def upper_at(self, alphas, first, second):
        return ((alphas.flatten() * first).square().sum() + (second - self.target).square().sum()
                + (first @ self.other @ second) * alphas.sum())

    def lower(self, alphas):
        return self.lower_at(alphas, *self.weights)

    def upper(self, alphas):
        return self.upper_at(alphas, *self.weights)

    def lower_steps(self):
        """The direction of plain SGD at the current A."""
        return list(torch.autograd.grad(self.lower(self.alphas), self.weights))

    def exact(self, rate=RATE, constant=(0.0, 0.0)):
        """d/dA of U(w - rate * (grad L(w, A) + constant), A) by double backward."""
        leaf = self.alphas.clone().requires_grad_(True)
        slopes = torch.autograd.grad(self.lower_at(leaf, *self.weights), self.weights, create_graph=True)
        moved = [w.detach() - rate * (slope + more)
                 for w, slope, more in zip(self.weights, slopes, constant, strict=True)]
        return torch.autograd.grad(self.upper_at(leaf, *moved), leaf)[0]

    def unrolled(self, steps, rate=RATE, upper=None, lower=None):
        return unrolled_gradient(upper or self.upper, lower or self.lower, self.alphas, self.weights, steps, rate)


def test_the_first_order_gradient_is_the_direct_one():
    problem = Problem()
    leaf = problem.alphas.clone().requires_grad_(True)
    expected, = torch.autograd.grad(problem.upper(leaf), leaf)
    found = architecture_gradient(problem.upper, problem.alphas)
    assert torch.equal(found, expected) and not found.requires_grad
    assert not problem.alphas.requires_grad and all(w.grad is None for w in problem.weights)


def test_the_second_order_gradient_of_a_quadratic_is_exact():
    problem = Problem()
    found = problem.unrolled(problem.lower_steps())
    torch.testing.assert_close(found, problem.exact(), rtol=1e-9, atol=1e-9)
    first = architecture_gradient(problem.upper, problem.alphas)
    assert (found - first).norm() > 0.5 * first.norm()  # the second order is no small matter here
    assert not found.requires_grad and all(w.grad is None for w in problem.weights)


def test_elsewhere_it_is_exact_up_to_the_finite_difference():
    problem = Problem(curved=0.1)
    found, expected = problem.unrolled(problem.lower_steps()), problem.exact()
    error = (found - expected).norm() / expected.norm()
    assert 1e-12 < error < 1e-4  # 0.01 in weight space, squared


def test_momentum_and_weight_decay_are_part_of_the_step():
    problem = Problem()
    given = [slope + more for slope, more in zip(problem.lower_steps(), problem.steps, strict=True)]
    torch.testing.assert_close(problem.unrolled(given), problem.exact(constant=problem.steps), rtol=1e-9, atol=1e-9)


def test_a_weight_without_a_step_stays():
    """Off a sampled path: it has no slope in the lower loss, and the optimiser leaves it alone."""
    problem = Problem()
    problem.other.zero_()  # the lower loss does not know the second weight
    slopes = torch.autograd.grad(problem.lower(problem.alphas), problem.weights[:1])
    seen = []

    def upper(alphas):
        seen.append([w.detach().clone() for w in problem.weights])
        return problem.upper(alphas)
    found = problem.unrolled([*slopes, None], upper=upper)
    torch.testing.assert_close(found, problem.exact(), rtol=1e-9, atol=1e-9)
    (first, second), = seen
    torch.testing.assert_close(first, problem.weights[0].detach() - RATE * slopes[0])
    assert torch.equal(second, problem.weights[1])


def test_a_weight_unknown_to_the_upper_loss():
    problem = Problem()
    first = problem.weights[0]
    found = problem.unrolled(problem.lower_steps(), upper=lambda alphas: (alphas.flatten() * first).square().sum())
    problem.upper_at = lambda alphas, first, second: (alphas.flatten() * first).square().sum()
    torch.testing.assert_close(found, problem.exact(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_weights_come_back_bit_for_bit(dtype):
    problem = Problem()
    for name in ("alphas", "mixed", "other", "target", "bowl"):
        setattr(problem, name, getattr(problem, name).to(dtype))
    problem.weights = [nn.Parameter((1e3 * weight.detach()).to(dtype)) for weight in problem.weights]  # rounding shows
    before, storage = [w.detach().clone() for w in problem.weights], [w.data_ptr() for w in problem.weights]
    problem.unrolled(problem.lower_steps(), rate=0.1)
    assert all(torch.equal(w, b) for w, b in zip(problem.weights, before, strict=True))
    assert [w.data_ptr() for w in problem.weights] == storage  # the optimiser's own tensors


@pytest.mark.parametrize(("which", "call"), [("upper", 1), ("lower", 1), ("lower", 2)])
def test_the_weights_come_back_when_a_loss_raises(which, call):
    problem, calls = Problem(), []
    before = [w.detach().clone() for w in problem.weights]

    def breaking(alphas):
        calls.append([w.detach().clone() for w in problem.weights])
        if len(calls) == call:
            raise RuntimeError("out of memory")
        return getattr(problem, which)(alphas)
    steps = problem.lower_steps()
    with pytest.raises(RuntimeError, match="out of memory"):
        problem.unrolled(steps, **{which: breaking})
    assert not torch.equal(calls[-1][0], before[0])  # it was elsewhere at that moment
    assert all(torch.equal(w, b) for w, b in zip(problem.weights, before, strict=True))


def test_where_the_weights_do_not_matter_to_the_upper_loss_only_its_direct_gradient_is_left():
    problem = Problem()
    before = [w.detach().clone() for w in problem.weights]
    found = problem.unrolled(problem.lower_steps(),
                             upper=lambda alphas: alphas.square().sum() + 0 * problem.weights[0].sum())
    torch.testing.assert_close(found, 2 * problem.alphas)
    assert all(torch.equal(w, b) for w, b in zip(problem.weights, before, strict=True))


def test_a_rate_of_zero_is_the_first_order():
    problem = Problem()
    found = problem.unrolled(problem.lower_steps(), rate=0.0)
    torch.testing.assert_close(found, architecture_gradient(problem.upper, problem.alphas))


@pytest.mark.parametrize("steps_before", [0, 2])
def test_the_direction_is_that_of_the_optimisers_next_step(steps_before):
    problem = Problem(curved=0.1)
    unused = nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = torch.optim.SGD([*problem.weights, unused], 0.01, momentum=0.9, weight_decay=0.1)
    for _ in range(steps_before):
        optimizer.zero_grad()
        problem.lower(problem.alphas).backward()
        optimizer.step()
    optimizer.zero_grad()
    before = [w.detach().clone() for w in problem.weights]
    weights, directions, rate = sgd_direction(optimizer, problem.lower(problem.alphas))
    assert all(w is known for w, known in zip(weights, [*problem.weights, unused], strict=True)) and rate == 0.01
    assert directions[2] is None and not any(d.requires_grad for d in directions[:2])
    assert all(torch.equal(w, b) and w.grad is None for w, b in zip(problem.weights, before, strict=True))
    problem.lower(problem.alphas).backward()
    optimizer.step()
    for weight, old, direction in zip(problem.weights, before, directions, strict=False):
        torch.testing.assert_close(weight.detach(), old - rate * direction)
    assert torch.equal(unused.detach(), torch.ones(3))


def test_where_the_loss_does_not_depend_on_the_architecture_its_gradient_is_zero():
    """Where a sampled path has ``none`` wherever it counts, nothing leads from A, or from weights, to the logits."""
    problem, zeros = Problem(), torch.zeros(2, 3, dtype=torch.float64)
    kept = [weight.detach().clone() for weight in problem.weights]
    constant = torch.tensor(2.5, dtype=torch.float64)
    for loss in (lambda alphas: constant, lambda alphas: problem.weights[0].sum()):
        assert torch.equal(architecture_gradient(loss, problem.alphas), zeros)
        assert torch.equal(problem.unrolled(problem.steps, upper=loss, lower=lambda alphas: constant), zeros)
    assert all(map(torch.equal, problem.weights, kept))
    only_lower = problem.unrolled(problem.steps, upper=lambda alphas: constant)
    assert torch.equal(only_lower, zeros)  # the upper loss does not ask for other weights


def test_small_slopes_do_not_throw_the_weights_away():
    """Their squares are 0 in float32: the two sides of the difference would be billions apart."""
    weight, alphas = nn.Parameter(torch.ones(3)), torch.ones(3)
    places = []

    def lower(alphas):
        places.append(weight.detach().clone())
        return (alphas * weight).sum()

    unrolled_gradient(lambda alphas: 1e-25 * weight.sum() + 0 * alphas.sum(), lower, alphas, [weight],
                      [torch.zeros(3)], RATE)
    assert len(places) == 2 and (places[0] - places[1]).norm().item() == pytest.approx(0.02, rel=1e-4)
