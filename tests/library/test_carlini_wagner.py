"""The C&W attack against its optimum on linear classifiers, and its promises image by image."""

import pytest
import torch
from torch import Tensor, nn

from wsrnas.attacks import margins
from wsrnas.evaluation.carlini_wagner import carlini_wagner
from wsrnas.runtime.errors import InputError

SHAPE = (3, 4, 4)


def linear(scale: float = 1.0) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2)).double()
    with torch.no_grad():
        model[1].weight *= scale
    return model


def convolutional() -> nn.Module:
    """A BatchNorm network in training mode, one sub-module in evaluation mode, one fixed weight."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(),
                          nn.Linear(128, 5)).double()
    for _ in range(3):
        model(2 * torch.rand(16, *SHAPE).double())
    model[2].eval()
    model[0].weight.requires_grad_(False)
    return model


def batch(count: int = 6, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Bytes as numbers: tanh of atanh would give uniform ones back exactly."""
    uniform = torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return ((low + (high - low) * uniform) * 255).round() / 255


@torch.no_grad()
def predicted(model: nn.Module, images: Tensor) -> Tensor:
    modes = {module: module.training for module in model.modules()}
    labels = model.eval()(images).argmax(1)
    for module, mode in modes.items():
        module.training = mode
    return labels


def distance(first: Tensor, second: Tensor) -> Tensor:
    return (first - second).flatten(1).norm(dim=1)


def to_the_border(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Of a two-class linear model: the gradient of the margin (B, C, H, W) and the margin (B,)."""
    weight = model[1].weight.detach()
    with torch.no_grad():
        return (weight[1 - labels] - weight[labels]).reshape(-1, *SHAPE), margins(model(images), labels)


# ---- closed forms --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("confidence", [0.0, 0.3])
def test_on_a_linear_classifier_it_finds_the_nearest_point_of_the_border(confidence):
    model, images = linear(), batch(low=0.3, high=0.7)
    labels = predicted(model, images)
    gradient, margin = to_the_border(model, images, labels)
    least = (confidence - margin) / gradient.flatten(1).norm(dim=1)
    assert (least > 0.1).all()
    result = carlini_wagner(model, images, labels, 10.0, 1500, 0.002, confidence)
    with torch.no_grad():
        assert (margins(model(result), labels) > confidence).all()
    reached = distance(result, images)
    assert (reached >= least).all()
    torch.testing.assert_close(reached, least, rtol=0.01, atol=0)  # with the margin above: along the gradient


@pytest.mark.slow
@pytest.mark.parametrize("share, success", [(0.8, False), (1.25, True)])
def test_the_price_of_success_decides_where_the_closed_form_says(share, success):
    # Without the border, noise of penalty / 2 times the gradient is the cheapest; it gains penalty / 2 * |gradient|^2.
    model, image = linear(), batch(1, 0.3, 0.7)
    labels = predicted(model, image)
    gradient, margin = to_the_border(model, image, labels)
    penalty = share * (-2 * margin / gradient.square().sum()).item()
    result = carlini_wagner(model, image, labels, penalty, 1500, 0.002)
    assert torch.equal(result, image) != success
    if success:
        assert distance(result, image).item() == pytest.approx((-margin / gradient.norm()).item(), rel=0.01)


def test_images_that_are_wrong_already_stay():
    model, images = linear(), batch()
    images[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    result = carlini_wagner(model, images, 1 - predicted(model, images))
    assert (result - images).abs().max() <= 5.1e-7  # the distance from 0 and 1 that atanh needs


# ---- image by image ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_black_and_white_pixels_are_no_dead_end(dtype):
    model, images = linear(3.0).to(dtype), batch().round().to(dtype)
    labels = predicted(model, images)
    result = carlini_wagner(model, images, labels, 20.0, 100, 0.3)
    assert result.dtype == dtype and result.isfinite().all() and result.min() >= 0 and result.max() <= 1
    assert (predicted(model, result) != labels).all()


@pytest.mark.slow
def test_an_image_is_attacked_alike_in_every_batch():
    model, images = convolutional(), batch(8)
    labels = predicted(model, images)
    whole = carlini_wagner(model, images, labels, 5.0)
    fooled = predicted(model, whole) != labels
    assert 0 < fooled.sum() < 8 and torch.equal(whole[~fooled], images[~fooled])
    for i in range(8):
        alone = carlini_wagner(model, images[i:i + 1], labels[i:i + 1], 5.0)
        torch.testing.assert_close(whole[i:i + 1], alone, atol=1e-9, rtol=0)


@pytest.mark.slow
def test_more_steps_lose_no_success_and_only_come_closer():
    model, images = convolutional(), batch(8)
    labels = predicted(model, images)
    reached = torch.full((8,), torch.inf, dtype=torch.float64)
    counts = []
    for steps in (10, 30, 100, 300):
        result = carlini_wagner(model, images, labels, 5.0, steps)
        fooled = predicted(model, result) != labels
        now = torch.where(fooled, distance(result, images), torch.inf)
        assert (now <= reached).all()
        reached, counts = now, [*counts, int(fooled.sum())]
    assert counts[0] < counts[-1] and torch.equal(carlini_wagner(model, images, labels, 5.0, 0), images)


@pytest.mark.slow
def test_a_constant_added_to_the_logits_changes_nothing():
    model, images = convolutional(), batch()
    labels = predicted(model, images)
    expected = carlini_wagner(model, images, labels, 5.0)
    assert not torch.equal(expected, images)
    for constant in (-100, 100):
        with torch.no_grad():
            model[-1].bias += constant
        torch.testing.assert_close(carlini_wagner(model, images, labels, 5.0), expected, atol=1e-7, rtol=0)


# ---- what an attack leaves behind ----------------------------------------------------------------------------


def snapshot(model: nn.Module) -> tuple:
    return ([(name, value.tolist()) for name, value in model.state_dict().items()],
            [(m.training, getattr(m, "track_running_stats", None)) for m in model.modules()],
            [(p.requires_grad, p.grad) for p in model.parameters()])


def test_it_changes_nothing_in_model_images_and_generators():
    model, images = convolutional(), batch().requires_grad_(True)
    labels, before, pixels = predicted(model, images), snapshot(model), images.detach().clone()
    state = torch.get_rng_state()
    result = carlini_wagner(model, images, labels, 5.0, 20)
    assert snapshot(model) == before and torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, pixels) and images.grad is None and not result.requires_grad
    with torch.no_grad():
        assert torch.equal(carlini_wagner(model, images, labels, 5.0, 20), result)


def test_everything_is_restored_when_it_raises():
    model, images = convolutional(), batch()
    labels, before = predicted(model, images), snapshot(model)
    model[2].register_forward_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("out of memory")))
    with pytest.raises(RuntimeError, match="out of memory"):
        carlini_wagner(model, images, labels)
    assert snapshot(model) == before


def test_a_model_that_ignores_its_input_is_survived():
    class Constant(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.tensor([1.0, -1.0]).expand(len(images), 2)

    images = batch()
    result = carlini_wagner(Constant(), images, torch.arange(6) % 2)
    assert torch.equal(result[::2], images[::2])
    torch.testing.assert_close(result, images, atol=5.1e-7, rtol=0)


def test_nothing_is_read_back_to_the_host():
    with torch.device("meta"):  # it has no numbers: reading one raises
        model = nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
        images, labels = torch.rand(6, *SHAPE), torch.zeros(6).long()
    result = carlini_wagner(model, images, labels, steps=3)
    assert result.shape == images.shape and result.device.type == "meta"


@pytest.mark.parametrize("arguments, named", [
    ({"steps": -1}, "number of steps is -1"), ({"confidence": -0.5}, "confidence is -0.5"),
    ({"penalty": 0.0}, "penalty is 0.0"), ({"penalty": float("nan")}, "penalty is nan"),
    ({"learning_rate": -0.01}, "learning rate is -0.01"),
])
def test_bad_arguments_are_named(arguments, named):
    with pytest.raises(InputError, match=named):
        carlini_wagner(linear(), batch(), torch.zeros(6).long(), **arguments)
