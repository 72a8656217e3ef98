"""What counts before anything is measured: the size, NASWOT in deviations of random architectures, and NTK."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from search.priors import LOWEST, PRIORS, REFERENCE, Setting, size
from search.spaces import SPACES
from search.training_free import TRAINING_FREE
from search.training_free.naswot import naswot
from search.training_free.ntk import ntk
from search.training_free.untrained import untrained_network
from wsrnas.complexity import count_parameters
from wsrnas.data.image_set import ImageSet
from wsrnas.runtime.distributed import World
from wsrnas.runtime.seeding import generator

SPACE = SPACES["nas-bench-201"]
NETWORK = 4, 3, 3, (3, 8, 8)
DEEPER = 4, 6, 3, (3, 8, 8)
naswot_prior = PRIORS["naswot"]


def images():
    pixels = torch.randint(256, (12, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return ImageSet(pixels.contiguous(memory_format=torch.channels_last), torch.arange(12) % 3)


def setting(seed=5, untrained=NETWORK):
    return Setting(SPACE, NETWORK, untrained, images(), seed, World())


def path(choices):
    return SimpleNamespace(gates=SPACE.gates(choices).view(SPACE.shape))


def by_hand(choices, seed=5, score=naswot, network=NETWORK, number=0):
    there = images()
    return score(untrained_network(SPACE, SPACE.decode(choices), network, seed, number), there.images.float() / 255,
                 there.labels)


def scored(monkeypatch, value):
    """Give every network the same NASWOT."""
    monkeypatch.setitem(TRAINING_FREE, "naswot", replace(TRAINING_FREE["naswot"], score=lambda *_: value))


def test_the_size_is_the_logarithm_of_the_networks_parameters():
    choices = torch.tensor([3, 1, 2, 3, 0, 2])
    assert size(setting())(path(choices)) == pytest.approx(
        math.log(count_parameters(untrained_network(SPACE, SPACE.decode(choices), NETWORK, 0))))


def test_ntk_is_that_of_a_network_with_as_many_cells_as_asked_for():
    choices = torch.tensor([3, 1, 2, 3, 0, 2])
    found = [PRIORS["ntk"](setting(untrained=network))(path(choices)) for network in (NETWORK, DEEPER)]
    means = [np.mean([by_hand(choices, score=ntk, network=network, number=number) for number in range(4)])
             for network in (NETWORK, DEEPER)]
    assert found == pytest.approx(means, rel=1e-3)
    assert found[0] != pytest.approx(found[1], rel=1e-2)
    assert size(setting(untrained=DEEPER))(path(choices)) == size(setting())(path(choices))  # that of the supernet


@pytest.mark.parametrize("choices", [[3, 1, 2, 3, 0, 2], [2] * 6])
def test_naswot_is_in_deviations_of_random_architectures(choices):
    choices, prior = torch.tensor(choices), naswot_prior(setting())
    scores = [by_hand(drawn) for drawn in SPACE.sample(REFERENCE, generator(5, "NASWOT"))]
    finite = torch.tensor([score for score in scores if math.isfinite(score)], dtype=torch.float64)
    assert len(finite) > 1
    expected = (by_hand(choices) - finite.mean()) / finite.std()
    assert prior(path(choices)) == pytest.approx(expected.item(), rel=1e-4)
    assert naswot_prior(setting())(path(choices)) == prior(path(choices))
    assert naswot_prior(setting(6))(path(choices)) != prior(path(choices))


def test_a_network_that_sees_nothing_has_the_lowest_score(monkeypatch):
    mean = naswot_prior(setting()).scale[0]
    assert math.isfinite(mean)
    scored(monkeypatch, -math.inf)
    prior = naswot_prior(setting())
    prior.scale = mean, 1.0
    assert prior(path(torch.zeros(6, dtype=torch.int64))) == LOWEST


@pytest.mark.parametrize(("score", "mean"), [(-math.inf, 0), (7.0, 7)])
def test_where_random_architectures_do_not_differ_scores_count_as_they_are(score, mean, monkeypatch):
    scored(monkeypatch, score)
    prior = naswot_prior(setting())
    assert prior.scale == (mean, 1)


def test_the_generator_of_the_search_goes_on_as_if_nothing_was_scored():
    prior = naswot_prior(setting())
    torch.manual_seed(0)
    before = torch.get_rng_state()
    prior(path(torch.tensor([3, 1, 2, 3, 0, 2])))
    assert torch.equal(torch.get_rng_state(), before)
