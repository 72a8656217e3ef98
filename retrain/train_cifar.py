"""Adversarial retraining of a cell on small images (Wsr-NAS, Sec. "Main Results": PGD-7 and TRADES-1).

    python -m retrain.train_cifar --arch WsrNet_Basic --data DATA
    python -m retrain.train_cifar --arch runs/search/NAME/genotype.json --data DATA
    torchrun --standalone --nproc_per_node=8 -m retrain.train_cifar --arch WsrNet_Plus --data DATA

Selection uses images held out of the training set. ``best.pt`` (highest robust accuracy there) and ``checkpoint.pt``
(last epoch) are both kept. The same command resumes.
"""

from bisect import bisect_right
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

import genotypes
from wsrnas.complexity import activation_bytes, count_parameters, multiply_adds, readable
from wsrnas.config import RunConfig, describe, format_epsilon, option, parse_config, require
from wsrnas.data import DataSet, load_dataset_once
from wsrnas.distributed import World, broadcast_model, initialize, shutdown
from wsrnas.errors import InputError, run_program
from wsrnas.evaluation import robust_accuracy
from wsrnas.genotype import Genotype
from wsrnas.loader import BatchLoader
from wsrnas.losses import LOSSES, AttackSettings
from wsrnas.models import build_model, description
from wsrnas.run import RunDirectory
from wsrnas.seeding import derive_seed, generator
from wsrnas.splits import balanced_split
from wsrnas.training import average_buffers, train_epoch


@dataclass(frozen=True)
class RetrainConfig(RunConfig):
    """Adversarially train a cell on small images; the defaults are the published recipe of WsrNet-Basic.

    Strengths and step sizes are L-inf radii in pixels of [0, 1]; "8/255" is understood.
    """

    preset: str = "published"
    arch: str = option("WsrNet_Basic", "published name, alias, genotype.json, or run directory of a search")
    init_channels: int = option(45, "channels C of the first cells")
    layers: int = option(20, "cells")
    held_out: int = option(1000, "images of the training set held out for selection")

    adv_loss: Literal["pgd", "trades"] = option("pgd", "adversarial training loss")
    trades_beta: float = option(1.0, "weight of TRADES' robust term; 1 is the paper's TRADES-1")
    epsilon: float = option(0.031, "strength of the training attack (published; 8/255 is 0.03137)")
    num_steps: int = option(7, "steps of the training attack (PGD-7)")
    step_size: float = option(0.0, "step of the training attack; 0: 2.5 * epsilon / num_steps (published)")
    random_start: bool = option(False, "start the PGD training attack uniformly in the ball")
    batch_size: int = option(400, "images per step, all processes together")
    epochs: int = option(176, "epochs (the published run is last evaluated there)")
    learning_rate: float = option(0.1, "of SGD")
    milestones: tuple[float, ...] = option((99, 149), "epochs from which the learning rate is multiplied by 0.1 again")
    momentum: float = option(0.9, "of SGD")
    weight_decay: float = option(5e-4, "of SGD")
    grad_clip: float = option(5.0, "largest gradient norm; 0: no clipping")

    select_steps: int = option(10, "PGD steps of the selection on the held-out images, at the training strength")
    select_every: int = option(1, "epochs between two selections")
    eval_batch_size: int = option(500, "images per batch of the selection", identity=False)

    def __post_init__(self) -> None:
        self.require_at_least(1, "init_channels", "layers", "num_steps", "batch_size", "epochs", "held_out",
                              "select_steps", "select_every", "eval_batch_size", "report_freq")
        self.require_at_least(0, "max_train", "step_size", "grad_clip", "weight_decay", "momentum")
        self.require_positive("learning_rate", "trades_beta")
        self.require_strength("epsilon")
        require(list(self.milestones) == sorted(self.milestones),
                f"milestones are {self.milestones}; expected increasing epochs")

    @property
    def name(self) -> str:
        """Of the run directory; without a time stamp, so that a restarted job finds itself."""
        path = Path(self.arch)
        arch = path.parent.name if path.name == "genotype.json" else path.stem
        return self.save or f"{arch}-{self.adv_loss}-{self.dataset}-seed{self.seed}"

    def attack_settings(self) -> AttackSettings:
        return AttackSettings(self.epsilon, self.num_steps, self.step_size or None, self.random_start,
                              beta=self.trades_beta)

    def learning_rate_at(self, epoch: int) -> float:
        """Of an epoch counted from 0: a tenth from each milestone on."""
        return self.learning_rate * 0.1 ** bisect_right(self.milestones, epoch)


PRESETS = {"published": RetrainConfig()}
# Half a minute on two CPU cores, for the digits.
PRESETS["tiny"] = replace(PRESETS["published"], preset="tiny", dataset="digits", init_channels=6, layers=4,
                          batch_size=32, epochs=6, milestones=(4, 5), epsilon=0.1, num_steps=3, held_out=140,
                          select_every=2)


def main(argv: list[str] | None = None) -> None:
    config, invocation = parse_config(RetrainConfig, PRESETS, argv, prog="retrain.train_cifar")
    genotype = genotypes.load(config.arch)
    world = initialize(config.device)
    data = load_dataset_once(world, config.dataset, config.data, config.download, max_train=config.max_train,
                             seed=config.seed)
    model = make_network(config, genotype, data, world)
    train_loader, held_out_loader = make_loaders(config, data, world)
    if invocation.dry_run:
        dry_run(config, model, data, train_loader, world)
        return
    run = RunDirectory(Path(config.runs) / "retrain" / config.name, config, world, invocation.overwrite,
                       {"data set": data.fingerprint(), "genotype": genotype.to_json()})
    if run.finished:
        if world.is_main:
            print(f"{run.path} is finished (--overwrite begins anew)")
        return
    run.log(run.describe())
    run.log(f"{readable(count_parameters(model))} parameters; batch {config.batch_size} = {world.size} x "
            f"{config.batch_size // world.size}")
    optimizer = torch.optim.SGD(model.parameters(), config.learning_rate, config.momentum,
                                weight_decay=config.weight_decay)
    stored = description(genotype, data.num_classes, config.init_channels, config.layers, config.dataset,
                         data.image_shape)
    first, best = resume(run, model, optimizer, stored)

    for epoch in range(first, config.epochs):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate_at(epoch)
        noise = generator(config.seed, "attack", epoch, world.rank, device=world.device)
        row: dict[str, Any] = {"learning_rate": config.learning_rate_at(epoch)}
        row["train"] = train_epoch(model, train_loader.batches(epoch), len(train_loader), LOSSES[config.adv_loss],
                                   config.attack_settings(), optimizer, world, grad_clip=config.grad_clip,
                                   generator=noise, label=f"epoch {epoch + 1}/{config.epochs}",
                                   report_freq=config.report_freq)
        average_buffers(model, world)
        state = {"step": epoch + 1, "model": model.state_dict(), "network": stored}
        last = epoch == config.epochs - 1
        if (epoch + 1) % config.select_every == 0 or last:
            row["held_out"] = select(config, model, held_out_loader, world)
            if row["held_out"]["robust_accuracy"] > best["robust_accuracy"]:
                best = {"epoch": epoch + 1, **row["held_out"]}
                run.save({**state, "best": best}, "best.pt")
        run.record(epoch, row)
        run.save({**state, "optimizer": optimizer.state_dict(), "best": best})
        run.log(summary(config, epoch, row))
    run.finish(f"training finished; best.pt is epoch {best['epoch']} (held out: clean {best['clean_accuracy']:.2%}, "
               f"PGD-{config.select_steps} {best['robust_accuracy']:.2%}), checkpoint.pt is epoch {config.epochs}")


def make_network(config: RetrainConfig, genotype: Genotype, data: DataSet, world: World) -> nn.Module:
    """The network with seeded weights, equal on all processes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "weights"))
        model = build_model(genotype, data.num_classes, config.init_channels, config.layers,
                            channels=data.image_shape[0])
    model.to(world.device, memory_format=torch.channels_last)
    broadcast_model(model, world)
    return model


def make_loaders(config: RetrainConfig, data: DataSet, world: World) -> tuple[BatchLoader, BatchLoader]:
    """Augmented training batches, and the held-out images as they are."""
    held_out, train = balanced_split(data.train.labels, config.held_out, config.seed, data.num_classes)
    shards = {"rank": world.rank, "world_size": world.size}
    return (
        BatchLoader(data.train.subset(train).to(world.device), config.batch_size, config.seed, "training",
                    shuffle=True, augment=data.augmentation, drop_last=True, **shards),
        BatchLoader(data.train.subset(held_out).to(world.device), config.eval_batch_size, config.seed, "held out",
                    **shards),
    )


def resume(run: RunDirectory, model: nn.Module, optimizer: torch.optim.Optimizer,
           stored: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Load the last checkpoint, if any: the number of finished epochs and the best selection so far."""
    state = run.restore()
    if state is None:
        return 0, {"epoch": 0, "clean_accuracy": 0.0, "robust_accuracy": -1.0}
    try:
        if state["network"] != stored:
            raise ValueError("it holds another network")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise InputError(f"the checkpoint in {run.path} does not fit: {str(error).splitlines()[0]}") from None
    return state["step"], state["best"]


def select(config: RetrainConfig, model: nn.Module, loader: BatchLoader, world: World) -> dict[str, float]:
    """Clean and PGD accuracy on the held-out images, at the training strength."""
    result = robust_accuracy(model, loader, (config.epsilon,), config.select_steps, world=world, label="held out")
    return {"clean_accuracy": result["clean_accuracy"], "robust_accuracy": result["average_robust_accuracy"]}


def summary(config: RetrainConfig, epoch: int, row: dict[str, Any]) -> str:
    train = row["train"]
    parts = [f"[{epoch + 1}/{config.epochs}] loss {train['loss']:.3f} robust train acc "
             f"{train['adversarial_accuracy']:.1%}"]
    if "held_out" in row:
        parts.append(f"held out clean {row['held_out']['clean_accuracy']:.1%} PGD-{config.select_steps} "
                     f"{row['held_out']['robust_accuracy']:.1%}")
    return " | ".join([*parts, f"{train['images_per_second']:.0f} images/s"])


def dry_run(config: RetrainConfig, model: nn.Module, data: DataSet, loader: BatchLoader, world: World) -> None:
    """Print the configuration and what the training would cost."""
    if not world.is_main:
        return
    adds = multiply_adds(model, data.image_shape)
    images = len(loader) * config.batch_size
    per_image = config.num_steps + 1 + (config.adv_loss == "trades")
    local = config.batch_size // world.size
    print("\n".join([
        describe(config), f"data: {images} training images {data.image_shape} an epoch, {config.held_out} held out, "
        f"{data.num_classes} classes",
        f"network: {readable(count_parameters(model))} parameters, {readable(adds)} multiply-adds an image",
        f"steps: {config.epochs} epochs of {len(loader)} batches ({config.batch_size} = {world.size} x {local}), "
        f"attack {config.num_steps} steps at {format_epsilon(config.epsilon)}",
        f"passes: {readable(images * per_image * config.epochs)} images forward and backward, "
        f"{readable(3 * adds * images * per_image * config.epochs)} multiply-adds",
        f"memory: about {activation_bytes(model, data.image_shape) * local / 2**30:.1f} GiB of activations a process",
    ]), flush=True)


if __name__ == "__main__":
    try:
        run_program(main)
    finally:
        shutdown()
