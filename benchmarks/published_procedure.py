"""One search iteration of Wsr-NAS as the published procedure does it, part by part, for comparisons of speed.

Written from the facts about the published code, of which nothing is copied. Its loops repeat a few equal parts, so each
part is a method, and ``repetitions`` counts how often an iteration runs it. What makes the procedure slow is kept:

- attacks compute the gradients of all weights, too, and run on batches of 64 in torch's own memory format;
- D_v is attacked at a random strength as well, for tasks that are thrown away, and its images keep a graph;
- adversarial images of D_v go through the network twice, and the clean ones of D_t and D_v once more, with a graph;
- M_a is fed by attacks on 11 batches of D_t, of which it keeps the last 600 tasks;
- every mini-batch of the VLE is predicted a second time, and nine numbers are read from the device for the log;
- the path is looked up on the device in every forward pass (``published_supernet``).

Files that the published code writes are left out, and the AN-Estimator is our A-ANE: both make the comparison gentler.
"""

from collections import deque

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.published_supernet import PublishedLossEstimator, PublishedSupernet
from wsrnas.estimators import build_estimator

BATCH, STEPS = 64, 7
STRENGTHS = (0.03, 0.06, 0.09)
LARGEST = 0.15  # of the random strengths
MEMORY_BATCHES = 11  # of D_t, attacked for M_a in an iteration
TASKS, ARCHITECTURES = 600, 100  # sizes of M_a and M_v
PASSES = 501  # of the VLE over M_v
NUMBERS = 9  # read from the device in every mini-batch of the VLE


def repetitions(attacked: int, estimated: int, images: int) -> dict[str, float]:
    """Return how often an iteration runs each part of ``PublishedSearch``; ``attack_for_tasks`` is ``attack`` on D_t.

    Without estimated strengths there is no AN-Estimator, and so no random strength either.

    Args:
        attacked: N1.
        estimated: N2.
        images: number of images of D_t, and of D_v.
    """
    full, learns = images // BATCH, estimated > 0
    visited = learns * (full + MEMORY_BATCHES)  # batches with tasks and estimates; the last, smaller one is dropped
    return {"train": images / BATCH, "attack": full * (attacked + learns),
            "attack_for_tasks": learns * MEMORY_BATCHES * (attacked + 1), "tasks": visited, "estimate": visited,
            "judge": full * (attacked + estimated), "clean": 2 * images / BATCH,
            "train_estimator": learns, "train_losses": 1, "move": 1}


class PublishedSearch:
    """The state of the published procedure, and its parts.

    Args:
        channels: C of the supernet.
        layers: number of cells.
        classes: K.
        device: device of all of it.
        seed: seed of weights and paths.
    """

    def __init__(self, channels: int, layers: int, classes: int, device: torch.device, seed: int = 0) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.supernet = PublishedSupernet(channels, layers, classes).to(device)
            self.estimator = build_estimator("A-ANE").to(device)
            self.losses = PublishedLossEstimator(1 + 2 * len(STRENGTHS)).to(device)
            gates = torch.rand(ARCHITECTURES, 28, 8)
            measured = 2 * torch.rand(ARCHITECTURES, 1 + 2 * len(STRENGTHS))
        self.supernet.use(device)
        self.memory = gates.to(device), measured.to(device)
        self.tasks: deque[tuple[Tensor, ...]] = deque(maxlen=TASKS)
        self.optimizer = torch.optim.SGD(self.supernet.parameters(), 0.1, 0.9, weight_decay=3e-4)
        self.estimator_optimizer = torch.optim.AdamW(self.estimator.parameters(), 5e-4, weight_decay=1e-4)
        betas = (0.5, 0.999)
        self.loss_optimizer = torch.optim.Adam(self.losses.parameters(), 1e-3, betas, weight_decay=1e-3)
        self.architecture_optimizer = torch.optim.Adam(self.supernet.alphas, 3e-5, betas)

    def attack(self, images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
        """Return PGD's images at one strength; the gradients of the weights add up (B2, B3)."""
        self.supernet.train()
        adversarial = images
        for _ in range(STEPS):
            adversarial = adversarial.detach().requires_grad_(True)
            F.cross_entropy(self.supernet(adversarial), labels).backward()
            assert adversarial.grad is not None
            moved = adversarial + 2.5 * epsilon / STEPS * adversarial.grad.sign()
            adversarial = (images + (moved - images).clamp(-epsilon, epsilon)).clamp(0, 1)
        return adversarial

    def train(self, images: Tensor, labels: Tensor) -> None:
        """Train the path on one batch of D_t."""
        self.optimizer.zero_grad()
        adversarial = self.attack(images, labels, STRENGTHS[0]).detach()
        F.cross_entropy(self.supernet(adversarial), labels).backward()
        nn.utils.clip_grad_norm_(self.supernet.parameters(), 5)
        self.optimizer.step()

    def make_tasks(self, images: Tensor, noises: Tensor, strengths: Tensor) -> None:
        """Append the leave-one-out tasks of noises (B, S + 1, C, H, W) at their strengths (S + 1,) to M_a (B5, B11)."""
        strengths, order = strengths.sort()
        noises = noises[:, order]
        images = images.clone().requires_grad_(True)
        for hidden in range(len(strengths)):
            kept = [other for other in range(len(strengths)) if other != hidden]
            for row in range(len(images)):
                self.tasks.append((images[row], noises[row, kept], strengths[kept], strengths[hidden:hidden + 1],
                                   noises[row, hidden]))

    def estimate(self, images: Tensor, noises: Tensor, sources: Tensor, targets: Tensor) -> Tensor:
        """Return images (B, T, C, H, W) with estimated noise; the graph is built although nothing needs it."""
        return images.unsqueeze(1) + self.estimator(noises, images, sources, targets)

    def judge(self, images: Tensor, labels: Tensor) -> tuple[float, float]:
        """Return accuracy and loss of adversarial images, from a forward pass each (B8)."""
        accuracy = (self.supernet(images).argmax(1) == labels).float().mean()
        return accuracy.item(), F.cross_entropy(self.supernet(images), labels).item()

    def clean(self, images: Tensor, labels: Tensor) -> float:
        """Return the loss of clean images (B9)."""
        return F.cross_entropy(self.supernet(images), labels).item()

    def train_estimator(self) -> None:
        """Train the AN-Estimator for one pass over M_a; the gradients reach the images, too (B11)."""
        for begin in range(0, len(self.tasks) - BATCH + 1, BATCH):
            rows = [self.tasks[place] for place in range(begin, begin + BATCH)]
            images, noises, sources, targets, hidden = map(torch.stack, zip(*rows, strict=True))
            estimate = self.estimator.unprojected(noises, images, sources, targets).squeeze(1)
            self.estimator_optimizer.zero_grad()
            F.mse_loss(estimate, hidden).backward()
            self.estimator_optimizer.step()

    def train_losses(self, passes: int = PASSES) -> None:
        """Train the VLE on M_v; every mini-batch is predicted again for the log (B22)."""
        gates, measured = self.memory
        for _ in range(passes):
            order = torch.randperm(len(gates), device=gates.device)
            for rows in order.split(BATCH):
                noisy = gates[rows] + 0.01 * torch.randn_like(gates[rows])
                error = (self.losses(noisy) - measured[rows]).square().mean()
                self.loss_optimizer.zero_grad()
                error.backward()
                self.loss_optimizer.step()
                shown = (self.losses(noisy) - measured[rows]).square().mean(0)
                _ = [shown[place % len(shown)].item() for place in range(NUMBERS)]

    def move(self) -> None:
        """Move A by one step of Adam down the squares of the predicted losses."""
        leaves = [alpha.requires_grad_(True) for alpha in self.supernet.alphas]
        gates = torch.cat([self.supernet.weights(kind) for kind in range(2)]).unsqueeze(0)
        self.architecture_optimizer.zero_grad()
        self.losses(gates).square().sum().backward()
        self.architecture_optimizer.step()
        for alpha in leaves:
            alpha.requires_grad_(False)
