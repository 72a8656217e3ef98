"""Proposals: the first architectures, the steps of A, filters, no repetition; both strategies as a whole."""

import copy
import dataclasses
import re

import pytest
import torch

from search.spaces import SPACES
from search.strategy.acquisition import ACQUISITIONS, expected_improvement
from search.strategy.budget import around, parse_sized_budget, within
from search.strategy.paper import PaperStrategy
from search.strategy.predictors.bayesian import BayesianPredictor, Encoder
from search.strategy.problem import Measured, Problem
from search.strategy.proposal import (
    candidates,
    descend,
    first_choices,
    largest,
    likeliest,
    near,
    propose,
)
from search.strategy.settings import StrategyConfig
from search.strategy.shares import SIZED
from search.strategy.size import Sizes
from search.strategy.targets import targets
from search.strategy.wsr import WsrStrategy
from wsrnas.runtime.errors import InputError

SPACE = SPACES["nas-bench-201"]
CONFIG = StrategyConfig()
SIZES = Sizes(SPACE, 4, 3, 10, (3, 8, 8))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def law(choices):
    """Losses (n, 2): some operations are good on some edges, two only together; the best has no equal."""
    pair = (choices[..., 3] == 1) & (choices[..., 5] == 3)
    value = (choices == 3).sum(-1).double() + 2 * pair - (choices[..., 0] == 4).double()
    return torch.stack([6 - value, 8 - 1.5 * value], -1)


def problem(**more):
    return Problem(SPACE, lambda losses: losses.mean(-1), SIZES, **more)


def few_convolutions(choices):
    return (choices == 3).sum(-1) <= 2


def searched(strategy, queries, generator):
    measured = Measured(SPACE, 2)
    for _ in range(queries):
        chosen = strategy.propose(measured, generator).unsqueeze(0)
        measured.add(chosen, law(chosen))
    return measured


def wsr(what=None, config=CONFIG):
    return WsrStrategy(what or problem(), config, torch.zeros(6, 5), 2, 0)


# ---- parts ---------------------------------------------------------------------------------------------------


def test_sizes_are_standardised_logarithms_of_the_cost():
    choices = SPACE.sample(400, seeded(1))
    found = SIZES(SPACE.gates(choices).double())
    cost = SPACE.cost(choices, 4, 3, 10, (3, 8, 8)).double().log()
    torch.testing.assert_close((found - found.mean(0)) / found.std(0), (cost - cost.mean(0)) / cost.std(0))
    assert found.mean(0).abs().max() < 0.2 and (found.std(0) - 1).abs().max() < 0.2


def test_random_architectures_are_allowed_or_the_filter_is_named():
    drawn = problem(allowed=few_convolutions).random(300, seeded())
    assert drawn.shape == (300, 6) and few_convolutions(drawn).all()
    with pytest.raises(InputError, match=r"1,000,000 random architectures 0 are allowed; .*widen the filter"):
        problem(allowed=lambda choices: torch.zeros(len(choices), dtype=torch.bool)).random(1, seeded())


def test_a_pool_is_where_random_architectures_come_from():
    pool = SPACE.sample(5, seeded(2))
    drawn = problem(pool=pool, allowed=lambda choices: choices[:, 0] != pool[0, 0]).random(50, seeded())
    assert set(map(tuple, drawn.tolist())) == {tuple(row) for row in pool.tolist() if row[0] != pool[0, 0]}


def test_measurements_are_not_repeated_in_another_writing():
    measured = Measured(SPACE, 2)
    first = torch.tensor([[3, 0, 0, 1, 0, 0]])  # the output is the input: nothing else is alive
    measured.add(first, law(first))
    again = torch.tensor([[2, 0, 0, 1, 0, 0], [3, 0, 0, 3, 0, 0], [3, 0, 0, 3, 0, 0]])
    assert measured.new(again).tolist() == [[3, 0, 0, 3, 0, 0]]


def test_the_largest_architecture_comes_first_and_the_others_differ_in_size():
    settings = dataclasses.replace(CONFIG, population=6).proposals()
    chosen = first_choices(problem(), settings, seeded())
    assert chosen[0].tolist() == [3] * 6 and len(set(SPACE.key(chosen))) == len(chosen) == 6
    counts = (chosen[1:] == 3).sum(1)
    assert counts.min() < counts.max()


def test_under_a_filter_the_largest_is_allowed():
    found = largest(problem(allowed=few_convolutions), problem(allowed=few_convolutions).random(5, seeded()))
    every = torch.cartesian_prod(*[torch.arange(5)] * 6)
    every = every[few_convolutions(every)]
    assert problem().size(found) == pytest.approx(problem().size(every).max().item())


def test_steps_of_a_go_down_the_function():
    wanted = torch.tensor([3, 1, 4, 1, 0, 2])

    def misses(gates):
        return 6 - (gates * SPACE.gates(wanted)).sum((1, 2))

    settings = dataclasses.replace(CONFIG, proposal_steps=60).proposals()
    alphas = descend(torch.zeros(6, 5, dtype=torch.float64), misses, settings, seeded())
    assert alphas.argmax(-1).tolist() == wanted.tolist()
    assert torch.equal(alphas, descend(torch.zeros(6, 5, dtype=torch.float64), misses, settings, seeded()))


def test_no_step_changes_nothing():
    alphas = torch.randn(6, 5, dtype=torch.float64)
    settings = dataclasses.replace(CONFIG, proposal_steps=0).proposals()
    assert torch.equal(descend(alphas, lambda gates: gates.sum(), settings, seeded()), alphas)


def test_exchanges_are_proposed_where_a_filter_forbids_most_neighbours():
    parent = torch.tensor([3, 3, 0, 1, 4, 2])

    def same_size(choices):
        return ((choices == 3).sum(-1) == 2) & ((choices == 2).sum(-1) == 1)

    free, bound = near(parent, problem()), near(parent, problem(allowed=same_size))
    assert len(free) == 24 and ((free != parent).sum(1) == 1).all()
    assert same_size(bound).all() and {1, 2} == set((bound != parent).sum(1).tolist())


def test_the_expected_improvement_is_its_integral():
    best, mean, deviation = torch.tensor(0.3), torch.tensor([0.1, 0.8]).double(), torch.tensor([0.5, 0.2]).double()
    x = torch.linspace(-6, 6, 20001, dtype=torch.float64).unsqueeze(1)
    values = (best - mean - deviation * x).clamp_min(0) * torch.exp(-x.square() / 2) / (2 * torch.pi) ** 0.5
    torch.testing.assert_close(expected_improvement(best, mean, deviation), torch.trapezoid(values, x, dim=0),
                               rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("acquisition", ACQUISITIONS)
def test_proposals_are_new_allowed_and_seeded(acquisition):
    settings = dataclasses.replace(CONFIG, acquisition=acquisition).proposals()
    what = problem(allowed=few_convolutions)
    measured = Measured(SPACE, 2)
    measured.add(what.random(8, seeded(1)), law(what.random(8, seeded(1))))
    learnable = targets(measured.losses, what.objective, 0.6)
    prediction = BayesianPredictor(Encoder(SIZES), SIZED).fit(measured.gates(), learnable, seeded())
    start = torch.zeros(6, 5, dtype=torch.float64)
    alphas, chosen = propose(start, prediction, what, measured, settings, seeded(2))
    again = propose(start, prediction, what, measured, settings, seeded(2))
    assert torch.equal(alphas, again[0]) and torch.equal(chosen, again[1])
    assert chosen.shape == (1, 6) and few_convolutions(chosen) and len(measured.new(chosen)) == 1
    assert not torch.equal(alphas, start)
    several = propose(start, prediction, what, measured, dataclasses.replace(settings, batch=5), seeded(2))[1]
    assert torch.equal(several[:1], chosen) and few_convolutions(several).all() and len(measured.new(several)) == 5


def test_after_a_time_without_a_better_one_candidates_come_from_further_away():
    settings = dataclasses.replace(CONFIG, proposal_draws=1, proposal_parents=1, proposal_patience=1 / 6).proposals()
    alphas, best = torch.zeros(6, 5, dtype=torch.float64), torch.tensor([3, 3, 3, 3, 3, 3])
    alphas[:, 3] = 99  # its draws are the best one
    measured = Measured(SPACE, 2)
    measured.add(best[None], law(best[None]))

    def far(fitted):
        found = candidates(alphas, fitted, problem(), measured, settings, seeded())
        return int(((found != best).sum(1) > 1).sum()), len(found)

    assert far(torch.zeros(1)) == (0, 24)
    measured.add(SPACE.neighbours(best)[:4], law(SPACE.neighbours(best)[:4]))
    assert far(torch.arange(5)) == (0, 20)  # the best is the fifth newest
    measured.add(SPACE.neighbours(best)[4:5], law(SPACE.neighbours(best)[4:5]))
    assert far(torch.arange(6))[0] > 500
    assert far(-torch.arange(6))[0] <= 24  # the best is the newest


def test_an_output_of_a_is_allowed():
    alphas = torch.zeros(6, 5, dtype=torch.float64)
    alphas[:, 3], alphas[:4, 2] = 9, 8
    assert likeliest(alphas, problem(), 64, seeded()).tolist() == [3] * 6
    assert likeliest(alphas, problem(allowed=few_convolutions), 4096, seeded()).tolist() == [2, 2, 2, 2, 3, 3]
    far = alphas - 90 * (alphas == 0)
    assert few_convolutions(likeliest(far, problem(allowed=few_convolutions), 8, seeded()))


def test_a_budget_keeps_the_cost_near_it():
    choices = SPACE.sample(400, seeded())
    cost = SPACE.cost(choices, 4, 3, 10, (3, 8, 8))
    value = cost[:, 0].median().item()
    expected = (cost[:, 0] - value).abs() <= 0.1 * value
    assert 0 < expected.sum() < 400
    assert torch.equal(within(SPACE, f"params={value}", 0.1, (4, 3, 10, (3, 8, 8)))(choices), expected)
    assert torch.equal(within(SPACE, f"params={value}@C4L3", 0.1, (9, 6, 10, (3, 8, 8)))(choices), expected)
    value = cost[:, 1].max().item()
    assert torch.equal(within(SPACE, f"macs={value / 1e6}M", 0.02, (4, 3, 10, (3, 8, 8)))(choices),
                       cost[:, 1] >= 0.98 * value)


@pytest.mark.parametrize(("value", "near"), [
    ("2k", "are 1.5k and 3k"), ("3k", "are 3k and 3k"), ("1", "is 1.5k"), ("9M", "is 4M")])
def test_costs_around_a_budget_that_nothing_meets(value, near):
    assert around(f"params={value}", torch.tensor([3000.0, 1500, 4e6])) == (
        f"params go from 1.5k to 4M, nearest to it {near}")


@pytest.mark.parametrize("text", ["params", "params=3M@", "params=3M@C36", "macs=1M@L20C36", "macs=1M@C0L3", "3M@C4L3",
                                  "size=3M@C4L3", "params=0@C4L3"])
def test_a_budget_that_cannot_be_read_is_named(text):
    with pytest.raises(InputError, match=f"^budget is {re.escape(repr(text.partition('@')[0]))[:-1]}.*expected "):
        parse_sized_budget(text)


# ---- as a whole ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_finds_the_best_of_a_law_with_pairs():
    measured = searched(wsr(), 40, seeded())
    every = law(torch.cartesian_prod(*[torch.arange(5)] * 6)).mean(-1)
    assert measured.losses.mean(-1).min() == every.min()
    assert len(set(SPACE.key(measured.choices))) == 40


@pytest.mark.slow
def test_outputs_are_the_best_measured_the_best_predicted_and_that_of_a():
    strategy = wsr()
    measured = searched(strategy, 20, seeded())
    found = strategy.outputs(measured, seeded(1))
    assert torch.equal(found["best"], measured.choices[measured.losses.mean(-1).argmin()])
    predicted = strategy.predict(measured, measured.choices, seeded(1))
    assert torch.equal(found["verified"], measured.choices[predicted.argmin()])
    assert law(found["argmax"]).mean() <= measured.losses.mean(-1).median()
    before = strategy.alphas.clone()
    strategy.outputs(measured, seeded(1))
    assert torch.equal(strategy.alphas, before)


def test_everything_allowed_may_be_measured_and_then_it_says_so():
    pool = torch.tensor([[3, 3, 3, 3, 3, 3], [0, 0, 0, 1, 0, 0], [4, 4, 4, 4, 4, 4], [1, 2, 3, 1, 2, 3]])

    def member(choices):
        return (choices.unsqueeze(1) == pool).all(-1).any(-1)

    strategy, generator = wsr(problem(pool=pool, allowed=member)), seeded()
    measured = searched(strategy, 4, generator)
    assert sorted(measured.choices.tolist()) == sorted(pool.tolist())
    with pytest.raises(InputError, match="every allowed architecture was measured; expected fewer queries"):
        strategy.propose(measured, generator)


@pytest.mark.parametrize(("predictor", "batch"), [("sized", 1), ("lstm", 1), ("sized", 3)])
def test_a_search_goes_on_from_its_state(predictor, batch):
    config = dataclasses.replace(CONFIG, predictor=predictor, loss_passes=5, proposal_batch=batch)
    one, other, generator = wsr(config=config), wsr(config=config), seeded()
    measured = searched(one, 6, generator)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    state = generator.get_state()
    chosen = one.propose(measured, generator)
    assert torch.equal(other.propose(measured, seeded().set_state(state)), chosen)
    assert torch.equal(one.alphas, other.alphas)
    assert torch.equal(one.propose(measured, generator), chosen)  # asked again before the measurement


def paper(**more):
    config = dataclasses.replace(CONFIG, loss_passes=5)
    return PaperStrategy(problem(**more), config, 2, population=4, memory=6, tau=0.1, alpha_std=1e-3, seed=0)


def test_the_papers_a_moves_after_the_population_once_for_each_measurement():
    strategy, generator, moved = paper(), seeded(), []
    measured = Measured(SPACE, 2)
    for _ in range(8):
        chosen = strategy.propose(measured, generator).unsqueeze(0)
        measured.add(chosen, law(chosen))
        before = strategy.architecture.alphas().detach().clone()
        strategy.outputs(measured, generator)
        found = strategy.outputs(measured, generator)
        moved.append(not torch.equal(strategy.architecture.alphas(), before))
    assert moved == [False] * 4 + [True] * 4 and len(strategy.memory) == 6
    assert found["argmax"].tolist() == strategy.architecture.alphas()[0].argmax(-1).tolist()
    assert "verified" not in found and strategy.predict(measured, measured.choices, generator).shape == (8,)


def test_the_papers_strategy_keeps_to_a_filter():
    strategy = paper(allowed=few_convolutions)
    assert few_convolutions(searched(strategy, 7, seeded()).choices).all()
