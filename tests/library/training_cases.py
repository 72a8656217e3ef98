"""Networks, batches and trainers for the tests of training."""

import copy
from contextlib import nullcontext

import torch
from torch import Tensor, nn

import genotypes
from wsrnas.network import NetworkCIFAR
from wsrnas.runtime.distributed import World
from wsrnas.runtime.seeding import BatchNoise, generator
from wsrnas.training.losses import LOSSES, LossSettings
from wsrnas.training.schedules import Schedule
from wsrnas.training.trainer import Refinements, Trainer

SHAPE = (3, 8, 8)
WORLD = World()
SETTINGS = LossSettings(0.05, 2, trades_beta=2.0, strengths=(0.02, 0.06))
RATES = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}


def network(norm: bool = True, seed: int = 0, classes: int = 4) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6) if norm else nn.Identity(), nn.Tanh(),
                         nn.AvgPool2d(4), nn.Flatten(), nn.Linear(24, classes)).double()


def cells(seed: int = 0) -> nn.Module:
    """A network that has all that the programs' networks have."""
    torch.manual_seed(seed)
    return NetworkCIFAR(genotypes.load("WsrNet_Basic"), 2, 2, 4)


def batch(count: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    images = torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return images, torch.arange(count) % 4


def float_batch(count: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    images, labels = batch(count, seed)
    return images.float(), labels


def trainer_of(model: nn.Module, loss: str = "pgd", settings: LossSettings = SETTINGS, seed: int = 0,
               schedule: Schedule | None = None, rates: dict = RATES, **refinements) -> Trainer:
    return Trainer(model, LOSSES[loss], settings, torch.optim.SGD(model.parameters(), **rates), WORLD, seed, schedule,
                   Refinements(**refinements))


def noise_of(step: int, seed: int = 0) -> BatchNoise:
    """What a step with this number draws from."""
    return BatchNoise(generator(seed, "attack", step))


def weights(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


class HandMade:
    """The same training in elementary operations: attack, perturbation, gradient, clipping, SGD with momentum."""

    def __init__(self, model: nn.Module, loss: str = "pgd", settings: LossSettings = SETTINGS, gamma: float = 0.0,
                 awp_from: int = 0, clip: float = 0.0, bfloat16: bool = False) -> None:
        self.model, self.loss, self.settings = copy.deepcopy(model).train(), LOSSES[loss], settings
        self.gamma, self.awp_from, self.clip, self.bfloat16 = gamma, awp_from, clip, bfloat16
        self.momenta = [torch.zeros_like(p) for p in self.model.parameters()]
        self.steps = 0

    def autocast(self):
        """Autocast that keeps no bfloat16 copies of the weights."""
        return torch.autocast("cpu", torch.bfloat16, cache_enabled=False) if self.bfloat16 else nullcontext()

    def gradients(self, model: nn.Module, *arguments: Tensor) -> list[Tensor]:
        with self.autocast():
            loss, _ = self.loss.objective(model, *arguments, self.settings)
        return torch.autograd.grad(loss, list(model.parameters()))

    def step(self, images: Tensor, labels: Tensor) -> None:
        with self.autocast():
            adversarial = self.loss.attack(self.model, images, labels, self.settings, noise_of(self.steps))
        parameters, kept = list(self.model.parameters()), weights(self.model)
        with torch.no_grad():
            if self.gamma and self.steps >= self.awp_from:
                gradients = self.gradients_of_a_copy(images, adversarial, labels)
                for weight, g in zip(parameters, gradients, strict=True):
                    if weight.ndim > 1:
                        weight += self.gamma * weight.norm() / g.norm() * g
        gradients = self.gradients(self.model, images, adversarial, labels)
        scale = 1.0
        if self.clip:
            norm = torch.cat([g.flatten() for g in gradients]).norm().item()
            scale = min(1.0, self.clip / norm)
        with torch.no_grad():
            for number, (weight, before, g) in enumerate(zip(parameters, kept, gradients, strict=True)):
                g = scale * g + RATES["weight_decay"] * before
                self.momenta[number] = g if self.steps == 0 else RATES["momentum"] * self.momenta[number] + g
                weight.copy_(before - RATES["lr"] * self.momenta[number])
        self.steps += 1

    @torch.enable_grad()
    def gradients_of_a_copy(self, *arguments: Tensor) -> list[Tensor]:
        """Of a copy, whose running statistics may move."""
        return self.gradients(copy.deepcopy(self.model), *arguments)


def assert_equal_training(trainer: Trainer, hand: HandMade, batches: list[tuple[Tensor, Tensor]], **tolerance) -> None:
    tolerance = tolerance or {"rtol": 1e-9, "atol": 1e-12}
    before = weights(trainer.network)
    for images, labels in batches:
        trainer.step(images, labels)
        hand.step(images, labels)
        torch.testing.assert_close(trainer.network.state_dict(), hand.model.state_dict(), **tolerance)
    assert all((p - b).abs().max() > 1e-4 for p, b in zip(trainer.network.parameters(), before, strict=True))
