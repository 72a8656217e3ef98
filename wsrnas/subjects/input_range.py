"""Whether a network expects images in another range than [0, 1]."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from wsrnas.evaluation.intervals import sign_test
from wsrnas.network import IMAGENET_MEAN, IMAGENET_STD
from wsrnas.runtime.errors import InputError
from wsrnas.subjects.portions import in_portions

# A network is refused where in another range than [0, 1] it gets more right by this share of the images, by this share
# of its mistakes (untrained networks, right by accident, differ by less), and by more than chance: both one-sided tests
# of `significantly_better` below this level, divided by the number of ranges tried.
GAIN = 0.10
MISTAKES_MENDED = 0.25
SIGNIFICANCE = 1e-3
# Mean and standard deviation of the channels, as commonly used for normalisation.
STATISTICS = {
    "CIFAR-10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "CIFAR-100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "SVHN": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "ImageNet": (IMAGENET_MEAN, IMAGENET_STD),
    "MNIST": ((0.1307,), (0.3081,)),
}


def refuse_other_range(model: nn.Module, images: Tensor, labels: Tensor, logits: Tensor,
                       batch_size: int | None) -> None:
    """Refuse a network that is right far more often when the images have another range.

    Args:
        model: The network in evaluation mode.
        images: (B, C, H, W) in [0, 1].
        labels: (B,).
        logits: (B, K) of these images.
        batch_size: Images at a time, as for ``in_portions``.

    Raises:
        InputError: Naming the range in which the network is right most often.
    """
    here, ranges = logits.argmax(1), _other_ranges(images)
    found = []
    for name, (center, scale) in ranges.items():
        def answer(pixels: Tensor, _: Tensor, center: Tensor = center, scale: Tensor = scale) -> Tensor:
            return model((pixels - center) / scale)

        try:
            with torch.no_grad():
                other = torch.cat(in_portions(answer, images, labels, batch_size))
        except torch.OutOfMemoryError:
            raise
        except Exception:  # a network may refuse what is outside [0, 1], and is right then
            continue
        there = torch.where(other.isfinite().all(1), other.argmax(1), -1)
        if significantly_better(here, there, labels, logits.shape[1], SIGNIFICANCE / len(ranges)):
            found.append(((there == labels).double().mean().item(), name))
    if found:
        best, name = max(found, key=lambda item: item[0])
        raise InputError(f"the network gets {100 * best:.0f} % of {len(images)} images right when they are {name}, and "
                         f"{100 * (here == labels).double().mean().item():.0f} % in [0, 1]; expected a network that "
                         "takes [0, 1]: make this its first layer")


def _other_ranges(images: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Return center and scale, (C, 1, 1) or (1, 1, 1), of other conventions: they expect (image - center) / scale."""
    ranges: dict[str, tuple[Any, Any]] = {"scaled to [0, 255]": (0.0, 1 / 255), "scaled to [-1, 1]": (0.5, 0.5)}
    for name, (mean, std) in STATISTICS.items():
        if len(mean) == images.shape[1]:
            ranges[f"normalised with {name}'s mean and standard deviation"] = (mean, std)
    return {name: (images.new_tensor(center).view(-1, 1, 1), images.new_tensor(scale).view(-1, 1, 1))
            for name, (center, scale) in ranges.items()}


def significantly_better(here: Tensor, there: Tensor, labels: Tensor, classes: int, level: float) -> bool:
    """Return whether the predictions ``there`` (B,) are right far more often than ``here`` (B,), and not by chance.

    There are two tests. The first is the sign test over the images that exactly one of the two gets right. The second
    is a permutation test (Hoeffding 1951, its normal approximation) of the gain against labels in random order: a
    network that knows nothing may answer another class in another range, which is a gain where that class is more
    frequent among the images.
    """
    right, wrong = (there == labels) & (here != labels), (there != labels) & (here == labels)
    wins, losses = int(right.sum().item()), int(wrong.sum().item())
    gain = wins - losses
    mistakes = (here != labels).sum().item()
    if gain <= max(GAIN * len(labels), MISTAKES_MENDED * mistakes):
        return False
    mean, deviation = gain_by_chance(here, there, labels, classes)
    score = (gain - mean) / deviation if deviation > 1e-9 else 0.0
    return sign_test(wins, losses) < level and math.erfc(score / math.sqrt(2)) / 2 < level


def gain_by_chance(here: Tensor, there: Tensor, labels: Tensor, classes: int) -> tuple[float, float]:
    """Return mean and standard deviation, over all orders of the labels, of how many more images ``there`` gets right.

    Args:
        here: (B,) predictions.
        there: (B,) other predictions.
        labels: (B,).
        classes: The number of classes.
    """
    every = torch.arange(classes, device=labels.device)
    # What image i would add to the gain if its label were k.
    gains = (there[:, None] == every).double() - (here[:, None] == every).double()
    frequency = (labels[:, None] == every).double().mean(0)
    by_image = gains @ frequency
    residual = gains - by_image[:, None] - gains.mean(0) + by_image.mean()
    count = len(labels)
    variance = count / max(count - 1, 1) * (residual.square() @ frequency).sum().item()
    return count * by_image.mean().item(), math.sqrt(variance)
