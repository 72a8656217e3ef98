"""Training-free scores against computations by hand, on networks of one layer."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from search.spaces import SPACES
from search.training_free import TRAINING_FREE, ScoreEntry
from search.training_free.consistency import IMAGE_STRENGTH, STEP, WEIGHT_STRENGTH, consistency
from search.training_free.naswot import naswot
from search.training_free.ntk import IMAGES as NTK_IMAGES
from search.training_free.ntk import LARGEST, ntk
from search.training_free.untrained import untrained_network, untrained_score

WEIGHT = np.array([[0.5, -1.0, 0.2], [1.5, 0.3, -0.4]])
IMAGES = np.array([[0.2, 0.9, 0.4], [0.7, 0.1, 0.5]])
LABELS = np.array([0, 1])


@pytest.fixture
def linear():
    """A network of one linear layer of three pixels, in double precision."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(3, 2, bias=False)).double()
    network[1].weight.data = torch.from_numpy(WEIGHT.copy())
    return network


def images():
    return torch.from_numpy(IMAGES).view(2, 3, 1, 1), torch.from_numpy(LABELS)


def slope(weight, pixels):
    """Gradients of the mean cross-entropy of a linear layer, in its outputs and in its weight."""
    logits = pixels @ weight.T
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    outputs = (probabilities - np.eye(2)[LABELS]) / 2
    return outputs, outputs.T @ pixels


def cosine(a, b):
    return (a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum())


def test_the_gradient_norm_is_that_of_a_softmax_by_hand(linear):
    _, gradient = slope(WEIGHT, IMAGES)
    assert TRAINING_FREE["gradient norm"].score(linear, *images()) == pytest.approx(np.sqrt(np.square(gradient).sum()))


def test_naswot_counts_the_units_that_agree():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3, 4, bias=False), nn.ReLU())
    network[1].weight.data = torch.tensor([[1.0, -1, 0], [-1, 1, 0], [1, 1, 1], [-1, -1, -1]])
    # Of the four units, the first image switches on the second and third, the second image the first and third.
    assert naswot(network, images()[0].float(), images()[1]) == pytest.approx(math.log(4 * 4 - 2 * 2))
    same = images()[0][:1].float().repeat(2, 1, 1, 1)
    assert naswot(network, same, images()[1]) == -math.inf


@pytest.mark.parametrize("seed", range(5))
def test_naswot_of_a_large_batch_with_equal_images_is_minus_infinity_without_rounding(seed):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU())
    pixels = torch.rand(64, 3, 8, 8)
    assert math.isfinite(naswot(network, pixels, torch.zeros(64)))
    pixels[[40, 50]] = pixels[[3, 3]]
    assert naswot(network, pixels, torch.zeros(64)) == -math.inf


@pytest.mark.parametrize(("name", "score"), TRAINING_FREE.items())
def test_the_cost_of_a_score_is_what_its_network_sees(name, score):
    seen = {"forward": 0, "backward": 0}

    def backward(count):
        def hook(gradient):
            seen["backward"] += count
        return hook

    def forward(module, inputs):
        seen["forward"] += len(inputs[0])
        if inputs[0].requires_grad:
            inputs[0].register_hook(backward(len(inputs[0])))

    network = untrained_network(SPACES["nas-bench-201"], SPACES["nas-bench-201"].decode(torch.full((6,), 3)),
                                (4, 3, 10, (3, 8, 8)), 0)
    handle = network.classifier.register_forward_pre_hook(forward)  # it is reached by every gradient
    copies = torch.rand(16, 3, 8, 8), torch.arange(16) % 10
    score.score(network, *copies)
    handle.remove()
    both, alone = score.passes(16)
    assert seen["backward"] == both
    assert seen["forward"] - alone == (NTK_IMAGES if name == "ntk" else both)  # NTK: one pass forward


def test_consistency_is_the_product_of_three_agreements_by_hand(linear):
    _, gradient = slope(WEIGHT, IMAGES)
    norm = np.linalg.norm
    other = WEIGHT + WEIGHT_STRENGTH * norm(WEIGHT) * gradient / norm(gradient)
    outputs, _ = slope(other, IMAGES)
    attacked = np.clip(IMAGES + IMAGE_STRENGTH * np.sign(outputs @ other), 0, 1)
    _, other_gradient = slope(other, attacked)
    expected = ((1 + cosine(IMAGES @ WEIGHT.T, attacked @ other.T))
                * (1 + cosine(WEIGHT - STEP * gradient, other - STEP * other_gradient))
                * abs(cosine(gradient, other_gradient)))
    assert consistency(linear, *images()) == pytest.approx(expected, rel=1e-9)
    np.testing.assert_array_equal(linear[1].weight.detach().numpy(), WEIGHT)  # a copy was pushed


def test_ntk_is_the_condition_number_of_the_kernel_by_hand(linear):
    """The gradient of the sum of the logits in a linear layer is the image, once for each logit: K = 2 X Xᵀ."""
    values = np.linalg.eigvalsh(IMAGES @ IMAGES.T)
    assert ntk(linear, *images()) == pytest.approx(-math.log(values[1] / values[0]))


def test_ntk_is_that_of_an_explicit_jacobian():
    torch.manual_seed(0)
    norms = [nn.BatchNorm2d(4, track_running_stats=False) for _ in range(2)]
    network = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), norms[0], nn.ReLU(), nn.Conv2d(4, 4, 3, bias=False),
                            norms[1], nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)).double()
    pixels = torch.rand(NTK_IMAGES + 3, 3, 8, 8, dtype=torch.float64)
    weights = dict(network.named_parameters())

    def outputs(weights):
        return torch.func.functional_call(network, weights, (pixels[:NTK_IMAGES],)).sum(1)

    parts = torch.func.jacfwd(outputs)(weights)
    jacobian = torch.cat([part.flatten(1) for part in parts.values()], 1)
    values = np.linalg.svd(jacobian.detach().numpy(), compute_uv=False)
    assert ntk(network, pixels, torch.zeros(NTK_IMAGES + 3)) == pytest.approx(-2 * math.log(values[0] / values[-1]))


def test_ntk_of_what_cannot_be_told_apart_is_the_lowest(linear):
    same = images()[0][:1].repeat(2, 1, 1, 1)
    assert ntk(linear, same, images()[1]) == -LARGEST
    assert ntk(linear, 0 * same, images()[1]) == -LARGEST  # no weight matters
    assert ntk(linear, 1e300 * same, images()[1]) == -LARGEST
    assert ntk(nn.Sequential(linear, nn.Linear(2, 2).double()), math.inf * same, images()[1]) == -LARGEST
    assert ntk(linear, same[:1], images()[1]) == 0.0


@pytest.mark.parametrize("space", ["darts", "nas-bench-201"])
def test_every_network_of_a_space_has_finite_scores(space):
    found = SPACES[space]
    choices = found.sample(1, torch.Generator().manual_seed(1))[0]
    pixels = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    for entry in TRAINING_FREE.values():
        torch.manual_seed(0)
        network = found.network(found.decode(choices), 2, 3, 10)
        assert math.isfinite(entry.score(network, pixels, torch.arange(12) % 10))


def test_a_score_is_the_mean_over_networks_with_different_weights():
    built = []

    def build(number):
        torch.manual_seed(number)
        built.append(nn.Sequential(nn.Flatten(), nn.Linear(3, 2)))
        return built[-1]

    entry = ScoreEntry(lambda network, *_: network[1].weight[0, 0].item(), "", lambda images: (images, 2), networks=3)
    mean = untrained_score(entry, build, *images())
    assert entry.cost(5) == (15, 6)
    assert len(built) == 3 and mean == pytest.approx(sum(network[1].weight[0, 0].item() for network in built) / 3)


def test_weights_of_each_number_are_their_own():
    found = SPACES["nas-bench-201"]
    graph = found.decode(torch.tensor([3, 1, 2, 3, 0, 2]))
    first, again, other = (next(untrained_network(found, graph, (4, 3, 3, (3, 8, 8)), 5, number).parameters())
                           for number in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
