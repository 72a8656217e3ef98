"""Networks whose evaluation would mean nothing are refused, and others are not."""

import copy
import itertools
import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.quick import slow_after
from tests.subjects import CLASSES, batch, export, network, refused_by_check
from wsrnas.attacks import pgd
from wsrnas.data.datasets import load_dataset
from wsrnas.runtime.errors import InputError
from wsrnas.subjects.checking import check_model
from wsrnas.subjects.input_range import gain_by_chance, significantly_better
from wsrnas.subjects.opening import open_model

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning",
                                        "ignore::torch.jit.TracerWarning")


class Function(nn.Module):
    """A function of the images as a network in evaluation mode."""

    def __init__(self, function):
        super().__init__()
        self.function, self.bias = function, nn.Parameter(torch.zeros(CLASSES))
        self.eval()

    def forward(self, images: Tensor):
        return self.function(images)


def logits_of(images: Tensor) -> Tensor:
    return images.flatten(1)[:, :CLASSES]


def test_a_network_is_left_as_it_was():
    model, (images, labels) = network(), batch(64)
    state, drawn = copy.deepcopy(model.state_dict()), images.clone()
    check_model(model, images, labels, CLASSES)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert torch.equal(images, drawn) and not images.requires_grad


@pytest.mark.slow
def test_training_mode_is_refused(tmp_path):
    model = network().train()
    assert refused_by_check(model).startswith("the network is in training mode; expected evaluation mode: call .eval()")
    model = nn.Sequential(network(), nn.Identity()).eval()
    model[0][1].train()
    model[0][3].train()
    assert "the network's sub-module 0.1 (BatchNorm2d) is in training mode" in refused_by_check(model)
    torch.jit.script(model).save(str(tmp_path / "a.pt"))
    assert "sub-module 0.1 (BatchNorm2d)" in refused_by_check(open_model(str(tmp_path / "a.pt")).model)
    file = tmp_path / "net.py"
    file.write_text("from torch import nn\ndef build(): return nn.Linear(3, 5)\n")
    assert "call .eval()" in refused_by_check(open_model(f"{file}:build").model)


def nan_for(rows: list[int], value: float):
    def function(images: Tensor) -> Tensor:
        logits = logits_of(images).clone()
        logits[rows, 1] = value
        return logits
    return function


@pytest.mark.parametrize("function, named", [
    (lambda x: (logits_of(x), None), "returns a tuple of 2, such as logits and auxiliary logits; expected logits of "
     "shape (9, 5) alone"),
    (lambda x: [logits_of(x)], "returns a list of 1"),
    (lambda x: {"logits": logits_of(x)}, "returns a dict with logits; expected logits of shape (9, 5) alone: wrap it"),
    (lambda x: None, "returns None"),
    (lambda x: x, "returns a tensor of shape (9, 3, 8, 8) for 9 images"),
    (lambda x: logits_of(x).mean(0), "returns a tensor of shape (5,)"),
    (lambda x: logits_of(x)[:8], "returns a tensor of shape (8, 5) for 9 images"),
    (lambda x: x.flatten(1)[:, :4], "logits for 4 classes, but the data set has 5 classes"),
    (lambda x: x.flatten(1)[:, :6], "logits for 6 classes, but the data set has 5 classes"),
    (lambda x: (10 * logits_of(x)).long(), "returns torch.int64; expected logits"),
    (nan_for([2, 5, 6], torch.nan), "NaN or infinite for 3 of 9 images"),
    (nan_for([4], -torch.inf), "NaN or infinite for 1 of 9 images"),
    (lambda x: logits_of(x.sub_(0.5)), "in-place operation"),
    (lambda x: logits_of(x.data.sub_(0.5)), "changes the images that it is given"),
    (lambda x: logits_of(x) @ torch.ones(4, 4), "take images of shape (9, 3, 8, 8) (RuntimeError: "),
    (lambda x: logits_of(torch.ones(x.missing)), "(AttributeError: 'Tensor' object has no attribute 'missing')"),
])
def test_what_is_no_logits_is_refused(function, named):
    assert named in refused_by_check(Function(function))


@pytest.mark.parametrize("make", slow_after(1, [
    lambda m, folder: m, lambda m, folder: torch.jit.script(m), lambda m, folder: torch.jit.trace(m, batch(4)[0]),
    lambda m, folder: open_model(str(export(folder / "a.pt2", m))).model]))
@pytest.mark.parametrize("shape, named", [((9, 1, 8, 8), "channels|shape|size"), ((9, 3, 10, 10), "shape|size")])
def test_images_of_another_size_are_refused_with_the_networks_own_words(tmp_path, make, shape, named):
    message = refused_by_check(make(network(), tmp_path), torch.rand(shape))
    assert message.startswith(f"the network cannot take images of shape {shape} (")
    assert re.search(named, message.split("(", 2)[2]) and "TorchScript" not in message


class Backwardless(torch.autograd.Function):
    @staticmethod
    def forward(ctx, images: Tensor) -> Tensor:
        return images.round()

    @staticmethod
    def backward(ctx, gradient: Tensor):
        raise NotImplementedError("no derivative of rounding")


class OutOfMemory(torch.autograd.Function):
    @staticmethod
    def forward(ctx, images: Tensor) -> Tensor:
        return images.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_gradient_that_raises_is_refused():
    message = refused_by_check(Function(lambda x: logits_of(Backwardless.apply(x))))
    assert "no gradient for its images (NotImplementedError: no derivative of rounding)" in message


class Rooted(nn.Module):
    """The same function of images in [0, 1] as ``model``, without a gradient at black pixels."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(torch.where(images > 0, images.sqrt(), 0) ** 2)


@pytest.mark.parametrize("size", [None, 2])
def test_a_gradient_that_is_not_finite_is_refused(size):
    model, (images, labels) = Rooted(network()).eval(), batch()
    check_model(model, images, labels, CLASSES, batch_size=size)
    images[[1, 4, 5], 2, 3, 3] = 0
    torch.testing.assert_close(model(images), network()(images))
    message = refused_by_check(model, images, batch_size=size)
    assert "cross-entropy is NaN or infinite for 3 of 9 images, and attacks cannot follow it; expected" in message
    unmoved = pgd(model, images, labels, 0.25, 3)[1] == images[1]
    assert unmoved[2, 3, 3], "this is why"
    infinite = Function(lambda x: logits_of(x).sqrt())
    images = batch()[0].clamp_min(0.1)
    check_model(infinite, images, labels, CLASSES)
    images[7] = 0
    assert "for 1 of 9 images" in refused_by_check(infinite, images)


def test_the_gradient_is_that_of_the_labels_cross_entropy():
    """Finite for the sum of the logits, and for other labels, of which no attack follows the gradient."""
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx, logits: Tensor) -> Tensor:
            return logits.clone()

        @staticmethod
        def backward(ctx, gradient: Tensor) -> Tensor:
            # The cross-entropy's gradient is negative for the label alone.
            return torch.where(gradient[:, 2:3] < 0, torch.nan, gradient)

    images, labels = batch()
    model = Function(lambda x: Broken.apply(logits_of(x)))
    assert f"for {(labels == 2).sum()} of 9 images" in refused_by_check(model, images, labels)
    check_model(model, images, torch.where(labels == 2, 1, labels), CLASSES)


def test_no_gradient_at_all_is_for_others_to_judge():
    check_model(Function(torch.no_grad()(logits_of)), *batch(), CLASSES)


def test_too_little_memory_is_not_the_networks_fault():
    def raises(images: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    def later(images: Tensor) -> Tensor:
        return raises(images) if images.max() > 200 else logits_of(images)

    for function in (raises, later, lambda x: logits_of(OutOfMemory.apply(x))):
        with pytest.raises(torch.OutOfMemoryError):
            check_model(Function(function), *batch(64), CLASSES)


class Limited(nn.Module):
    """A network for which memory suffices for ``most`` images at once."""

    def __init__(self, model: nn.Module, most: int, error: Exception | None = None):
        super().__init__()
        self.model, self.most, self.seen = model, most, []
        self.error = error or torch.OutOfMemoryError("tried to allocate 2 GiB")
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(len(images))
        if len(images) > self.most:
            raise self.error
        return self.model(images)


SCRIPTED = RuntimeError("The following operation failed in the TorchScript interpreter.\nRuntimeError: CUDA out of "
                        "memory")


@pytest.mark.parametrize("error", [None, SCRIPTED])
@pytest.mark.parametrize("most, size, seen", [
    (9, None, [9]), (9, 20, [9]), (9, 4, [4, 4, 1]), (4, None, [9, 4, 4, 1]), (4, 20, [9, 4, 4, 1]),
    (3, 6, [6, 3, 3, 3]), (2, 8, [8, 4, 2, 2, 2, 2, 1]), (1, 3, [3] + 9 * [1])])
def test_images_are_checked_in_portions_that_fit_into_memory(error, most, size, seen):
    model = Limited(network(), most, error)
    check_model(model, *batch(), CLASSES, range_is_known=True, batch_size=size)
    assert model.seen == seen
    check_model(model, *batch(), CLASSES, batch_size=size)
    assert model.seen == seen + 7 * seen, "the other ranges, too"


def test_portions_change_no_answer():
    images, labels = plain(64)
    for size in (None, 10, 1):
        message = refused_by_check(Limited(Colours(*RANGES["SVHN"]), 5), images, labels, size)
        assert "100 % of 64 images right when they are normalised with SVHN's mean" in message
        assert "for 3 of 9" in refused_by_check(Function(lambda x: logits_of(x) / (x[:, :1, 0, 0] > 0)),
                                                torch.rand(9, 3, 8, 8).index_fill_(0, torch.tensor([0, 3, 8]), 0.0),
                                                batch_size=size)
    check_model(Limited(Colours((0, 0, 0), (1, 1, 1)), 5), *plain(64), CLASSES, batch_size=10)
    assert "shape (4, 5)" in refused_by_check(Function(lambda x: logits_of(x)[1:]), batch_size=4)


def test_one_image_that_does_not_fit_into_memory():
    model = Limited(network(), 0)
    with pytest.raises(torch.OutOfMemoryError):
        check_model(model, *batch(), CLASSES, batch_size=4)
    assert model.seen == [4, 2, 1]
    assert "CUDA out of memory" in refused_by_check(Limited(network(), 0, SCRIPTED))
    failing = Limited(network(), 0, RuntimeError("another"))
    assert "another" in refused_by_check(failing) and failing.seen == [9], "no use in trying again"


@pytest.mark.parametrize("label", [-1, 5])
def test_a_label_outside_the_classes_is_refused(label):
    labels = batch()[1].clone()
    labels[3] = label
    assert f"label {label}, but there are 5 classes; expected 0 to 4" in refused_by_check(network(), labels=labels)


# -- the range of the inputs -----------------------------------------------------------------------------------------

RANGES = {
    "scaled to [0, 255]": ((0, 0, 0), (1 / 255,) * 3),
    "scaled to [-1, 1]": ((0.5,) * 3, (0.5,) * 3),
    "CIFAR-10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "CIFAR-100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "SVHN": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "ImageNet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "MNIST": ((0.1307,), (0.3081,)),
}


class Colours(nn.Module):
    """Right for plain images of the grey (k + 0.5) / 5 after (x - mean) / std, and wrong for every other input."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        greys = (torch.arange(CLASSES) + 0.5) / CLASSES
        self.colours = (greys[:, None] - torch.tensor(mean)) / torch.tensor(std)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        distances = (images.mean((2, 3))[:, None] - self.colours).abs().amax(2)
        right = F.one_hot(distances.argmin(1), CLASSES).float()
        return torch.where(distances.amin(1, keepdim=True) < 1e-3, right, right.roll(1, 1))


def plain(count: int, channels: int = 3) -> tuple[Tensor, Tensor]:
    labels = torch.arange(count) % CLASSES
    return ((labels + 0.5) / CLASSES).view(-1, 1, 1, 1).expand(-1, channels, 4, 4).clone(), labels


@pytest.mark.parametrize("name", RANGES)
def test_a_network_of_another_range_is_refused_with_the_range_named(name):
    images, labels = plain(64, channels=len(RANGES[name][0]))
    model = Colours(*RANGES[name])
    message = refused_by_check(model, images, labels)
    words = name if "scaled" in name else f"normalised with {name}'s mean and standard deviation"
    plainly = 100 * (model(images).argmax(1) == labels).double().mean().item()
    assert plainly < 50
    assert f"gets 100 % of 64 images right when they are {words}, and {plainly:.0f} % in [0, 1]; expected" in message
    check_model(model, images, labels, CLASSES, range_is_known=True)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_network_of_the_right_range_passes(channels):
    honest, shapes = Colours((0,) * channels, (1,) * channels), []
    check_model(Function(lambda x: shapes.append(x.shape[1:]) or honest(x)), *plain(64, channels), CLASSES)
    assert set(shapes) == {(channels, 4, 4)} and len(shapes) == 1 + 2 + {1: 1, 3: 4}[channels]


def test_of_several_better_ranges_the_best_is_named():
    images, labels = plain(64)

    def function(x: Tensor) -> Tensor:
        right = 40 if x.max() > 100 else 64 if -1 < x.min() < 0 else 10
        return F.one_hot(right_for(labels, right), CLASSES).float()

    message = refused_by_check(Function(function), images, labels)
    assert "100 % of 64 images right when they are scaled to [-1, 1], and 16 % in [0, 1]" in message


def test_a_network_that_refuses_other_ranges_passes():
    honest = Colours((0, 0, 0), (1, 1, 1))

    def function(images: Tensor) -> Tensor:
        if images.min() < 0 or images.max() > 1:
            raise ValueError("images outside [0, 1]")
        return honest(images).roll(1, 1)  # always wrong

    check_model(Function(function), *plain(64), CLASSES)


class Answers(nn.Module):
    """Given answers in the order of the images: ``here`` in [0, 1], ``there`` in [0, 255]."""

    def __init__(self, here: Tensor, there: Tensor, value: float = 1.0):
        super().__init__()
        self.here, self.there, self.value = here, there, value
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.value * F.one_hot(self.there if images.max() > 100 else self.here, CLASSES).float()


def right_for(labels: Tensor, first: int) -> Tensor:
    """Answers of which the first ones are right."""
    return torch.where(torch.arange(len(labels)) < first, labels, (labels + 1) % CLASSES)


@pytest.mark.parametrize("count, here, there, passes", [
    (200, 100, 126, False), (200, 100, 125, True),  # a quarter of 100 mistakes
    (200, 140, 161, False), (200, 140, 160, True),  # a tenth of the images
    (13, 0, 13, False), (13, 0, 12, True), (12, 0, 12, True),  # too few for the sign test
])
def test_the_gain_that_is_refused(count, here, there, passes):
    images, labels = batch(count)
    model = Answers(right_for(labels, here), right_for(labels, there))
    if passes:
        check_model(model, images, labels, CLASSES)
    else:
        assert f"{100 * there / count:.0f} % of {count} images" in refused_by_check(model, images, labels)


def test_a_gain_within_chance_passes():
    images, labels = batch(200)
    # A gain of 15 points, and of 30 % of the mistakes, from 170 images: a fair coin does so once in eighty times.
    here, there = right_for(labels, 100), right_for(labels.flip(0), 130).flip(0)
    assert ((there == labels) & (here != labels)).sum() == 100 and ((here == labels) & (there != labels)).sum() == 70
    check_model(Answers(here, there), images, labels, CLASSES)


@pytest.mark.parametrize("labels", [torch.zeros(200).long(), (torch.arange(200) % 4 == 3).long()])
def test_one_answer_for_all_is_no_gain_where_that_class_is_frequent(labels):
    images, _ = batch(200)
    model = Answers(torch.full_like(labels, 1 if labels.float().mean() < 0.5 else 0), torch.zeros_like(labels))
    assert (model.there == labels).float().mean() > 0.7 and (model.here == labels).float().mean() < 0.3
    check_model(model, images, labels, CLASSES)


def test_nearly_one_answer_for_all_is_no_gain_either():
    images, _ = batch(200)
    labels = (torch.arange(200) % 4 == 3).long()
    here, there = torch.ones(200).long(), torch.zeros(200).long()
    here[::20], there[::10] = 2, 3  # as often where the label is 0 as where it is 1
    check_model(Answers(here, there), images, labels, CLASSES)


def test_the_gain_by_chance_is_that_of_all_orders_of_the_labels():
    generator = torch.Generator().manual_seed(0)
    here, there, labels = torch.randint(3, (3, 6), generator=generator)
    there[2] = -1  # not finite
    gains = torch.tensor([((there == order).sum() - (here == order).sum()).item()
                          for order in map(labels.new_tensor, itertools.permutations(labels.tolist()))]).double()
    mean, deviation = gain_by_chance(here, there, labels, 3)
    assert mean == pytest.approx(gains.mean().item())
    assert deviation == pytest.approx(gains.std(correction=0).item()) and deviation > 0.5


def test_better_is_significant_only_if_the_sign_test_and_the_share_of_mistakes_agree():
    labels = torch.arange(400) % CLASSES
    here, there = right_for(labels, 0), right_for(labels, 60)
    assert significantly_better(here, right_for(labels, 200), labels, CLASSES, 1e-4)
    assert not significantly_better(here, there, labels, CLASSES, 1e-4), "15 % of the mistakes"
    assert not significantly_better(here, right_for(labels, 200), labels, CLASSES, 2.0**-250)


def test_logits_that_overflow_in_another_range_are_no_gain():
    class Overflowing(Answers):
        def forward(self, images: Tensor) -> Tensor:
            logits = super().forward(images)
            return logits.where(logits == 0, torch.inf) if images.max() > 100 else logits

    images, labels = batch(100)
    check_model(Overflowing(right_for(labels, 0), labels), images, labels, CLASSES)


@pytest.fixture(scope="module")
def digits() -> dict[str, tuple[Tensor, Tensor]]:
    data = load_dataset("digits")
    return {name: (F.avg_pool2d(part.images.float() / 255, 4), part.labels.long())
            for name, part in (("train", data.train), ("test", data.test))}


def small(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(576, 10))


@pytest.mark.parametrize("scale", [1, 255])
def test_networks_trained_on_digits(digits, scale):
    (images, labels), model = digits["train"], small(0)
    optimizer, generator = torch.optim.Adam(model.parameters(), 1e-2), torch.Generator().manual_seed(0)
    for _ in range(100):
        rows = torch.randint(len(images), (64,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(model(scale * images[rows]), labels[rows]).backward()
        optimizer.step()
    model.eval()
    images, labels = (part[:64] for part in digits["test"])
    if scale == 1:
        check_model(model, images, labels, 10)
        assert (model(images).argmax(1) == labels).float().mean() > 0.9, "the network learned nothing"
    else:
        with pytest.raises(InputError, match=r"scaled to \[0, 255\]"):
            check_model(model, images, labels, 10)


@pytest.mark.slow
def test_untrained_and_constant_networks_pass(digits):
    images, labels = digits["test"]
    for seed in range(20):
        check_model(small(seed).eval(), images, labels, 10)
        check_model(nn.Sequential(nn.Flatten(), nn.Linear(192, 10)).eval(), images, labels, 10)
    for answer in range(10):
        check_model(Function(lambda x, k=answer: F.one_hot(torch.full((len(x),), k), 10).float()), images, labels, 10)
