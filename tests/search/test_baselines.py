"""The strategies to compare with: their order, their neighbourhoods, and the Gaussian process against its formulas."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate
from scipy.stats import multivariate_normal, norm

from search.spaces import SPACES
from search.strategies import STRATEGIES
from search.strategy.baselines.evolution import Evolution
from search.strategy.baselines.gaussian_process import GaussianProcess, Posterior
from search.strategy.baselines.largest_first import LargestFirst
from search.strategy.baselines.local_search import LocalSearch
from search.strategy.baselines.near import NEAREST, near
from search.strategy.baselines.random_search import RandomSearch
from search.strategy.problem import Measured, Problem
from wsrnas.runtime.errors import InputError

SPACE = SPACES["nas-bench-201"]
BASELINES = ("random", "evolution", "local-search", "largest-first", "gp")
# The Gaussian process takes seconds.
EVERY = pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name == "gp" else name
                                         for name in BASELINES])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def worth(choices: torch.Tensor) -> torch.Tensor:
    """Losses (n, 1): the number of rows that differ from a target."""
    return (choices != torch.tensor([3, 1, 4, 1, 2, 0])).sum(-1, keepdim=True).double()


def sizes(gates: torch.Tensor) -> torch.Tensor:
    """The number of 3x3 convolutions."""
    return gates[..., 3].sum(-1, keepdim=True)


def even(choices: torch.Tensor) -> torch.Tensor:
    """Which choices have an even sum: no single neighbour by one step of one operation."""
    return (choices.sum(-1) % 2 == 0) & (choices[:, 0] < 4)


def problem(**changes) -> Problem:
    return Problem(**{"space": SPACE, "objective": lambda losses: losses[..., 0], "sizes": sizes} | changes)


def filtered() -> Problem:
    pool = torch.cartesian_prod(*[torch.arange(5)] * 6)
    return problem(allowed=even, pool=pool[even(pool)])


def run(strategy, what: Problem, queries: int, seed: int = 0) -> Measured:
    measured, generator = Measured(what.space, 1), seeded(seed)
    for _ in range(queries):
        chosen = strategy.propose(measured, generator).unsqueeze(0)
        measured.add(chosen, worth(chosen))
    return measured


# ---- all -----------------------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("make", [problem, filtered], ids=["all", "filter"])
def test_no_architecture_is_measured_twice_or_against_the_filter(name, make):
    what, queries = make(), 30 if name == "gp" else 60
    measured = run(STRATEGIES[name].build(what, None, 1, 0), what, queries)
    assert len(measured.keys) == len(measured) == queries
    assert what.allowed(measured.choices).all()


@EVERY
def test_a_small_pool_is_measured_to_its_end_and_then_refused(name):
    pool = SPACE.sample(30, seeded(5))
    keys = SPACE.key(pool)

    def inside(choices):
        return (choices.unsqueeze(1) == pool).all(-1).any(-1)

    what = problem(allowed=inside, pool=pool)
    strategy = STRATEGIES[name].build(what, None, 1, 0)
    measured = run(strategy, what, len(set(keys)))
    assert measured.keys == set(keys)
    with pytest.raises(InputError, match="measured"):
        strategy.propose(measured, seeded())


@EVERY
def test_the_same_seed_gives_the_same_search(name):
    what = filtered()
    runs = [run(STRATEGIES[name].build(what, None, 1, 0), what, 25, seed).choices for seed in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


@EVERY
def test_the_output_is_the_best_measured(name):
    what = problem()
    strategy = STRATEGIES[name].build(what, None, 1, 0)
    measured = run(strategy, what, 30)
    best = strategy.outputs(measured, seeded())["best"]
    assert worth(best.unsqueeze(0)) == measured.losses.min()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["evolution", "local-search", "gp"])
def test_what_uses_the_measurements_is_better_than_chance(name):
    what = problem()
    found = {kind: [float(run(STRATEGIES[kind].build(what, None, 1, 0), what, 45, seed).losses.min())
                    for seed in range(6)] for kind in (name, "random")}
    assert sum(found[name]) < sum(found["random"]) - 3


# ---- near ----------------------------------------------------------------------------------------------------


def test_without_a_filter_the_neighbours_are_near():
    choices = torch.tensor([1, 2, 3, 4, 0, 0])
    found = near(problem(), choices, seeded())
    assert {tuple(row) for row in found.tolist()} == {tuple(row) for row in SPACE.neighbours(choices).tolist()}
    assert len(found) == 24 and not torch.equal(found, near(problem(), choices, seeded(1)))


def test_under_a_filter_all_allowed_changes_of_one_or_two_rows_are_near():
    choices = torch.tensor([1, 2, 3, 4, 0, 0])
    every = torch.cartesian_prod(*[torch.arange(5)] * 6)
    changed = (every != choices).sum(-1)
    expected = every[even(every) & (changed >= 1) & (changed <= 2)]
    found = near(filtered(), choices, seeded())
    assert set(SPACE.key(found)) == set(SPACE.key(expected))
    assert len(found) == len(set(SPACE.key(found)))
    closest = torch.cat([SPACE.neighbours(choices), SPACE.exchanges(choices)])
    first = {tuple(row) for row in closest[even(closest)].tolist()}
    kept = [tuple(row) in first for row in found.tolist()]
    assert kept == sorted(kept, reverse=True) and sum(kept) > 5


def test_in_a_pool_without_such_changes_its_closest_members_are_near():
    pool = torch.stack([torch.full((6,), value) for value in range(5)] + [torch.tensor([0, 0, 0, 1, 1, 1])])
    what = problem(pool=pool, allowed=lambda choices: (choices.unsqueeze(1) == pool).all(-1).any(-1))
    found = near(what, pool[0], seeded())
    assert len(found) == 5 < NEAREST
    assert not (found == pool[0]).all(-1).any()


# ---- random, largest first -----------------------------------------------------------------------------------


def test_random_search_is_uniform_over_the_pool():
    pool = SPACE.neighbours(torch.zeros(6, dtype=torch.long))
    what = problem(pool=pool)
    first = [tuple(RandomSearch(what).propose(Measured(SPACE, 1), seeded(seed)).tolist()) for seed in range(240)]
    counts = [first.count(tuple(row)) for row in pool.tolist()]
    assert sum(counts) == 240 and max(counts) < 25  # ten expected


def test_largest_first_goes_down_in_size_and_breaks_ties_by_chance():
    pool = torch.cartesian_prod(*[torch.tensor([1, 3])] * 6)
    what = problem(pool=pool)
    measured = run(LargestFirst(what), what, 20)
    found = sizes(measured.gates()).squeeze(1)
    assert found[0] == 6 and (found.diff() <= 0).all()
    firsts = {tuple(run(LargestFirst(what), what, 2, seed).choices[1].tolist()) for seed in range(20)}
    assert len(firsts) > 2


def test_largest_first_without_a_pool_orders_a_sample():
    what = problem()
    found = sizes(run(LargestFirst(what), what, 30).gates()).squeeze(1)
    assert found[0] >= 5 and (found.diff() <= 0).all()


# ---- evolution, local search ---------------------------------------------------------------------------------


def test_evolution_changes_one_row_of_a_good_member_of_the_newest_architectures():
    what = problem()
    strategy = Evolution(what, population=10, tournament=10)
    measured = run(strategy, what, 40)
    for place in range(10, 40):
        alive = measured.choices[place - 10:place]
        parents = alive[worth(alive).squeeze(1) == worth(alive).min()]
        child, before = measured.choices[place], set(SPACE.key(measured.choices[:place]))
        assert ((child != parents).sum(-1) == 1).any() or any(
            set(SPACE.key(SPACE.neighbours(parent))) <= before for parent in parents)


def test_local_search_moves_to_the_first_better_neighbour_and_restarts_at_an_optimum():
    what = problem()
    measured = run(LocalSearch(what), what, 150)
    values, current, restarts = measured.losses[:, 0], 0, 0
    for place in range(1, 150):
        neighbour = (measured.choices[place] != measured.choices[current]).sum() == 1
        if not neighbour:
            near_keys = set(SPACE.key(SPACE.neighbours(measured.choices[current])))
            before = set(SPACE.key(measured.choices[:place]))
            assert near_keys <= before and (values[:place] >= values[current]).sum() > 0
            current, restarts = place, restarts + 1
        elif values[place] < values[current]:
            current = place
    assert values.min() == 0 and restarts >= 1


# ---- Gaussian process ----------------------------------------------------------------------------------------


def example(count: int = 12) -> tuple[np.ndarray, np.ndarray]:
    choices = SPACE.sample(count, seeded(3))
    different = (choices.unsqueeze(1) != choices).sum(-1).double().numpy()
    values = worth(choices).squeeze(1).numpy()
    return different, (values - values.mean()) / values.std()


def test_the_posterior_is_that_of_the_formulas():
    different, values = example()
    known, new = slice(0, 9), slice(9, 12)
    length, noise = 2.0, 0.1
    fit = Posterior(different[known, known], values[known], length, noise)
    mean, deviation = fit.predict(different[new, known])
    covariance = np.exp(-different / length)
    inverse = np.linalg.inv(covariance[known, known] + noise * np.eye(9))
    scale = values[known] @ inverse @ values[known] / 9
    np.testing.assert_allclose(mean, covariance[new, known] @ inverse @ values[known], rtol=1e-9)
    variance = scale * (1 - np.diag(covariance[new, known] @ inverse @ covariance[known, new]))
    np.testing.assert_allclose(deviation, np.sqrt(variance), rtol=1e-9)


def test_the_evidence_orders_as_the_likelihood_does():
    different, values = example()
    settings = [(length, noise) for length in (0.5, 2.0, 8.0) for noise in (0.01, 0.4)]

    def likelihood(length: float, noise: float) -> float:
        fit = Posterior(different, values, length, noise)
        covariance = fit.scale * (np.exp(-different / length) + noise * np.eye(len(values)))
        return float(multivariate_normal(np.zeros(len(values)), covariance).logpdf(values))

    evidence = np.array([Posterior(different, values, *setting).evidence for setting in settings])
    expected = np.array([likelihood(*setting) for setting in settings])
    np.testing.assert_allclose(evidence - evidence[0], expected - expected[0], rtol=1e-8, atol=1e-8)


@pytest.mark.slow
def test_the_next_query_has_the_largest_expected_improvement():
    pool = torch.cartesian_prod(*[torch.tensor([1, 2, 3])] * 6)
    what = problem(pool=pool)
    strategy = GaussianProcess(what, initial=8)
    measured = run(strategy, what, 20)
    chosen = strategy.propose(measured, seeded(4))
    left = measured.new(pool)
    fit = strategy.fit(measured)

    def different(a, b):
        return (a.unsqueeze(1) != b).sum(-1).double().numpy()

    best = fit.predict(different(measured.choices, measured.choices))[0].min()
    mean, deviation = fit.predict(different(left, measured.choices))
    gains = [integrate.quad(lambda f, m=m, s=s: (best - f) * norm.pdf(f, m, s), m - 9 * s, best)[0]
             for m, s in zip(mean, deviation, strict=True)]
    at = int((left == chosen).all(-1).nonzero())
    assert gains[at] == pytest.approx(max(gains), rel=1e-6)


def test_the_process_ranks_unseen_architectures_and_names_a_verified_one():
    what = problem()
    strategy = GaussianProcess(what)
    measured = run(RandomSearch(what), what, 100)
    unseen = measured.new(SPACE.sample(300, seeded(9)))
    predicted = strategy.predict(measured, unseen, seeded())
    correlation = torch.corrcoef(torch.stack([predicted, worth(unseen).squeeze(1)]))[0, 1]
    assert correlation > 0.7
    verified = strategy.outputs(measured, seeded())["verified"]
    assert SPACE.key(verified.unsqueeze(0))[0] in measured.keys
    assert math.isfinite(float(predicted.sum()))
