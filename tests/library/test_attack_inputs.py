"""What attacks refuse and what they survive: wrong arguments, inference mode, gradients that are no numbers."""

import numpy as np
import pytest
import torch
from torch import nn

from wsrnas import evaluate
from wsrnas.attacks import mim, multi_strength_pgd, pgd, random_start
from wsrnas.data.loader import BatchLoader
from wsrnas.data.own import own_data
from wsrnas.evaluation.accuracy import robust_accuracy
from wsrnas.evaluation.carlini_wagner import carlini_wagner
from wsrnas.evaluation.minimum_norm import fmn
from wsrnas.runtime.errors import InputError

NAN = float("nan")


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 5)).eval()


def batch(count: int = 6):
    images = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return images, torch.arange(count) % 5


@pytest.mark.parametrize("arguments, named", [
    ({"norm": "l1"}, "l1"), ({"loss": "hinge"}, "hinge"), ({"steps": -1}, "-1"), ({"rows": 0}, "rows is 0"),
    ({"epsilon": torch.ones(3)}, r"\(3,\) for 6 images"), ({"epsilon": torch.ones(6, 1)}, r"\(6, 1\)"),
    ({"epsilon": -0.03}, "epsilon is -0.03; expected 0 or more"), ({"epsilon": NAN}, "epsilon is nan; expected 0"),
    ({"epsilon": torch.tensor(-0.1)}, "epsilon is -0.1; expected 0 or more"),
    ({"epsilon": torch.tensor([0.1] * 5 + [NAN])}, "epsilon is nan; expected 0"),
    ({"epsilon": torch.tensor(8.0)}, r"epsilon is 8; .*was 8/255 meant"),
    ({"epsilon": 8}, r"epsilon is 8; .*was 8/255 meant"),
    ({"epsilon": "8/255"}, "epsilon is '8/255'; expected a number"),
    ({"epsilon": [0.1] * 6}, r"epsilon is \[0.1, .*; expected a number or a tensor"),
    ({"images": np.zeros((6, 3, 8, 8))}, "images are a ndarray"),
    ({"images": torch.zeros(6, 3, 8, 8, dtype=torch.uint8)}, "images have the type torch.uint8"),
    ({"step_size": torch.ones(5)}, r"\(5,\)"), ({"step_size": NAN}, "step_size is nan; expected 0 or more"),
    ({"step_size": -0.1}, "step_size is -0.1"), ({"step_size": 2}, "step_size is 2; .*at most 1.25; was 2/255 meant"),
    ({"momentum": -0.5}, "-0.5"), ({"momentum": NAN}, "nan"),
])
def test_bad_arguments_are_named(arguments, named):
    images, labels = batch()
    with pytest.raises(InputError, match=named):
        pgd(linear(), **{"images": images, "labels": labels, "epsilon": 0.1, **arguments})


def test_bad_arguments_of_a_random_start_are_named():
    images, _ = batch()
    with pytest.raises(InputError, match="l1"):
        random_start(images, 0.1, "l1")
    with pytest.raises(InputError, match=r"\(3,\) for 6 images"):
        random_start(images, torch.ones(3))


def test_numbers_of_any_kind_are_lengths():
    model, (images, labels) = linear(), batch()
    expected = pgd(model, images, labels, 0.125, steps=2, step_size=0.25)
    for epsilon, step_size in ((np.float32(0.125), np.float64(0.25)), (torch.tensor(0.125), torch.full((6,), 0.25))):
        assert torch.equal(pgd(model, images, labels, epsilon, steps=2, step_size=step_size), expected)
    both = multi_strength_pgd(model, images, labels, torch.tensor([0.125, 0.25]), steps=2)
    for strengths in ((0.125, 0.25), [0.125, 0.25], np.array([0.125, 0.25])):
        assert torch.equal(multi_strength_pgd(model, images, labels, strengths, steps=2), both)
    assert (pgd(model, images, labels, 3.0, norm="l2") != images).any()  # a ball of L2 may be larger than 1


@pytest.mark.parametrize("attack", [
    lambda *batch: pgd(*batch, 0.1), lambda *batch: pgd(*batch, 0.1, random_start=True),
    lambda *batch: multi_strength_pgd(*batch, torch.tensor([0.1, 0.2])), fmn, carlini_wagner,
    lambda model, images, labels: robust_accuracy(
        model, BatchLoader(own_data((images, labels), (images, labels)).test, 5, 0, "test"), (0.1,), 1),
    lambda model, images, labels: evaluate(model, (images, labels), (0.1,), checks="none")])
def test_inference_mode_is_refused_and_a_forward_pass_without_gradient_is_not(attack):
    """Inside inference mode nothing has a gradient, so that an attack would leave every image as it is."""
    model, (images, labels) = linear(), batch(10)
    with torch.inference_mode(), pytest.raises(InputError, match=r"outside of torch.inference_mode\(\)"):
        attack(model, images, labels)
    with torch.no_grad():
        attack(model, images, labels)


class Contrast(nn.Module):
    """A network that divides by the contrast, whose gradient is no number where there is none."""

    def forward(self, images):
        contrast = images.flatten(1).var(1).sqrt()
        return torch.stack([contrast, 0.1 + 0 * contrast], 1)


@pytest.mark.parametrize("attack", [pgd, mim])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_where_a_gradient_is_no_number_the_image_stays_an_image(attack, norm):
    images, labels = batch()
    images[:2] = 0.5
    adversarial = attack(Contrast(), images, labels % 2, 0.1, norm=norm)
    assert adversarial.isfinite().all() and torch.equal(adversarial[:2], images[:2])
    assert all((adversarial[2:] != images[2:]).flatten(1).any(1))


def test_layers_in_evaluation_mode_keep_their_statistics():
    """As the documents say: the statistics of the batch are those of layers in training."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    images, labels = batch()
    for training in (False, True):
        model.train(training)
        with_batch, without = (pgd(model, images, labels, 0.1, batch_statistics=batch) for batch in (True, False))
        assert torch.equal(with_batch, without) is not training
