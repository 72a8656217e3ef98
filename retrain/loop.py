"""Retraining from its first step to its last: what the programs for small images and for ImageNet share."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from retrain.overfitting import MAX_ROLLBACKS, STEP_FACTOR, has_collapsed, probe_accuracy
from retrain.recipes import TrainingConfig, TrainingRecipe
from wsrnas.complexity import count_parameters, readable
from wsrnas.evaluation import robust_accuracy
from wsrnas.genotype import Genotype
from wsrnas.models import build_model
from wsrnas.report import refresh
from wsrnas.runtime import checkpoint, run_files
from wsrnas.runtime.config import format_epsilon, require
from wsrnas.runtime.device import peak_memory_gib
from wsrnas.runtime.distributed import World, all_max, broadcast_model
from wsrnas.runtime.errors import InputError, Preempted
from wsrnas.runtime.preemption import stop_requests
from wsrnas.runtime.run_directory import RunDirectory
from wsrnas.runtime.seeding import derive_seed
from wsrnas.training.batch_norm import synchronize_batch_norm
from wsrnas.training.epoch import Diverged, Epoch, Loader, train_epoch
from wsrnas.training.losses import LOSSES
from wsrnas.training.trainer import Trainer

NOTHING_SELECTED = {"epoch": 0, "clean_accuracy": 0.0, "robust_accuracy": -1.0}


@dataclass
class Standing:
    """Where a retraining stands, beside its trainer.

    Args:
        epochs: completed ones.
        epoch: how far the one under way has come.
        best, last: epoch and accuracies of the best and of the latest selection.
        probe: the best accuracy of a probe so far; None before there is one.
        rollbacks: what was rolled back, one entry each.
    """

    epochs: int = 0
    epoch: Epoch = field(default_factory=Epoch)
    best: dict[str, Any] = field(default_factory=lambda: dict(NOTHING_SELECTED))
    last: dict[str, Any] = field(default_factory=lambda: dict(NOTHING_SELECTED))
    probe: float | None = None
    rollbacks: list[dict[str, Any]] = field(default_factory=list)


def retrain(config: TrainingConfig, run: RunDirectory, network: nn.Module, train_loader: Loader,
            held_out_loader: Loader | None, description: dict[str, Any]) -> None:
    """Train ``network`` to the end of its recipe, from wherever the run directory says that it stands.

    Args:
        network: on its device, equal on all processes.
        held_out_loader: training images kept out for selection; None goes without.
        description: what checkpoints store of the network (``models.description``).

    Raises:
        Preempted: a signal asked to stop; the state is saved.
        InputError: the loss diverged, or Fast-AT overfitted and was told to stop; the last good state is saved.
    """
    world = run.world
    if world.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(world.device)
    trainer = make_trainer(config, network, len(train_loader), world)
    standing = resume(config, run, trainer, description, len(train_loader))
    if config.adv_loss == "fast" and not standing.epochs and not standing.epoch.batches:
        run.save(payload(trainer, standing, description), run_files.GOOD)  # the first epoch may overfit, too
    if config.compile:
        torch.compiler.reset()  # of one process' trainings, only the first few would be compiled otherwise
        network.compile()
    with stop_requests(world) as stop:
        while standing.epochs < config.epochs:
            number = standing.epochs
            trainer.settings = replace(trainer.settings, step_size=attack_step(config, len(standing.rollbacks)))

            def after_step(epoch: Epoch) -> None:
                save_or_stop(config, run, trainer, standing, description, len(train_loader), stop())

            with last_good_state_named(run, number):
                trained = train_epoch(trainer, train_loader, number, epoch=standing.epoch, after_step=after_step,
                                      label=f"epoch {number + 1}/{config.epochs}", report_freq=config.report_freq,
                                      log=run.log)
            trainer.make_buffers_equal()
            row: dict[str, Any] = {"learning_rate": trainer.learning_rate, "train": trained}
            standing.epoch = Epoch()
            collapsed = config.adv_loss == "fast" and overfitted(config, run, trainer, standing, train_loader, row)
            if collapsed and config.on_overfitting != "ignore":
                roll_back(config, run, trainer, standing, description, row["probe"])
                continue
            standing.epochs += 1
            last = standing.epochs == config.epochs
            if held_out_loader is not None and (standing.epochs % config.select_every == 0 or last):
                select(config, run, trainer, standing, held_out_loader, row, description)
            row["peak_memory_gib"] = all_max(peak_memory_gib(world), world)
            run.record(number, row)
            state = payload(trainer, standing, description)
            if config.adv_loss == "fast" and not collapsed:
                run.save(state, run_files.GOOD)  # before the other: never older than what the run resumes from
            run.save(state)
            run.log(summary(config, standing, row))
            refresh(run.path, run.world, run.log)
            if stop() and not last:
                raise Preempted(f"stopped after epoch {standing.epochs}/{config.epochs}")
    run.finish(conclusion(config, standing))
    refresh(run.path, run.world, run.log, ended=True)


def open_run(config: TrainingConfig, world: World, overwrite: bool, fingerprint: dict[str, Any], arch: Genotype | str,
             network: nn.Module) -> RunDirectory | None:
    """The run directory of a retraining, with its configuration in the log; None, said aloud, if it is finished.

    Args:
        fingerprint: of the data set; a resumed run must have the same one, and the same architecture.
        arch: as for ``models.build_model``.
    """
    run = RunDirectory(Path(config.runs) / "retrain" / config.name, config, world, overwrite, inputs(fingerprint, arch))
    if run.finished:
        if world.is_main:
            print(f"{run.path} is finished (--overwrite begins anew)")
        return None
    run.log(run.describe())
    run.log(f"{readable(count_parameters(network))} parameters; batch {batch_text(config, world)}")
    return run


def inputs(fingerprint: dict[str, Any], arch: Genotype | str) -> dict[str, Any]:
    """What a run is made from beside its configuration: the images, and the architecture however it was named."""
    return {"data set": fingerprint} | (
        {"genotype": arch.to_json()} if isinstance(arch, Genotype) else {"network": arch})


# -- what a training is made of -------------------------------------------------------------------------------------

def make_network(config: TrainingConfig, arch: Genotype | str, num_classes: int, channels: int,
                 world: World) -> nn.Module:
    """The network with seeded weights on its device, equal on all processes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "weights"))
        network = build_model(arch, num_classes, config.init_channels, config.layers or None, config.dataset, channels,
                              bool(config.auxiliary_weight))
    network.to(world.device, memory_format=torch.channels_last)
    broadcast_model(network, world)
    return synchronize_batch_norm(network, world) if config.sync_bn else network


def make_trainer(config: TrainingConfig, network: nn.Module, steps_per_epoch: int, world: World) -> Trainer:
    """Loss, optimiser and schedule of the recipe around ``network``."""
    optimizer = torch.optim.SGD(network.parameters(), config.learning_rate, config.momentum,
                                weight_decay=config.weight_decay)
    return Trainer(network, LOSSES[config.adv_loss], config.loss_settings(), optimizer, world, config.seed,
                   config.schedule_of(steps_per_epoch), config.refinements(steps_per_epoch))


def check_batch(config: TrainingRecipe, world: World) -> None:
    """Refuse a batch that does not divide among processes and accumulated parts.

    Raises:
        InputError: naming the sizes.
    """
    parts = world.size * config.accumulation
    shares = f"{world.size} process{'es' * (world.size > 1)}"
    if config.accumulation > 1:
        shares += f" x {config.accumulation} accumulated parts"
    require(config.batch_size % parts == 0,
            f"batch_size is {config.batch_size}, for all processes together; expected a multiple of {parts} ({shares})")
    require(not config.auxiliary_weight or config.batch_size > parts, f"batch_size is {config.batch_size}; expected at "
            f"least {2 * parts}, for the auxiliary head's BatchNorm needs two images ({shares})")


def batch_text(config: TrainingConfig, world: World) -> str:
    """How a batch is shared: ``400 = 8 x 50``."""
    shares = [world.size] + [config.accumulation] * (config.accumulation > 1)
    local = config.batch_size // (world.size * config.accumulation)
    return f"{config.batch_size} = {' x '.join(map(str, [*shares, local]))}"


def attack_step(config: TrainingConfig, rollbacks: int) -> float | None:
    """Step size of the training attack in pixels of [0, 1]; None is the loss' own rule."""
    if not rollbacks:
        return config.step_size or None
    return (config.step_size or 1.25 * config.epsilon) * STEP_FACTOR ** rollbacks


# -- checkpoints ----------------------------------------------------------------------------------------------------

def payload(trainer: Trainer, standing: Standing, description: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint holds: the weights to use (``model``), and all that training goes on from.

    Called by every process.
    """
    state = {key: value for key, value in vars(standing).items() if key != "epoch"}
    training = trainer.state_dict()
    return {"step": standing.epochs, "network": description, "model": trainer.weights_to_keep(training["buffers"]),
            "trainer": training, "standing": state, "epoch": standing.epoch.state_dict(trainer.world)}


def load(state: dict[str, Any], run: RunDirectory, trainer: Trainer, description: dict[str, Any]) -> Standing:
    """Put the trainer into a checkpoint's state.

    Raises:
        InputError: it is the checkpoint of another network.
    """
    stored = state.get("network", {})
    different = [f"{key} is {short(stored.get(key))}, expected {short(value)}" for key, value in description.items()
                 if stored.get(key) != value]
    require(not different, f"the checkpoint in {run.path} is of another architecture: {'; '.join(different)}")
    try:
        trainer.load_state_dict(state["trainer"])
        return Standing(**state["standing"], epoch=Epoch.load(state["epoch"], trainer.world))
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"the checkpoint in {run.path} does not fit: {str(error).splitlines()[0]}") from None


def short(value: Any) -> str:
    """A value for an error message: a genotype's JSON is long."""
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def resume(config: TrainingConfig, run: RunDirectory, trainer: Trainer, description: dict[str, Any],
           total: int) -> Standing:
    """Load the last checkpoint, if any."""
    state = run.restore()
    if state is None:
        return Standing()
    standing = load(state, run, trainer, description)
    run.log(f"going on after step {standing.epoch.batches}/{total} of epoch {standing.epochs + 1}/{config.epochs}"
            if standing.epoch.batches else f"going on after epoch {standing.epochs}/{config.epochs}")
    return standing


def save_or_stop(config: TrainingConfig, run: RunDirectory, trainer: Trainer, standing: Standing,
                 description: dict[str, Any], total: int, stop: bool) -> None:
    """After a step: save where it is time, and leave where a signal asked for it.

    Raises:
        Preempted: after saving.
        InputError: the loss diverged; nothing is saved.
    """
    done = standing.epoch.batches
    if stop or (config.save_every and done % config.save_every == 0 and done < total):
        standing.epoch.refuse_divergence(f"epoch {standing.epochs + 1}/{config.epochs}", run.world)
        run.save(payload(trainer, standing, description))
    if stop:
        raise Preempted(f"stopped after step {done}/{total} of epoch {standing.epochs + 1}/{config.epochs}")


@contextmanager
def last_good_state_named(run: RunDirectory, epochs: int) -> Iterator[None]:
    """Add to the divergence of a training epoch which checkpoint is left."""
    try:
        yield
    except Diverged as error:
        path = run.path / run_files.CHECKPOINT
        left = f"the last good checkpoint is {path} (complete epochs: {epochs})"
        if checkpoint.previous(path).exists():
            left += f", before it {checkpoint.previous(path).name}"
        raise InputError(f"{error}; {left if run.has_checkpoint else 'there is no checkpoint yet'}; start under "
                         "another --save with a lower --learning_rate") from None


# -- selection and probe --------------------------------------------------------------------------------------------

def select(config: TrainingConfig, run: RunDirectory, trainer: Trainer, standing: Standing, loader: Loader,
           row: dict[str, Any], description: dict[str, Any]) -> None:
    """Measure the network on the held-out images, and keep it as ``best.pt`` when none was more robust."""
    result = robust_accuracy(trainer.evaluated, loader, (config.epsilon,), config.select_steps, world=run.world,
                             label="held out")
    row["held_out"] = {"clean_accuracy": result["clean_accuracy"], "robust_accuracy": result["average_robust_accuracy"]}
    standing.last = {"epoch": standing.epochs, **row["held_out"]}
    if row["held_out"]["robust_accuracy"] > standing.best["robust_accuracy"]:
        standing.best = standing.last
        run.save({"step": standing.epochs, "network": description, "model": trainer.evaluated.state_dict(),
                  "best": standing.best}, run_files.BEST)


def overfitted(config: TrainingConfig, run: RunDirectory, trainer: Trainer, standing: Standing, loader: Loader,
               row: dict[str, Any]) -> bool:
    """Probe the network with PGD on a training batch; whether it has overfitted catastrophically."""
    accuracy, images = probe_accuracy(trainer.network, loader, standing.epochs, config.epsilon, config.probe_steps,
                                      run.world)
    step = trainer.settings.step_size or 1.25 * config.epsilon
    row["probe"] = {"accuracy": accuracy, "images": images, "attack_step": step, "rollbacks": len(standing.rollbacks),
                    "undone": [entry for entry in standing.rollbacks if entry["epoch"] == standing.epochs + 1]}
    one_step = row["train"]["adversarial_accuracy"]
    if not has_collapsed(accuracy, standing.probe, one_step, images, config.probe_drop):
        standing.probe = max(accuracy, standing.probe or 0.0)
        return False
    before = "" if standing.probe is None else f", {standing.probe:.1%} before"
    run.log(f"catastrophic overfitting in epoch {standing.epochs + 1}: PGD-{config.probe_steps} accuracy on a training "
            f"batch is {accuracy:.1%}{before}, {one_step:.1%} under the training attack (step {format_epsilon(step)})")
    return True


def roll_back(config: TrainingConfig, run: RunDirectory, trainer: Trainer, standing: Standing,
              description: dict[str, Any], probe: dict[str, Any]) -> None:
    """Return to the last good state, to go on with a smaller attack step, or to stop there, as told.

    Raises:
        InputError: it was told to stop, or smaller steps have not helped.
    """
    epoch, rollbacks = standing.epochs + 1, [*standing.rollbacks]
    state, _ = checkpoint.restore(run.path / run_files.GOOD, run.log)
    require(state is not None,
            f"catastrophic overfitting, and {run.path / run_files.GOOD} is gone; begin anew with --overwrite")
    vars(standing).update(vars(load(state, run, trainer, description)))
    if run.world.is_main:
        run.drop_metrics_from(standing.epochs)  # more than one epoch, if overfitting was ignored before
    standing.rollbacks = rollbacks
    stop = config.on_overfitting == "stop"
    if not stop and len(rollbacks) < MAX_ROLLBACKS:
        standing.rollbacks = [*rollbacks, {"epoch": epoch, "accuracy": probe["accuracy"],
                                           "attack_step": probe["attack_step"]}]
        run.log(f"rolled back to the end of epoch {standing.epochs}; the attack step is now "
                f"{format_epsilon(attack_step(config, len(standing.rollbacks)))}")
    run.save(payload(trainer, standing, description))
    if stop or len(rollbacks) == MAX_ROLLBACKS:
        raise InputError(f"stopped because of catastrophic overfitting in epoch {epoch}"
                         + (", as told" if stop else f", after {MAX_ROLLBACKS} smaller attack steps")
                         + f"; {run.path / run_files.CHECKPOINT} is the last good state (epoch {standing.epochs})"
                         + ("; --on_overfitting roll-back goes on with a smaller attack step" if stop else ""))


# -- reports --------------------------------------------------------------------------------------------------------

def summary(config: TrainingConfig, standing: Standing, row: dict[str, Any]) -> str:
    """One line an epoch for people; ``metrics.jsonl`` holds everything."""
    train = row["train"]
    shown = [f"{word} {train[name]:.1%}" for word, name in (("clean", "clean_accuracy"),
                                                          ("robust", "adversarial_accuracy")) if name in train]
    parts = [f"[{standing.epochs}/{config.epochs}] loss {train['loss']:.3f} training {' '.join(shown)}"]
    if "held_out" in row:
        parts.append(f"held out {accuracies(config, row['held_out'])}")
    if "probe" in row:
        parts.append(f"probe {row['probe']['accuracy']:.1%}")
    left = train["seconds"] * (config.epochs - standing.epochs)
    parts.append(f"{train['images_per_second']:.4g} images/s")
    parts.append(f"peak {row['peak_memory_gib']:.1f} GiB")
    return " | ".join([*parts, f"{duration(left)} of training left"])


def accuracies(config: TrainingConfig, selection: dict[str, Any]) -> str:
    return (f"clean {selection['clean_accuracy']:.1%} PGD-{config.select_steps} at "
            f"{format_epsilon(config.epsilon)} {selection['robust_accuracy']:.1%}")


def duration(seconds: float) -> str:
    """``3 h 05 min``, or minutes and seconds below an hour."""
    minutes = int(seconds) // 60
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {int(seconds) % 60:02d} s"


def conclusion(config: TrainingConfig, standing: Standing) -> str:
    """Both networks that are kept: the best of the selection and the last."""
    if not standing.best["epoch"]:
        return f"training finished; checkpoint.pt is epoch {config.epochs} (no image was held out, no best.pt)"
    return (f"training finished; on held-out images: best.pt, epoch {standing.best['epoch']}, "
            f"{accuracies(config, standing.best)}; checkpoint.pt, epoch {config.epochs}, "
            f"{accuracies(config, standing.last)}")
