"""What counts before anything is measured: the size, and NASWOT in deviations of random architectures."""

import math
from types import SimpleNamespace

import pytest
import torch

from search import priors
from search.priors import LOWEST, REFERENCE, Naswot, Setting, size
from search.spaces import SPACES
from search.training_free.naswot import naswot
from search.training_free.untrained import untrained_network
from wsrnas.complexity import count_parameters
from wsrnas.data.image_set import ImageSet
from wsrnas.runtime.distributed import World
from wsrnas.runtime.seeding import generator

SPACE = SPACES["nas-bench-201"]
NETWORK = 4, 3, 3, (3, 8, 8)


def images():
    pixels = torch.randint(256, (12, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return ImageSet(pixels.contiguous(memory_format=torch.channels_last), torch.arange(12) % 3)


def setting(seed=5):
    return Setting(SPACE, NETWORK, images(), seed, World())


def path(choices):
    return SimpleNamespace(gates=SPACE.gates(choices).view(SPACE.shape))


def by_hand(choices, seed=5):
    there = images()
    return naswot(untrained_network(SPACE, SPACE.decode(choices), NETWORK, seed), there.images.float() / 255,
                  there.labels)


def test_the_size_is_the_logarithm_of_the_networks_parameters():
    choices = torch.tensor([3, 1, 2, 3, 0, 2])
    assert size(setting())(path(choices)) == pytest.approx(
        math.log(count_parameters(untrained_network(SPACE, SPACE.decode(choices), NETWORK, 0))))


@pytest.mark.parametrize("choices", [[3, 1, 2, 3, 0, 2], [2] * 6])
def test_naswot_is_in_deviations_of_random_architectures(choices):
    choices, prior = torch.tensor(choices), Naswot(setting())
    scores = [by_hand(drawn) for drawn in SPACE.sample(REFERENCE, generator(5, "NASWOT"))]
    finite = torch.tensor([score for score in scores if math.isfinite(score)], dtype=torch.float64)
    assert len(finite) > 1
    expected = (by_hand(choices) - finite.mean()) / finite.std()
    assert prior(path(choices)) == pytest.approx(expected.item(), rel=1e-4)
    assert Naswot(setting())(path(choices)) == prior(path(choices))
    assert Naswot(setting(6))(path(choices)) != prior(path(choices))


def test_a_network_that_sees_nothing_has_the_lowest_score(monkeypatch):
    prior = Naswot(setting())
    assert math.isfinite(prior.scale[0])
    monkeypatch.setattr(priors, "naswot", lambda *_: -math.inf)
    assert prior(path(torch.zeros(6, dtype=torch.int64))) == LOWEST


@pytest.mark.parametrize(("score", "mean"), [(-math.inf, 0), (7.0, 7)])
def test_where_random_architectures_do_not_differ_scores_count_as_they_are(score, mean, monkeypatch):
    prior = Naswot(setting())
    monkeypatch.setattr(priors, "naswot", lambda *_: score)
    assert prior.scale == (mean, 1)


def test_the_generator_of_the_search_goes_on_as_if_nothing_was_scored():
    prior = Naswot(setting())
    torch.manual_seed(0)
    before = torch.get_rng_state()
    prior(path(torch.tensor([3, 1, 2, 3, 0, 2])))
    assert torch.equal(torch.get_rng_state(), before)
