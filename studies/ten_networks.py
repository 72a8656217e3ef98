"""Train ten small networks on real images for studies of attacks: plain, residual and smooth, in several ways.

    python -m studies.ten_networks --data CIFAR --out networks

CIFAR is a folder with ``train/<class>/*`` and ``test/<class>/*``. A few minutes on one core. A network is stored when
it is done; ``networks`` returns those of a folder.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsrnas.attacks import pgd
from wsrnas.data.datasets import load_dataset
from wsrnas.data.image_set import ImageSet
from wsrnas.runtime.config import Parser
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


def images_of(recipe: Recipe, data: str, test: int) -> tuple[ImageSet, ImageSet]:
    """Return the training images, and a class-balanced choice of test images."""
    name = "digits" if recipe.digits else "folder"
    loaded = load_dataset(name, data, max_train=0 if recipe.digits else TRAIN_IMAGES, max_test=test)
    return loaded.train, loaded.test


def network(name: str, data: str, folder: Path) -> nn.Module:
    """Return one network, trained now if it is not in the folder."""
    path = folder / f"{list(NETWORKS).index(name)}.pt"
    if path.exists():
        model = NETWORKS[name].build().eval()
        model.load_state_dict(torch.load(path, weights_only=True))
        return model
    model = train(NETWORKS[name], images_of(NETWORKS[name], data, 100)[0])
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), path)
    return model


def main() -> None:
    """Train what is missing."""
    parser = Parser(prog="studies.ten_networks", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of CIFAR-10 with train/<class>/* and test/<class>/*")
    parser.add_argument("--out", type=Path, required=True, help="folder of the networks")
    arguments = parser.parse_args()
    for name in NETWORKS:
        model = network(name, arguments.data, arguments.out)
        test = images_of(NETWORKS[name], arguments.data, 1000 if not NETWORKS[name].digits else 0)[1]
        with torch.no_grad():
            right = model(test.images.float() / 255).argmax(1) == test.labels
        print(f"{name}: {right.double().mean():.1%} of {len(test)} test images", flush=True)


if __name__ == "__main__":
    run_program(main)
