"""Whole steps on torch's device ``meta``: nothing is copied to the host, read, branched on, or left on the CPU.

That device holds no numbers, so whoever looks at one fails. It stands in for a GPU where there is none.
"""

from dataclasses import replace

import pytest
import torch
from torch import nn

import genotypes
from tests.operators import META, Operators, on_meta
from tests.quick import slow_after
from wsrnas.architectures.robnet import SMALL, RobNet
from wsrnas.attacks import fgsm, mim, multi_strength_pgd, pgd, random_start
from wsrnas.data.image_set import Augmentation, ImageSet
from wsrnas.data.loader import BatchLoader
from wsrnas.estimators import ESTIMATORS, build_estimator
from wsrnas.estimators.training import leave_one_out, train_estimator
from wsrnas.evaluation.accuracy import robust_accuracy
from wsrnas.evaluation.attack_table import AttackTask, run_carlini_wagner, run_fgsm, run_mim, run_pgd
from wsrnas.models import build_model
from wsrnas.network import NetworkCIFAR
from wsrnas.runtime.distributed import World
from wsrnas.runtime.seeding import BatchNoise
from wsrnas.training.batch_norm import recalibrate_batch_norm
from wsrnas.training.epoch import Epoch
from wsrnas.training.losses import LOSSES, LossSettings
from wsrnas.training.schedules import Schedule
from wsrnas.training.trainer import Refinements, Trainer

BATCH = 4
EVERYTHING = Refinements(5.0, 2, False, 0.01, 0, 0.9, 0.0, True)
WAITS = "cannot be called on meta tensors|out of meta tensor"


@pytest.fixture(autouse=True)
def meta(monkeypatch):
    on_meta(monkeypatch)


@pytest.fixture
def network():
    """A small one: whatever trains or attacks it calls the same operators as with a larger one."""
    with META:
        return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, 2), nn.Flatten(),
                             nn.Linear(196, 10)).to(memory_format=torch.channels_last)


@pytest.fixture
def batch():
    with META:
        return torch.rand(BATCH, 3, 32, 32).contiguous(memory_format=torch.channels_last), torch.zeros(BATCH).long()


def loader(size=BATCH, **arguments):
    with META:
        images = ImageSet(torch.zeros(2 * BATCH, 3, 32, 32, dtype=torch.uint8), torch.zeros(2 * BATCH).long())
    return BatchLoader(images, size, 0, "test", **arguments)


@pytest.mark.parametrize("look", [
    lambda values: values.sum().item(), lambda values: values.cpu(), lambda values: bool(values.max() > 0),
    lambda values: values[values > 0], lambda values: values.tolist(), lambda values: values[torch.tensor([0])],
    lambda values: values.add_(torch.ones(3)), lambda values: torch.tensor([1.0, 2.0, 3.0], device=META) + values,
], ids=["item", "cpu", "branch", "mask", "tolist", "index", "add", "list"])
def test_what_would_wait_for_the_device_is_noticed(look):
    with pytest.raises((AssertionError, NotImplementedError, RuntimeError)), Operators():
        look(torch.ones(3, device=META))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_an_attack_reads_nothing(norm, loss, network, batch):
    with Operators():
        adversarial = pgd(network, *batch, 0.03, 2, random_start=True, norm=norm, loss=loss)
        assert adversarial.shape == batch[0].shape
        pgd(network, *batch, 0.03, 1, start=random_start(batch[0], 0.03, norm), norm=norm, batch_statistics=True)
        fgsm(network, *batch, 0.03, norm)
        mim(network, *batch, 0.03, 2, norm=norm)


def test_an_attack_at_many_strengths_reads_nothing(network, batch):
    strengths = torch.empty(3, device=META)
    with Operators():
        assert multi_strength_pgd(network, *batch, strengths, steps=2).shape == (BATCH, 3, 3, 32, 32)


@pytest.mark.parametrize("run", [run_pgd, run_fgsm, run_mim, run_carlini_wagner])
def test_attacks_of_an_evaluation_read_nothing(run, network, batch):
    task = AttackTask(network.eval(), *batch, 0.03, "linf", 2, 0.01, "ce", "", 10, 0, batch[0], lambda purpose: [])
    with Operators(host_counts=True):
        assert run(task).shape == batch[0].shape


@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_a_training_loss_reads_nothing(name, random, network, batch):
    settings = LossSettings(0.03, 2, random_start=random, batch_statistics=random, strengths=(0.03, 0.06),
                            label_smoothing=0.1)
    with Operators():
        loss, _ = LOSSES[name](network.train(), *batch, settings, BatchNoise(torch.Generator()))
        loss.backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("name", slow_after(1, LOSSES))
def test_a_training_step_with_everything_reads_nothing(name, network, batch):
    train_without_reading(network, name, batch, EVERYTHING)


def train_without_reading(network, loss, batch, refinements):
    trainer = Trainer(network, LOSSES[loss], LossSettings(0.03, 1, strengths=(0.03, 0.06)),
                      torch.optim.SGD(network.parameters(), 0.1, 0.9, weight_decay=1e-4), World(device=META),
                      schedule=Schedule("cosine", 0.1, 10, 5), refinements=refinements)
    epoch = Epoch()
    with Operators():
        epoch.add(trainer.step(*batch))
    assert trainer.steps == 1 and epoch.sums["loss"][1] >= BATCH


DESIGNS = {"cells": lambda: NetworkCIFAR(genotypes.load("WsrNet_Basic"), 4, 3, 10),
           "robnet": lambda: RobNet([SMALL, SMALL], 4, 10), "resnet18": lambda: build_model("resnet18"),
           "vgg16": lambda: build_model("vgg16")}


@pytest.mark.parametrize("design", slow_after(1, DESIGNS))
def test_networks_of_every_design_train_without_being_read(design, batch):
    with META:
        network = DESIGNS[design]()
    refinements = replace(EVERYTHING, drop_path=0.2) if design == "cells" else Refinements()  # others drop no paths
    train_without_reading(network.to(memory_format=torch.channels_last), "pgd", batch, refinements)


def test_augmented_batches_are_made_on_the_device():
    batches = loader(shuffle=True, augment=Augmentation(4, True, 8), drop_last=True).batches()
    first, _ = next(batches)  # the epoch is drawn on the CPU, once
    with Operators():
        second, _ = next(batches)
    assert first.shape == second.shape and second.is_meta


def test_recalibration_reads_nothing(network, batch):
    with Operators():
        recalibrate_batch_norm(network, [batch, batch], World(device=META))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimates_are_made_without_being_read(name, network, batch):
    images, labels = batch
    with META:
        estimator = build_estimator(name)
        noises, sources, targets = torch.empty(BATCH, 2, 3, 32, 32), torch.empty(2), torch.empty(8)
    with torch.no_grad(), Operators():
        more, strengths = estimator.more_sources(network, images, labels, noises, sources, targets)
        assert estimator(more, images, strengths, targets).shape == (BATCH, 8, 3, 32, 32)


@pytest.mark.parametrize("name", [name for name, entry in ESTIMATORS.items() if entry.learned])
def test_an_estimator_is_trained_without_being_read_before_the_end(name, network, batch):
    with META:
        estimator = build_estimator(name)
    optimizer = torch.optim.AdamW(estimator.parameters())
    tasks = leave_one_out(network, *batch, torch.empty(2, device=META), 0.15, 1, torch.Generator())
    steps = count_steps(optimizer)
    with pytest.raises(RuntimeError, match=WAITS):  # the relative error that it returns
        train_estimator(estimator, optimizer, tasks, 2, torch.Generator(), learning_rate=1e-3, step=0, total_steps=9,
                        batch_size=6)
    assert len(steps) == 4


def count_steps(optimizer):
    """Return a list that grows with every step of an optimiser."""
    steps = []
    optimizer.register_step_post_hook(lambda *arguments: steps.append(1))
    return steps


def test_accuracies_are_counted_on_the_device_and_read_once_at_the_end(network):
    calls = []
    network.register_forward_hook(lambda *arguments: calls.append(1))
    with pytest.raises(RuntimeError, match=WAITS):
        robust_accuracy(network.eval(), loader(), [0.03, 0.06], 2, world=World(device=META))
    assert len(calls) == 2 * (1 + 2 * 3)  # batches, then clean, and for each strength two steps and a prediction


