"""Planted adversarial examples: they are there, random noise hardly finds them, and an attack that follows gradients
does."""

import pytest
import torch
from torch import Tensor, nn

from wsrnas.attacks import margins
from wsrnas.data.image_set import ImageSet
from wsrnas.data.loader import BatchLoader
from wsrnas.evaluation.active_test import INNER, noisy_images, plant, planted_examples
from wsrnas.evaluation.attack_spec import at_strength, parse_attack
from wsrnas.evaluation.honesty import Part, planted
from wsrnas.evaluation.measurement import Evaluation

STRENGTH = 0.05
COUNT = 40


def network(behind=lambda logits: logits) -> nn.Module:
    class Behind(nn.Module):
        def forward(self, logits: Tensor) -> Tensor:
            return behind(logits)

    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 32), nn.Tanh(), nn.Linear(32, 10), Behind()).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(COUNT, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 0.8 + 0.1


def attacked(model: nn.Module, images: Tensor, name: str = "pgd-20") -> tuple[int, int]:
    """Return how many examples were planted, and how many of them were found."""
    with torch.no_grad():
        labels = model(images).argmax(1)
    chosen, found = planted_examples(model, images, labels, torch.arange(len(images)), at_strength(
        parse_attack(name), STRENGTH), 0)
    assert not (found & ~chosen).any()
    return int(chosen.sum()), int(found.sum())


def test_an_example_exists_and_the_image_and_weak_noise_are_on_the_other_side(images):
    model, indices = network().double(), torch.arange(COUNT)
    images = images.double()
    with torch.no_grad():
        own = model(images)
        labels = own.argmax(1)
        samples = [model(noisy) for noisy in noisy_images(images, indices, STRENGTH, 0)]
    readouts = plant(model, images, labels, indices, STRENGTH, 0)
    assert readouts.planted.all()
    torch.testing.assert_close(readouts.scores(own, indices), margins(own, labels), rtol=1e-6, atol=1e-9)
    scores = torch.stack([readouts.scores(logits, indices) for logits in samples])
    assert (scores[:INNER] < 0).all() and (scores[INNER:] > 0).any(0).all()
    assert (scores[INNER:] > 0).double().mean() < 0.4, "few of the corners are planted, so chance finds few"


def test_the_noise_of_an_image_is_inside_the_ball_and_belongs_to_it_alone(images):
    chosen = torch.tensor([7, 3])
    every = torch.stack(list(noisy_images(images, torch.arange(COUNT), STRENGTH, 0)))
    assert (every - images).abs().amax() <= STRENGTH + 1e-6 and every.min() >= 0 and every.max() <= 1
    torch.testing.assert_close(torch.stack(list(noisy_images(images[chosen], chosen, STRENGTH, 0))), every[:, chosen])


@pytest.mark.parametrize("name", ["pgd-20", "cw-linf-20", "fgsm"])
def test_gradients_find_what_is_planted(name, images):
    assert attacked(network(), images, name) == (COUNT, COUNT)


@pytest.mark.parametrize("behind", [
    lambda z: z.detach(), lambda z: 1e6 * z, lambda z: z.detach() - (z - z.detach()),
    lambda z: z + (0 * z).abs().sqrt(),  # the slope of the root at 0 is infinite
], ids=["detached", "saturated", "misled", "NaN"])
def test_hidden_gradients_find_nothing(behind, images):
    chosen, found = attacked(network(behind), images)
    assert chosen >= COUNT // 2 and found <= chosen // 10


def test_nothing_can_be_planted_where_nothing_changes(images):
    assert attacked(network(lambda logits: 0 * logits + torch.arange(10.0)), images) == (0, 0)


def test_the_check_takes_the_evaluations_own_attack(images):
    pixels = (255 * images).byte()
    labels = network()(pixels.float() / 255).argmax(1)
    evaluation = Evaluation(network(), BatchLoader(ImageSet(pixels, labels), 15, 0, "test"), 10, batch_size=15)
    part = Part(evaluation, torch.arange(COUNT), STRENGTH)
    for names, said in (([], "PGD-20"), (["fgsm"], "FGSM"), (["fgsm", "pgd-7"], "PGD-7"), (["pgd-100"], "PGD-20"),
                        (["square-9", "pgd-l2-7", "cw-linf-9"], "PGD-20")):
        rows = [(at_strength(parse_attack(name), 0.1), torch.ones(COUNT, dtype=torch.bool)) for name in names]
        verdict = planted(part, rows)
        assert verdict.passed is True and verdict.says.startswith(f"{said}  eps 0.05"), verdict.says
    evaluation.model = network(lambda z: z.detach())
    verdict = planted(part, [])
    assert verdict.passed is False and verdict.numbers["missed"] == verdict.numbers["images"]
    evaluation.model = network(lambda logits: 0 * logits + torch.arange(10.0))
    assert planted(part, []).passed is None
