"""Predictors of the objective: the closed form, the choice of the noise, draws, losses, state."""

import copy
import dataclasses

import pytest
import torch

from search.spaces import SPACES
from search.strategy.kernel import Covariance
from search.strategy.paths import Paths
from search.strategy.predictors import PREDICTORS
from search.strategy.predictors.bayesian import NOISES, BayesianPredictor, Encoder
from search.strategy.problem import Problem
from search.strategy.settings import StrategyConfig
from search.strategy.shares import PAIRWISE, PATHS, SIZED
from search.strategy.targets import targets
from tests.quick import slow_after

SPACE = SPACES["nas-bench-201"]
ALL = pytest.mark.parametrize("name", PREDICTORS)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sizes(gates):
    """A size without a network: the number of 3x3 convolutions and what the first row is."""
    return torch.stack([gates[..., 3].sum(-1) - 1.2, gates[..., 0, 1]], -1)


ENCODE = Encoder(sizes, Paths(SPACE))


def objective(losses):
    return losses.mean(-1)


def measured(count=12, seed=0, noise=0.0):
    """Architectures and two losses of them by a law with pairs."""
    choices = SPACE.sample(count, seeded(seed))
    gates = SPACE.gates(choices).double()
    law = gates[:, 0, 3] - 2 * gates[:, 1, 2] * gates[:, 4, 3] + gates[..., 1].sum(-1)
    extra = noise * torch.randn(count, generator=seeded(seed + 1), dtype=torch.float64)
    return gates, torch.stack([law, 2 * law + gates[:, 2, 1]], 1) + extra.unsqueeze(1)


def built(name, seed=0):
    problem = Problem(SPACE, objective, sizes)
    return PREDICTORS[name].build(problem, dataclasses.replace(StrategyConfig(), loss_passes=20), 2, seed)


def test_targets_cut_every_column_at_its_quantile_and_standardise_the_objective():
    _, losses = measured(20)
    made = targets(losses, objective, 0.5)
    for column, cut in zip(losses.T, made.columns.T, strict=True):
        limit = torch.quantile(column, 0.5)
        assert torch.equal(cut, torch.where(column > limit, limit, column))
    torch.testing.assert_close(made.objective * made.spread + made.center, objective(made.columns))
    assert abs(made.objective.mean()) < 1e-12 and made.objective.std(correction=0) == pytest.approx(1)
    assert torch.equal(targets(losses, objective, 1.0).columns, losses)


def test_equal_losses_are_no_division_by_zero():
    made = targets(torch.ones(4, 2), objective, 0.75)
    assert made.objective.eq(0).all()
    assert BayesianPredictor(ENCODE, SIZED).fit(measured(4)[0], made, seeded()).fitted.isfinite().all()


@pytest.mark.parametrize("shares", [PAIRWISE, SIZED, PATHS], ids=["pairwise", "sized", "paths"])
def test_the_posterior_is_that_of_the_textbook(shares):
    gates, losses = measured()
    predictor = BayesianPredictor(ENCODE, shares)
    posterior = predictor.fit(gates, targets(losses, objective, 0.8), seeded())
    weights, noise = shares[predictor.chosen[0]], NOISES[predictor.chosen[1]]
    others = measured(5, seed=9)[0]

    def prior(a, b):
        return Covariance(weights, ENCODE(b))(ENCODE(a)._replace(hard=False))[0]

    inverse = torch.linalg.inv(prior(gates, gates) + noise * torch.eye(len(gates), dtype=torch.float64))
    y, cross = targets(losses, objective, 0.8).objective, prior(others, gates)
    scale = y @ inverse @ y / len(y)
    mean, deviation = posterior.mean_and_deviation(others)
    torch.testing.assert_close(mean, cross @ inverse @ y)
    torch.testing.assert_close(posterior.mean(others), mean)
    variance = prior(others, others).diagonal() - (cross @ inverse * cross).sum(1)
    torch.testing.assert_close(deviation, (scale * variance).sqrt())
    torch.testing.assert_close(posterior.fitted, prior(gates, gates) @ inverse @ y)


def test_the_noise_that_is_chosen_grows_with_the_noise_that_is_there():
    chosen = []
    for noise in (0.0, 3.0):
        gates, losses = measured(100, noise=noise)
        predictor = BayesianPredictor(ENCODE, SIZED)
        predictor.fit(gates, targets(losses, objective, 1.0), seeded())
        chosen.append(NOISES[predictor.chosen[1]])
    assert chosen[0] <= 0.05 < chosen[1]


def test_hyper_parameters_are_chosen_again_when_the_memory_has_grown_by_a_quarter(monkeypatch):
    asked = []
    monkeypatch.setattr("search.strategy.predictors.bayesian.choose",
                        lambda priors, values: asked.append(len(values)) or (0, 0))
    predictor = BayesianPredictor(ENCODE, SIZED)
    gates, losses = measured(13)
    for count in range(2, 14):
        predictor.fit(gates[:count], targets(losses[:count], objective, 1.0), seeded())
    assert asked == [2, 3, 4, 5, 7, 9, 12]


@pytest.mark.slow
def test_draws_have_the_mean_and_the_deviation_of_the_posterior():
    gates, losses = measured(8)
    posterior = BayesianPredictor(ENCODE, SIZED).fit(gates, targets(losses, objective, 1.0), seeded())
    others = measured(4, seed=9)[0]
    generator = seeded(3)
    draws = torch.stack([posterior.draw(generator)(others) for _ in range(400)])
    mean, deviation = posterior.mean_and_deviation(others)
    assert ((draws.mean(0) - mean) / deviation).abs().max() < 0.25
    torch.testing.assert_close(draws.std(0), deviation, rtol=0.2, atol=0)


@ALL
def test_every_prediction_is_differentiable_in_the_gates(name):
    gates, losses = measured()
    prediction = built(name).fit(gates, targets(losses, objective, 0.8), seeded())
    soft = (gates[:3] + 0.2).div((gates[:3] + 0.2).sum(-1, keepdim=True)).requires_grad_()
    drawn = prediction.draw(seeded(1))
    for function in (prediction.mean, drawn, lambda g: prediction.mean_and_deviation(g)[1]):
        slope, = torch.autograd.grad(function(soft).sum(), soft)
        assert slope.isfinite().all()
    assert torch.autograd.grad(prediction.mean(soft).sum(), soft)[0].abs().max() > 0
    assert prediction.fitted.shape == (12,)


@pytest.mark.parametrize("name", slow_after(2, sorted(PREDICTORS, reverse=True)))
def test_what_is_learned_is_the_order(name):
    gates, losses = measured(60)
    predictor = PREDICTORS[name].build(Problem(SPACE, objective, sizes), StrategyConfig(), 2, 0)
    prediction = predictor.fit(gates, targets(losses, objective, 1.0), seeded())
    others, truth = measured(100, seed=5)
    with torch.no_grad():
        correlation = torch.corrcoef(torch.stack([prediction.mean(others), objective(truth)]))[0, 1]
    assert correlation > 0.5


@ALL
def test_a_predictor_goes_on_from_its_state(name):
    gates, losses = measured(10)
    one, other = built(name), built(name, seed=1)
    one.fit(gates[:8], targets(losses[:8], objective, 0.8), seeded())
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    predictions = [p.fit(gates, targets(losses, objective, 0.8), seeded(2)).mean(gates) for p in (one, other)]
    assert torch.equal(*predictions)
