"""Planted adversarial examples: they are there, random noise hardly finds them, and an attack that follows gradients
does."""

import pytest
import torch
from torch import Tensor, nn

from wsrnas.attacks import margins
from wsrnas.data.image_set import ImageSet
from wsrnas.data.loader import BatchLoader
from wsrnas.evaluation.active_test import (
    INNER,
    RIDGE,
    check_passes,
    noisy_images,
    own_attacks,
    plant,
    planted_examples,
    whitened,
)
from wsrnas.evaluation.attack_spec import at_strength, parse_attack
from wsrnas.evaluation.check_levels import CHECK_LEVELS
from wsrnas.evaluation.honesty import Part, Verdict, planted
from wsrnas.evaluation.measurement import Evaluation
from wsrnas.evaluation.planted_network import Planted, marked

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


def evaluation_of(model: nn.Module, images: Tensor) -> Evaluation:
    pixels = (255 * images).byte()
    with torch.no_grad():
        labels = model(pixels.float() / 255).argmax(1)
    return Evaluation(model, BatchLoader(ImageSet(pixels, labels), 15, 0, "test"), 10, batch_size=15)


def attacked(model: nn.Module, images: Tensor, *names: str, ratio: float = 0.0, **changes) -> tuple[int, int]:
    """Return how many examples were planted, and how many of them an evaluation's attacks found."""
    with torch.no_grad():
        labels = model(images).argmax(1)
    attacks = own_attacks([at_strength(parse_attack(name), 0.1, ratio) for name in names], STRENGTH, "full")
    chosen, found = planted_examples(evaluation_of(model, images), images, labels, torch.arange(len(images)), attacks)
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


@pytest.mark.parametrize("name", ["pgd-20", "cw-linf-20", "fgsm", "mim-20", "curve-9", "fmn-20", "apgd-ce", "pgd-l2-7",
                                  "pgd-7x3", "square"])
def test_attacks_find_what_is_planted(name, images):
    assert attacked(network(), images, name) == (COUNT, COUNT)


def test_an_evaluation_that_is_too_weak_is_found_out_on_a_sound_network(images):
    """Random noise, and steps that lead nowhere near the surface of the ball."""
    for names, ratio in ((["noise-10"], 0), (["pgd-20"], 1e-3), (["pgd-100", "cw-linf-20"], 1e-4)):
        chosen, found = attacked(network(), images, *names, ratio=ratio)
        assert chosen == COUNT and found < COUNT * 0.8, names
    assert attacked(network(), images, "noise-10", "pgd-7") == (COUNT, COUNT)


@pytest.mark.parametrize("classes", [4, 50])
def test_directions_are_whitened_by_the_weak_noise(classes):
    random = torch.Generator().manual_seed(classes)
    inner = torch.randn(3, INNER, classes, generator=random, dtype=torch.float64)
    outer = torch.randn(3, 5, classes, generator=random, dtype=torch.float64)
    spread = torch.einsum("bni,bnj->bij", inner, inner) / INNER
    ridge = RIDGE * spread.diagonal(dim1=1, dim2=2).mean(1)
    spread += torch.diag_embed(ridge[:, None].expand(3, classes))
    torch.testing.assert_close(whitened(inner, outer), outer @ torch.linalg.inv(spread), rtol=1e-8, atol=1e-8)


def test_an_image_bears_its_number_wherever_an_attack_of_the_ball_moves_it(images):
    class Same(nn.Module):
        def forward(self, given: Tensor) -> Tensor:
            assert given.shape[1:] == images.shape[1:] and given.is_contiguous(memory_format=torch.channels_last)
            return given.mean((1, 2, 3))[:, None]

    readouts = plant(network(), images, network()(images).argmax(1), torch.arange(COUNT), STRENGTH, 0)
    given, rows = marked(images.to(memory_format=torch.channels_last))
    assert rows == 1 and given[:, :, :-1].equal(images)
    model, seen = Planted(Same().eval(), readouts, rows), []
    model.readouts = type("R", (), {"planted": readouts.planted, "margins": readouts.margins,
                                    "scores": lambda self, logits, numbers: seen.append(numbers) or logits[:, 0]})()
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(2))
    noise = 0.49 * torch.randn(given.shape, generator=torch.Generator().manual_seed(3)).sign()
    model((given + noise).clamp(0, 1).to(memory_format=torch.channels_last)[order])
    assert seen[0].equal(order)
    assert marked(torch.zeros(500, 1, 4, 4))[1] == 3  # nine digits in rows of four pixels


@pytest.mark.parametrize("behind", [
    lambda z: z.detach(), lambda z: 1e6 * z, lambda z: z.detach() - (z - z.detach()),
    lambda z: z + (0 * z).abs().sqrt(),  # the slope of the root at 0 is infinite
], ids=["detached", "saturated", "misled", "NaN"])
def test_hidden_gradients_find_nothing(behind, images):
    chosen, found = attacked(network(behind), images, "pgd-20")
    assert chosen >= COUNT // 2 and found <= chosen // 10


def test_nothing_can_be_planted_where_nothing_changes(images):
    assert attacked(network(lambda logits: 0 * logits + torch.arange(10.0)), images) == (0, 0)


def test_the_check_takes_the_evaluations_own_attacks(images):
    evaluation = evaluation_of(network(), images)
    for names, said, level in (
            ([], "PGD-20", "full"), (["fgsm"], "FGSM", "full"), (["fgsm", "pgd-7"], "PGD-7 and FGSM", "full"),
            (["pgd-100", "pgd-20"], "PGD-20", "full"), (["square-9", "pgd-l2-7", "cw-linf-9"], "C&W margin-9", "full"),
            (["autoattack", "cw-linf-100"], "C&W margin-20 and AutoAttack", "full"), (["cw-l2"], "PGD-20", "full"),
            (["autoattack", "fmn", "square"], "FMN-20", "quick"), (["autoattack"], "PGD-20", "quick"),
            (["noise", "pgd-5"], "PGD-5", "quick")):
        rows = [(at_strength(parse_attack(name), 0.1), torch.ones(COUNT, dtype=torch.bool)) for name in names]
        verdict = planted(Part(evaluation, torch.arange(COUNT), STRENGTH, level), rows)
        assert verdict.passed is True and verdict.says.startswith(f"{said}  eps 0.05"), verdict.says
    rows = [(at_strength(parse_attack(name), 0.1), torch.ones(COUNT, dtype=torch.bool))
            for name in ("noise", "square-9")]
    weak = planted(Part(evaluation, torch.arange(COUNT), STRENGTH, "quick"), rows)
    assert weak.passed is False and weak.says.startswith("random noise-10  eps 0.05")
    assert planted(Part(evaluation, torch.arange(COUNT), STRENGTH, "quick"), rows[1:]) == Verdict(
        None, "no attack follows gradients, and --checks quick leaves out the others")
    evaluation.model = network(lambda z: z.detach())
    verdict = planted(Part(evaluation, torch.arange(COUNT), STRENGTH), [])
    assert verdict.passed is False and verdict.numbers["missed"] == verdict.numbers["images"]
    evaluation.model = network(lambda logits: 0 * logits + torch.arange(10.0))
    assert planted(Part(evaluation, torch.arange(COUNT), STRENGTH), []).passed is None


def test_the_evaluations_own_attacks_take_as_long_steps_together_and_are_counted():
    ratio = at_strength(parse_attack("pgd-100"), 0.1, 0.25)
    short, = own_attacks([ratio], 0.04, "full")
    assert (short.steps, short.epsilon, short.step_size) == (20, 0.04, pytest.approx(0.04 * 0.25 * 5))
    for name, more in (("pgd-100", 0), ("curve", 45), ("apgd-ce", 80), ("autoattack", 980)):
        passes = check_passes("full", [at_strength(parse_attack(name), 0.1)])
        assert passes[0] == CHECK_LEVELS["full"].passes[0] + more, name
    assert check_passes("none", [ratio]) == (0, 0)
