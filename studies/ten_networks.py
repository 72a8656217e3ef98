"""Train ten small networks on real images for studies of attacks: plain, residual and smooth, in several ways.

    python -m studies.ten_networks --data CIFAR --out networks
    python -m studies.ten_networks --data CIFAR --out networks --seed 1

CIFAR is a folder with ``train/<class>/*`` and ``test/<class>/*``. A few minutes on one core. A network is stored when
it is done. Another seed than 0 gives fresh ones, for settings that were chosen with those of seed 0: other weights,
other training images, two more architectures, and test images that seed 0 does not show (of the same --images).
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsrnas.attacks import is_correct, pgd
from wsrnas.data.datasets import load_dataset
from wsrnas.data.image_set import ImageSet
from wsrnas.data.splits import balanced_subset
from wsrnas.runtime import checkpoint
from wsrnas.runtime.config import Parser, require, within
from wsrnas.runtime.program import run_program

TRAIN_IMAGES, EPOCHS, BATCH, STEPS = 4000, 6, 50, 2


class Residual(nn.Module):
    """Two convolutions with a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels),
                                  nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                                  nn.BatchNorm2d(channels))

    def forward(self, features: Tensor) -> Tensor:
        """Return features (B, C, H, W) of the same shape."""
        return F.relu(features + self.body(features))


def plain(width: int) -> nn.Module:
    """Return three convolutions and a classifier."""
    return nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.ReLU(), nn.Conv2d(width, 2 * width, 3, 2, 1), nn.ReLU(),
                         nn.Conv2d(2 * width, 4 * width, 3, 2, 1), nn.ReLU(), nn.Flatten(),
                         nn.Linear(64 * width, 10))


def residual(width: int) -> nn.Module:
    """Return a small residual network with BatchNorm."""
    return nn.Sequential(nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(), Residual(width),
                         nn.Conv2d(width, 2 * width, 3, 2, 1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU(),
                         Residual(2 * width), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8 * width, 10))


def smooth(width: int) -> nn.Module:
    """Return a network with smooth activations and pooling."""
    return nn.Sequential(nn.Conv2d(3, width, 3, 1, 1), nn.SiLU(), nn.AvgPool2d(2), nn.Conv2d(width, 2 * width, 3, 1, 1),
                         nn.SiLU(), nn.AvgPool2d(2), nn.Conv2d(2 * width, 2 * width, 3, 2, 1), nn.SiLU(), nn.Flatten(),
                         nn.Linear(32 * width, 10))


class Mixing(nn.Module):
    """Attention over patches, then a perceptron for each patch; both with a shortcut.

    Args:
        width: number of features W of a patch.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.perceptron = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, patches: Tensor) -> Tensor:
        """Return patches (B, P, W) of the same shape."""
        normal = self.before(patches)
        patches = patches + self.attention(normal, normal, normal, need_weights=False)[0]
        return patches + self.perceptron(self.between(patches))


class Patches(nn.Module):
    """A transformer of 4x4 pixels to a patch.

    Args:
        width: number of features of a patch.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed, self.places = nn.Conv2d(3, width, 4, 4), nn.Parameter(torch.zeros(64, width))
        self.body, self.last = nn.Sequential(Mixing(width), Mixing(width)), nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, 10)."""
        patches = self.embed(images).flatten(2).transpose(1, 2) + self.places
        return self.last(self.body(patches).mean(1))


def pooled(width: int) -> nn.Module:
    """Return a network with GroupNorm, max pooling and leaky units."""
    def layer(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, 1, 1), nn.GroupNorm(4, outputs), nn.LeakyReLU(0.1), nn.MaxPool2d(2)]
    return nn.Sequential(*layer(3, width), *layer(width, 2 * width), *layer(2 * width, 2 * width), nn.Flatten(),
                         nn.Linear(32 * width, 10))


@dataclass(frozen=True)
class Recipe:
    """How one network is built and trained.

    Args:
        build: function that returns the untrained network.
        norm: norm of the noise in training.
        epsilon: strength of the noise in training; 0: none.
        trades: weight of TRADES' second term; 0: cross-entropy on the attacked images.
        digits: whether the images are the embedded digits.
    """

    build: Callable[[], nn.Module]
    norm: str = "linf"
    epsilon: float = 0.0
    trades: float = 0.0
    digits: bool = False


NETWORKS = {
    "plain, PGD 8/255": Recipe(lambda: plain(16), epsilon=8 / 255),
    "plain, PGD 4/255": Recipe(lambda: plain(16), epsilon=4 / 255),
    "plain, no noise": Recipe(lambda: plain(16)),
    "residual, PGD 8/255": Recipe(lambda: residual(8), epsilon=8 / 255),
    "residual, TRADES 8/255": Recipe(lambda: residual(8), epsilon=8 / 255, trades=6.0),
    "residual, PGD L2 0.5": Recipe(lambda: residual(8), "l2", 0.5),
    "residual, no noise": Recipe(lambda: residual(8)),
    "smooth, PGD 8/255": Recipe(lambda: smooth(8), epsilon=8 / 255),
    "smooth, PGD L2 1": Recipe(lambda: smooth(8), "l2", 1.0),
    "digits, PGD 16/255": Recipe(lambda: plain(8), epsilon=16 / 255, digits=True),
}

OTHERS = {
    "pooled, PGD 8/255": Recipe(lambda: pooled(8), epsilon=8 / 255),
    "patches, PGD 4/255": Recipe(lambda: Patches(32), epsilon=4 / 255),
}


def networks_of(seed: int) -> dict[str, Recipe]:
    """Return the networks of a seed: the ten, and for any but seed 0 two of other architectures."""
    return {**NETWORKS, **OTHERS} if seed else NETWORKS


def train(recipe: Recipe, data: ImageSet, seed: int = 0) -> nn.Module:
    """Train one network by Adam with a one-cycle schedule."""
    torch.manual_seed(seed)
    model = recipe.build()
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=EPOCHS * -(-len(data) // BATCH))
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(data)).split(BATCH):
            images, labels = data.images[rows].float() / 255, data.labels[rows]
            flipped = images if recipe.digits else torch.where(torch.rand(len(rows), 1, 1, 1) < 0.5, images.flip(3),
                                                               images)
            noisy = flipped
            if recipe.epsilon:
                noisy = pgd(model, flipped, labels, recipe.epsilon, STEPS, recipe.epsilon * 0.75, True, recipe.norm)
            model.train()
            loss = F.cross_entropy(model(noisy), labels)
            if recipe.trades:
                clean, attacked = model(flipped), model(noisy)
                distance = F.kl_div(F.log_softmax(attacked, 1), F.log_softmax(clean, 1), reduction="batchmean",
                                    log_target=True)
                loss = F.cross_entropy(clean, labels) + recipe.trades * distance
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def images_of(recipe: Recipe, data: str, test: int, seed: int = 0) -> tuple[ImageSet, ImageSet]:
    """Return the training images, and a class-balanced choice of test images.

    Args:
        recipe: the network's.
        data: folder of CIFAR-10.
        test: number of test images; 0: all.
        seed: seed of both choices; another than 0 leaves out the test images of seed 0 for the same ``test``.

    Raises:
        InputError: the folder's images are not 32 x 32 pixels in colour, of ten classes.
    """
    name, limit = ("digits", 0) if recipe.digits else ("folder", TRAIN_IMAGES)
    shown = load_dataset(name, data, max_train=limit, max_test=test)
    require(recipe.digits or (shown.image_shape == (3, 32, 32) and shown.num_classes == 10), f"{data} holds "
            f"{shown.num_classes} classes of images {shown.image_shape}; expected CIFAR-10, 10 classes of (3, 32, 32)")
    if not seed:
        return shown.train, shown.test
    loaded = load_dataset(name, data, max_train=limit, seed=seed)
    known = {image.numpy().tobytes() for image in shown.test.images.contiguous()}
    fresh = torch.tensor([image.numpy().tobytes() not in known for image in loaded.test.images.contiguous()])
    rest = loaded.test.subset(fresh.nonzero().flatten())
    return loaded.train, rest.subset(balanced_subset(rest.labels, test, seed, "test images", 10))


def network(name: str, data: str, folder: Path, seed: int = 0) -> nn.Module:
    """Return one network, trained now if it is not in the folder.

    Raises:
        InputError: the folder's was trained on other images, or its file is damaged.
    """
    every = networks_of(seed)
    path = folder / (f"{list(every).index(name)}" + f"-seed{seed}" * bool(seed) + ".pt")
    images = images_of(every[name], data, 100, seed)[0]
    if path.exists():
        stored = checkpoint.read(path)
        require(stored.get("trained on") == images.fingerprint(), f"{path} is no network that was trained on the "
                f"images of {data}; expected another folder of networks, or no such file")
        model = every[name].build().eval()
        model.load_state_dict(stored["weights"])
        return model
    model = train(every[name], images, seed)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.save(path, {"trained on": images.fingerprint(), "weights": model.state_dict()})
    return model


def main() -> None:
    """Train what is missing."""
    parser = Parser(prog="studies.ten_networks", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of CIFAR-10 with train/<class>/* and test/<class>/*")
    parser.add_argument("--out", type=Path, required=True, help="folder of the networks")
    parser.add_argument("--seed", type=within(int, 0), default=0, help="seed of training and images (default: 0)")
    arguments = parser.parse_args()
    for name, recipe in networks_of(arguments.seed).items():
        model = network(name, arguments.data, arguments.out, arguments.seed)
        test = load_dataset("digits" if recipe.digits else "folder", arguments.data, max_train=10, max_test=1000).test
        with torch.no_grad():
            right = is_correct(model(test.images.float() / 255), test.labels)
        print(f"{name}: {right.double().mean():.1%} of {len(test)} test images", flush=True)


if __name__ == "__main__":
    run_program(main)
