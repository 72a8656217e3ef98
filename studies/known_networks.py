"""Networks that are known to be broken, and sound ones, at the door of an evaluation and under its honesty checks.

    python -m studies.known_networks --images 200 --checks full

The broken ones look robust and are not, or give numbers that mean nothing. All are small networks on digits of 8x8
pixels, trained here in seconds; most broken ones are the first sound one with one thing done to it. The table says what
found out each of them: the door, which refuses it before anything is measured, or the checks that failed. No sound
network may be refused or fail a check.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsrnas.data.datasets import load_dataset
from wsrnas.data.image_set import DataSet, ImageSet
from wsrnas.evaluation.honesty import CHECKS
from wsrnas.evaluation.measurement import Evaluation
from wsrnas.evaluation.protocols import custom_attacks
from wsrnas.evaluation.results import measure
from wsrnas.runtime.config import Parser, within
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.markdown import markdown_table
from wsrnas.runtime.program import run_program
from wsrnas.subjects.fitting import fitted
from wsrnas.subjects.images import EvaluationImages, images_of
from wsrnas.subjects.model_source import make_source

STEPS = 80  # of training
DOOR = "refused at the door"


class Around(nn.Module):
    """A network with something before it and something behind it."""

    def __init__(self, network: nn.Module, before: Callable[[Tensor], Tensor] = lambda x: x,
                 behind: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        self.network, self.before, self.behind = network, before, behind
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K)."""
        return self.behind(self.network(self.before(images)))


class WinnersTakeAll(nn.Module):
    """Keep the largest features of each image and set the others to 0 (k-WTA; Xiao et al. 2020)."""

    def forward(self, features: Tensor) -> Tensor:
        """Return features (B, F), nearly all of them 0."""
        least = features.topk(max(1, features.shape[1] // 20), 1).values[:, -1:]
        return features * (features >= least)


class Rounded(nn.Module):
    """Round hidden features: steps without slopes."""

    def forward(self, features: Tensor) -> Tensor:
        """Return features (B, F) on a grid."""
        return (features * 4).round() / 4


class Sigmoid(nn.Module):
    """A sigmoid of a slope that can be changed."""

    slope = 4.0

    def forward(self, features: Tensor) -> Tensor:
        """Return features in [0, 1]."""
        return torch.sigmoid(self.slope * features)


class Unfeeling(nn.Module):
    """Run a network under ``torch.no_grad``."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K)."""
        return self.network(images)


def misled(logits: Tensor) -> Tensor:
    """Return the logits, with the gradient of other ones."""
    return logits.detach() - 1e-3 * (logits - logits.detach())


def rooted(images: Tensor) -> Tensor:
    """Return the images; at black pixels, their gradient is no number."""
    return torch.where(images > 0, images.sqrt(), 0) ** 2


def cleaned(images: Tensor) -> Tensor:
    """Return images in two colours where noise shows in their outer columns; there, nothing has a slope."""
    noisy = images[..., [0, -1]].mean((1, 2, 3), keepdim=True) > 0.07
    return torch.where(noisy, (images > 0.5).to(images), images)


def perceptron(activation: Callable[[], nn.Module] = nn.ReLU, width: int = 48) -> nn.Module:
    """Return a network with one hidden layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(192, width), activation(),
                         nn.Linear(width, 10))


def convolutional(*between: nn.Module) -> nn.Module:
    """Return a network of one convolution, the given layers, and a linear layer."""
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *between, nn.AdaptiveAvgPool2d(4),
                         nn.Flatten(), nn.Linear(128, 10))


class Residual(nn.Module):
    """A convolution whose input is added to its output."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the same shape."""
        return features + F.relu(self.convolution(features))


def trained(model: nn.Module, data: DataSet, noise: float = 0.1) -> nn.Module:
    """Train a network on noisy digits, and return it in evaluation mode."""
    torch.manual_seed(0)
    for layer in model.modules():
        if (reset := getattr(layer, "reset_parameters", None)) is not None:
            reset()
    images, labels = data.train.images[::3].float() / 255, data.train.labels[::3]
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(STEPS):
        optimizer.zero_grad()
        F.cross_entropy(model(images + noise * torch.randn_like(images)), labels).backward()
        optimizer.step()
    return model.eval()


def steepened(model: nn.Module) -> nn.Module:
    """Make the sigmoids of a network so steep that their gradient is 0 in float32."""
    for layer in model.modules():
        if isinstance(layer, Sigmoid):
            layer.slope = 1e5
    return model


@dataclass(frozen=True)
class Known:
    """A network of the table.

    Args:
        what: what it is.
        build: function from the sound network and the data set to it.
        sound: whether it is sound.
    """

    what: str
    build: Callable[[nn.Module, DataSet], nn.Module]
    sound: bool = False


BROKEN = (
    Known("two layers of k-winners-take-all", lambda base, data: trained(nn.Sequential(
        nn.Flatten(), nn.Linear(192, 400), WinnersTakeAll(), nn.Linear(400, 400), WinnersTakeAll(), nn.Linear(400, 10)),
        data, 0)),
    Known("images rounded to 8 levels", lambda base, data: Around(base, lambda x: (x * 8).round() / 8)),
    Known("hidden features rounded", lambda base, data: nn.Sequential(
        *list(base.children())[:-1], Rounded(), list(base.children())[-1]).eval()),
    Known("logits × 10,000: the softmax saturates", lambda base, data: Around(base, behind=lambda z: 1e4 * z)),
    Known("noise inside", lambda base, data: Around(base, lambda x: x + 0.3 * torch.randn_like(x))),
    Known("dropout that stays on", lambda base, data: Around(base, lambda x: F.dropout(x, 0.3, training=True))),
    Known("images minus the mean of their batch", lambda base, data: Around(
        base, lambda x: x - x.mean(0, keepdim=True))),
    Known("BatchNorm in training mode", lambda base, data: trained(convolutional(nn.BatchNorm2d(8), nn.ReLU()),
                                                                   data).train()),
    Known("BatchNorm of the batch by a function", lambda base, data: Around(base, lambda x: F.batch_norm(
        x, None, None, training=True))),
    Known("images detached", lambda base, data: Around(base, lambda x: x.detach())),
    Known("a forward pass under torch.no_grad", lambda base, data: Unfeeling(base).eval()),
    Known("a gradient that is NaN at black pixels", lambda base, data: Around(base, rooted)),
    Known("noise removed where it is strong", lambda base, data: Around(trained(perceptron(), data, 0.05), cleaned)),
    Known("the gradient of other logits", lambda base, data: Around(base, behind=misled)),
    Known("sigmoids that became steps after training", lambda base, data: steepened(
        trained(perceptron(Sigmoid), data))),
    Known("images in [0, 255] expected", lambda base, data: Around(base, lambda x: x / 255)),
)


SOUND = (
    Known("a perceptron", lambda base, data: base, True),
    Known("tanh instead of ReLU", lambda base, data: trained(perceptron(nn.Tanh), data), True),
    Known("GELU instead of ReLU", lambda base, data: trained(perceptron(nn.GELU), data), True),
    Known("no hidden layer", lambda base, data: trained(nn.Sequential(
        nn.Flatten(), nn.Linear(192, 10)), data), True),
    Known("a convolution", lambda base, data: trained(convolutional(nn.ReLU()), data), True),
    Known("a convolution with BatchNorm", lambda base, data: trained(convolutional(nn.BatchNorm2d(8), nn.ReLU()), data),
          True),
    Known("a residual convolution", lambda base, data: trained(convolutional(nn.ReLU(), Residual()), data), True),
    Known("max pooling", lambda base, data: trained(convolutional(nn.ReLU(), nn.MaxPool2d(2)), data), True),
    Known("trained with strong noise", lambda base, data: trained(perceptron(), data, 0.4), True),
    Known("trained without noise", lambda base, data: trained(perceptron(), data, 0), True),
    Known("images normalised inside", lambda base, data: trained(Around(perceptron(), lambda x: (x - 0.4) / 0.3), data),
          True),
    Known("logits × 3", lambda base, data: Around(base, behind=lambda z: 3 * z), True),
    Known("logits in bfloat16", lambda base, data: Around(base, behind=lambda z: z.bfloat16()), True),
)


def small_digits(count: int) -> DataSet:
    """Return the digits of their own 8x8 pixels, with that many test images."""
    data = load_dataset("digits", max_test=count)
    step = data.image_shape[1] // 8  # the data set enlarges them
    train, test = (ImageSet(part.images[:, :, ::step, ::step].contiguous(memory_format=torch.channels_last),
                            part.labels) for part in (data.train, data.test))
    return replace(data, train=train, test=test)


def found_out(known: Known, base: nn.Module, data: DataSet, images: EvaluationImages, level: str, count: int
              ) -> list[str]:
    """Return what the evaluation says against a network: the door's sentence, or the checks that failed.

    Args:
        known: the network.
        base: the sound network that others are made of.
        data: the digits.
        images: test images.
        level: key of ``CHECK_LEVELS``.
        count: number of images that the checks run on.
    """
    try:
        source = fitted(make_source(known.build(base, data), known.what, known.what), images, torch.device("cpu"))
    except InputError as error:
        return [f"{DOOR}: {str(error).removeprefix(known.what).lstrip(': ').split(';')[0]}"]
    evaluation = Evaluation(source.model, images.loader, images.num_classes, batch_size=len(images.loader.image_set),
                            log=lambda line: None, has_gradient=source.has_gradient)
    attacks = custom_attacks(["pgd-20"] if source.has_gradient else ["noise"], [0.03, 0.06, 0.1], [])
    failed = measure(evaluation, attacks, count, level=level)["failed_checks"]
    return failed if source.has_gradient else ["white-box attacks are refused", *failed]


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = Parser(prog="studies.known_networks", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=within(int, 1), default=200, help="test images")
    parser.add_argument("--checks", default="full", choices=("quick", "full"))
    arguments = parser.parse_args(argv)
    data = small_digits(arguments.images)
    images, base = images_of(data, arguments.images, 0, torch.device("cpu")), trained(perceptron(), data)
    rows = []
    for known in (*BROKEN, *SOUND):
        found = found_out(known, base, data, images, arguments.checks, arguments.images)
        rows.append((known.what, "sound" if known.sound else "broken", "; ".join(found) or "nothing"))
        print(rows[-1], flush=True)
    print(f"{len(CHECKS)} checks ({arguments.checks}) on {len(data.test)} digits\n")
    print(markdown_table(("network", "known as", "found"), rows))


if __name__ == "__main__":
    run_program(main)
