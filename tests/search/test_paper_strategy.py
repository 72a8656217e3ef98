"""The paper's strategy on measurements from elsewhere: Algorithm 1 written out once more, and how far A gets."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from search.spaces import SPACES
from search.strategy.paper import PaperStrategy
from search.strategy.problem import Measured, Problem
from search.strategy.settings import StrategyConfig
from search.strategy.size import Sizes
from wsrnas.runtime.seeding import seeded_weights

SPACE = SPACES["nas-bench-201"]
ROWS, OPERATIONS, TAU = 6, 5, 0.1


def losses_of(choices):
    """Losses (n, 3) in points: every 3x3 convolution helps, the last edge most."""
    good = (choices == 3).double()
    value = good.sum(-1) + good[..., 5]
    return torch.stack([60 - 4 * value, 70 - 5 * value, 80 - 6 * value], -1)


def searched(passes, queries, population, memory, seed=0):
    config = dataclasses.replace(StrategyConfig(), loss_passes=passes)
    problem = Problem(SPACE, lambda losses: losses.mean(-1), Sizes(SPACE, 4, 3, 10, (3, 8, 8)))
    strategy = PaperStrategy(problem, config, 3, population, memory, TAU, 1e-3, seed)
    measured, generator = Measured(SPACE, 3), torch.Generator().manual_seed(seed + 1)
    for _ in range(queries):
        chosen = strategy.propose(measured, generator).unsqueeze(0)
        measured.add(chosen, losses_of(chosen))
    strategy.outputs(measured, generator)
    return strategy, measured


def gumbel(shape, generator):
    return -torch.empty(shape).exponential_(generator=generator).log()


def written_out(passes, queries, population, memory, seed=0):
    """Return A (6, 5) and the choices: lines 2, 17 to 25 of Algorithm 1 with plain torch, in its own words."""
    alphas = (1e-3 * torch.randn(1, ROWS, OPERATIONS, generator=torch.Generator().manual_seed(seed))).requires_grad_()
    with seeded_weights(seed):
        encoder = torch.nn.LSTM(OPERATIONS, 16, batch_first=True)
        head = torch.nn.Linear(ROWS * 16, 3)
    weights = [*encoder.parameters(), *head.parameters()]
    learn = torch.optim.Adam(weights, 1e-3, betas=(0.5, 0.999), weight_decay=1e-3)
    move = torch.optim.Adam([alphas], 0.03, betas=(0.5, 0.999))
    generator = torch.Generator().manual_seed(seed + 1)
    choices, paths, mean, std = [], [], None, None

    def predict(gates):
        return head(encoder(gates)[0].flatten(1))

    def after(number):
        nonlocal mean, std
        if number < population:
            return
        gates, losses = torch.stack(paths[-memory:]), losses_of(torch.stack(choices[-memory:])).float()
        mean, std = losses.mean(0), losses.std(0, correction=0).clamp_min(1e-6)
        orders = [torch.randperm(len(gates), generator=generator) for _ in range(passes)]
        noises = 0.01 * torch.randn(passes, len(gates), ROWS, OPERATIONS, generator=generator)
        for order, noise in zip(orders, noises, strict=True):
            for rows in order.split(64):
                error = F.mse_loss(predict(gates[rows] + noise[rows]), (losses[rows] - mean) / std)
                learn.zero_grad()
                error.backward()
                learn.step()
        if number == population:
            return
        soft = torch.softmax((alphas + gumbel((64, 1, ROWS, OPERATIONS), generator)) / TAU, -1).flatten(1, 2)
        objective = (predict(soft) * std + mean).mean(-1).mean()
        alphas.grad, = torch.autograd.grad(objective, [alphas])
        move.step()

    for number in range(queries):
        after(number)
        paths.append(torch.softmax((alphas.detach() + gumbel((1, ROWS, OPERATIONS), generator)) / TAU, -1)[0])
        choices.append(paths[-1].argmax(-1))
    after(queries)
    return alphas.detach()[0], torch.stack(choices)


@pytest.mark.parametrize(("population", "memory"), [(4, 100), (6, 5)])
def test_it_is_algorithm_1_written_out(population, memory):
    strategy, measured = searched(3, 12, population, memory)
    alphas, choices = written_out(3, 12, population, memory)
    assert torch.equal(measured.choices, choices)
    torch.testing.assert_close(strategy.architecture.alphas().detach()[0], alphas, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_one_step_in_an_iteration_leaves_a_near_the_uniform_distribution():
    """Adam moves no entry by more than about its learning rate, so 25 steps of 0.03 cannot choose an operation."""
    alphas = searched(20, 50, 25, 100)[0].architecture.alphas().detach()[0]
    assert alphas.abs().max() <= 25 * 0.03 * 1.5
    weights = torch.softmax(alphas, -1)
    entropy = -(weights * weights.log()).sum(-1)
    assert entropy.mean() > 0.75 * torch.tensor(5.0).log()
    assert weights[:, 3].mean() > 1.2 / 5  # it has learned what helps


def test_a_table_of_a_few_cells_is_searched_although_no_draw_of_a_is_in_it():
    darts = SPACES["darts"]
    cells = darts.sample(20, torch.Generator().manual_seed(0))
    problem = Problem(darts, lambda losses: losses.mean(-1), Sizes(darts, 4, 3, 10, (3, 8, 8)),
                      lambda choices: (choices.unsqueeze(1) == cells).all(-1).any(-1), cells)
    strategy = PaperStrategy(problem, dataclasses.replace(StrategyConfig(), loss_passes=2), 1, 2, 10, TAU, 1e-3, 0)
    measured, generator = Measured(darts, 1), torch.Generator().manual_seed(1)
    for _ in range(4):
        chosen = strategy.propose(measured, generator).unsqueeze(0)
        assert bool(problem.allowed(chosen)) and strategy.gates[-1].equal(darts.gates(chosen[0]).to(torch.float32))
        measured.add(chosen, chosen.double().mean(-1, keepdim=True))
    assert bool(problem.allowed(strategy.outputs(measured, generator)["argmax"].unsqueeze(0)))


def test_a_that_has_left_what_is_allowed_weighs_what_is():
    wanted = 2  # an operation that A does not like
    problem = Problem(SPACE, lambda losses: losses.mean(-1), Sizes(SPACE, 4, 3, 10, (3, 8, 8)),
                      lambda choices: (choices == wanted).sum(-1) == 3)
    strategy = PaperStrategy(problem, StrategyConfig(), 3, 50, 10, TAU, 1e-3, 0)
    with torch.no_grad():
        for alphas in strategy.architecture.architecture_parameters():
            alphas[..., wanted], alphas[..., 3] = -30, 30
    found = torch.stack([strategy.propose(Measured(SPACE, 3), torch.Generator().manual_seed(seed))
                         for seed in range(5)])
    assert bool(problem.allowed(found).all())
    assert (found == 3).sum() > 10  # of 15 other edges; one in four by chance
