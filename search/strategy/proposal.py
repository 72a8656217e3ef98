"""Which architectures are measured next: the first ones, then draws of A and neighbours of the best one.

Nothing here knows where a measurement comes from: a supernet, a training or a table. ``choices`` are operations of the
R rows of A, integers (n, R).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from search.spaces.supernet import gumbel_noise, gumbel_softmax
from search.strategy.acquisition import ACQUISITIONS, Prediction, thompson
from search.strategy.problem import Measured, Problem
from search.strategy.settings import Proposals
from wsrnas.runtime.config import require

FLATTER = 12  # times that A is divided by 1.5 where all of its draws were measured
WIDER, FURTHER = 8, 1000  # at a local optimum: parents, and random architectures
MOST = 0.5  # share of its neighbours that a filter must allow; below it, exchanges are proposed as well


def first_choices(problem: Problem, settings: Proposals, generator: torch.Generator) -> Tensor:
    """Return the architectures (n, R) that are measured first, n <= population: a draw that is repeated counts once.

    Robustness grows with size, so the largest architecture is a good start, if it is allowed; the others are drawn
    from equal parts of a random sample in the order of its sizes, so that the predictor sees what size does.
    """
    count = settings.population
    sample = problem.random(16 * count, generator)
    order = problem.size(sample).argsort()
    places = (torch.arange(count) + torch.rand(count, generator=generator)) * len(sample) / count
    spread = sample[order[places.long().clamp_max(len(sample) - 1)]]
    return Measured(problem.space, 1).new(torch.cat([largest(problem, sample), spread]))[:count]


def largest(problem: Problem, sample: Tensor) -> Tensor:
    """Return the largest allowed architecture (1, R) that climbing from the largest of ``sample`` (n, R) finds."""
    best = sample[problem.size(sample).argmax()].unsqueeze(0)
    while True:
        near = problem.space.neighbours(best[0])
        near = near[problem.allowed(near)]
        if not len(near) or problem.size(near).max() <= problem.size(best) + 1e-9:
            return best
        best = near[problem.size(near).argmax()].unsqueeze(0)


def descend(alphas: Tensor, function: Callable[[Tensor], Tensor], settings: Proposals,
            generator: torch.Generator) -> Tensor:
    """Return A (R, O) after some steps of Adam down the expectation of a function over the Gumbel-softmax of A.

    Args:
        alphas: A, before the steps.
        function: gates (n, R, O) -> values (n,) to minimise, differentiable.
        settings: steps, learning rate, temperatures and samples.
        generator: CPU source of ξ.
    """
    alphas = alphas.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([alphas], settings.learning_rate, betas=(0.5, 0.999))
    first, last = settings.temperatures
    for step in range(settings.steps):
        temperature = first * (last / first) ** (step / max(1, settings.steps - 1))
        noise = gumbel_noise((settings.samples, *alphas.shape), generator).to(alphas)
        value = function(gumbel_softmax(alphas, noise, temperature)).mean()
        alphas.grad, = torch.autograd.grad(value, alphas)
        optimizer.step()
    return alphas.detach()


def draw(alphas: Tensor, problem: Problem, count: int, generator: torch.Generator) -> Tensor:
    """Draw ``count`` architectures from the Gumbel-softmax of A (R, O), and return the allowed ones (n, R)."""
    noise = gumbel_noise((count, *alphas.shape), generator).to(alphas)
    drawn = problem.space.discrete((alphas + noise).view(count, *problem.space.shape))
    return drawn[problem.allowed(drawn)]


def likeliest(alphas: Tensor, problem: Problem, count: int, generator: torch.Generator) -> Tensor:
    """Return the architecture (R,) of A (R, O); if it is not allowed, the likeliest of some draws that are.

    Where none of ``count`` draws is allowed, A is flattened until one is.
    """
    space = problem.space
    own = space.discrete(alphas.view(1, *space.shape))
    if bool(problem.allowed(own)):
        return own[0]
    found = draw(alphas, problem, count, generator)
    if not len(found):
        found = others(alphas, problem, Measured(space, 1), count, generator)
    logits = torch.log_softmax(alphas, -1)
    return found[(space.gates(found).to(logits) * logits).sum((1, 2)).argmax()]


def near(parent: Tensor, problem: Problem) -> Tensor:
    """Return the allowed neighbours (n, R) of ``parent`` (R,).

    Under a filter that allows few of them, such as one on the size, exchanges are added: a row takes another row's
    operation and gives its own, so that the size hardly changes.
    """
    found = problem.space.neighbours(parent)
    allowed = problem.allowed(found)
    if allowed.double().mean() >= MOST:
        return found[allowed]
    exchanged = problem.space.exchanges(parent)
    return torch.cat([found[allowed], exchanged[problem.allowed(exchanged)]])


def propose(alphas: Tensor, prediction: Prediction, problem: Problem, measured: Measured, settings: Proposals,
            generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return A (R, O) after its steps, and the architectures (n, R) to measure next, 1 <= n <= ``batch``.

    A is drawn towards the best architecture so far, and moves down the predicted objective minus its standard
    deviation: towards what may be good. Of its draws and of what is near the best ones, the one with the largest
    acquisition is taken; in a batch, each further one is the best in another draw of the posterior.

    Raises:
        InputError: every allowed architecture was measured.
    """
    def optimistic(gates: Tensor) -> Tensor:
        mean, deviation = prediction.mean_and_deviation(gates)
        return mean - deviation

    space = problem.space
    best = measured.choices[prediction.fitted.argmin()]
    alphas = settings.decay * alphas + settings.pull * space.gates(best).to(alphas)
    alphas = descend(alphas, optimistic, settings, generator)
    found = candidates(alphas, prediction.fitted, problem, measured, settings, generator)
    require(len(found) > 0, "every allowed architecture was measured; expected fewer queries")
    gates = space.gates(found).double()
    chosen = [int(ACQUISITIONS[settings.acquisition](prediction, gates, generator).argmax())]
    for _ in range(min(settings.batch, len(found)) - 1):
        score = thompson(prediction, gates, generator)
        score[chosen] = -math.inf
        chosen.append(int(score.argmax()))
    return alphas, found[chosen]


def candidates(alphas: Tensor, fitted: Tensor, problem: Problem, measured: Measured, settings: Proposals,
               generator: torch.Generator) -> Tensor:
    """Return the unmeasured architectures (n, R) of which one is chosen: draws of A, and what is near the best ones.

    If the best one was measured long ago, the search is at a local optimum, and looks further: near more of the best
    ones, and at random ones.

    Args:
        alphas: A (R, O).
        fitted: predicted objectives (m,) of the measured architectures.
        problem: what is searched.
        measured: all measurements.
        settings: draws, parents and patience.
        generator: CPU source.
    """
    order = fitted.argsort()
    found = [draw(alphas, problem, settings.draws, generator), near(measured.choices[order[0]], problem)]
    stuck = len(measured) - 1 - int(order[0]) > settings.patience * len(found[-1])
    parents = measured.choices[order[1:max(WIDER, settings.parents) if stuck else settings.parents]]
    found += [near(parent, problem) for parent in parents]
    if stuck:
        found.append(problem.random(FURTHER, generator))
    new = measured.new(torch.cat(found))
    return new if len(new) else others(alphas, problem, measured, settings.draws, generator)


def others(alphas: Tensor, problem: Problem, measured: Measured, count: int, generator: torch.Generator) -> Tensor:
    """Return unmeasured architectures (n, R) where all candidates are known: draws of a flatter and flatter A.

    If there are none, random ones are returned, at last any of the pool; none if all of them were measured.
    """
    for power in range(1, FLATTER + 1):
        found = measured.new(draw(alphas / 1.5**power, problem, count, generator))
        if len(found):
            return found
    found = measured.new(problem.random(1000, generator))
    if len(found) or problem.pool is None:
        return found
    return measured.new(problem.pool[problem.allowed(problem.pool)])
