"""FMN: closed forms on a linear network, images on their own, networks without a gradient; foolbox is elsewhere."""

import math

import pytest
import torch
from torch import Tensor, nn

from wsrnas.evaluation.minimum_norm import fmn, noise_norms
from wsrnas.runtime.errors import InputError

NORMS = pytest.mark.parametrize("norm, dual", [("linf", 1), ("l2", 2)])


def images(count: int = 24) -> Tensor:
    """Away from 0 and 1, so that the box does not matter."""
    return 0.4 + 0.2 * torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def linear(classes: int) -> nn.Module:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, classes)).double().eval()
    with torch.no_grad():
        model[1].bias -= model(images()).mean(0)
    return model


def bent() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.SiLU(), nn.Flatten(), nn.Linear(64, 5)).double().eval()


def right(model: nn.Module, pixels: Tensor) -> Tensor:
    return model(pixels).argmax(1)


def radii(model: nn.Module, pixels: Tensor, labels: Tensor, dual: int) -> Tensor:
    """The distance of the nearest other class: a margin over the dual norm of two weights' difference."""
    logits, weight, found = model(pixels), model[1].weight, []
    for row, label in enumerate(labels.tolist()):
        others = torch.arange(len(weight)) != label
        margin = logits[row, label] - logits[row, others]
        found.append((margin / (weight[label] - weight[others]).norm(p=dual, dim=1)).min())
    return torch.stack(found).detach()


@NORMS
@pytest.mark.parametrize("classes", [2, 6])
def test_on_a_linear_network_the_smallest_noise_is_the_closed_form(norm, dual, classes):
    model, pixels = linear(classes), images()
    labels = right(model, pixels)
    found = fmn(model, pixels, labels, norm, steps=300, step_size=0.2)
    exact = radii(model, pixels, labels, dual)
    assert (found.distances >= exact * (1 - 1e-9)).all(), "nearer than possible"
    near = found.distances < exact * 1.001
    assert near.all() if classes == 2 else near.sum() > 18, "of several classes, the nearest may be another one"
    assert (right(model, found.adversarial) != labels).all()
    assert torch.equal(noise_norms(found.adversarial, pixels, norm), found.distances)


@NORMS
def test_the_images_stay_in_the_box_and_more_steps_find_less_noise(norm, dual):
    model, pixels = bent(), images().sub(0.4).mul(5).round()  # every pixel is 0 or 1
    labels = right(model, pixels)
    means = []
    for steps in (10, 40, 160):
        found = fmn(model, pixels, labels, norm, steps)
        assert found.adversarial.min() >= 0 and found.adversarial.max() <= 1
        means.append(found.distances.mean().item())
    assert math.inf > means[0] > means[1] > means[2] > 0


def test_an_image_that_is_wrong_needs_no_noise():
    model, pixels = bent(), images()
    labels = right(model, pixels)
    labels[3] = (labels[3] + 1) % 5
    found = fmn(model, pixels, labels, steps=3)
    assert found.distances[3] == 0 and torch.equal(found.adversarial[3], pixels[3])
    assert (found.distances > 0).sum() == len(pixels) - 1


@pytest.mark.parametrize("head", [lambda logits: logits.round(), lambda logits: logits.detach(),
                                  lambda logits: logits + (logits - logits.detach()).abs().sqrt()],
                         ids=["zero", "none", "no number"])
def test_without_a_gradient_nothing_is_found(head):
    class Headed(nn.Sequential):
        def forward(self, pixels: Tensor) -> Tensor:
            return head(super().forward(pixels))

    plain, pixels = linear(3), images()
    with torch.no_grad():
        plain[1].bias *= 100
    labels = right(plain, pixels)
    found = fmn(Headed(*plain).eval(), pixels, labels, steps=5)
    nothing = found.distances.isinf()
    assert nothing.any() and torch.equal(found.adversarial[nothing], pixels[nothing])
    assert found.adversarial.isfinite().all()


@NORMS
def test_an_image_does_not_depend_on_its_company(norm, dual):
    model, pixels = bent(), images(5)
    labels = right(model, pixels)
    together = fmn(model, pixels, labels, norm, 12).distances
    alone = torch.cat([fmn(model, pixels[i:i + 1], labels[i:i + 1], norm, 12).distances for i in range(5)])
    assert torch.allclose(together, alone, rtol=1e-9)


def test_the_network_is_left_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3)).double().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fmn(model, images(4), torch.arange(4) % 3, steps=2)
    assert model.training and all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("wrong, said", [({"norm": "l1"}, "unknown norm 'l1'; expected one of linf, l2"),
                                         ({"steps": 0}, "number of steps is 0"), ({"step_size": 0.0}, "step size is 0"),
                                         ({"growth": -1.0}, "growth is -1")])
def test_numbers_that_mean_nothing_are_refused(wrong, said):
    with pytest.raises(InputError, match=said):
        fmn(linear(2), images(1), torch.zeros(1, dtype=torch.long), **wrong)
