"""The retraining of a network: one object owns what it needs, and has one method for each step of an epoch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from retrain.construction import make_trainer
from retrain.overfitting import MAX_ROLLBACKS, STEP_FACTOR, has_collapsed, probe_accuracy
from retrain.settings import AnyTraining
from retrain.summary import conclusion, epoch_summary
from wsrnas.evaluation import robust_accuracy
from wsrnas.report import refresh
from wsrnas.runtime import checkpoint, run_files
from wsrnas.runtime.config import format_epsilon, require
from wsrnas.runtime.device import peak_memory_gib
from wsrnas.runtime.distributed import all_max
from wsrnas.runtime.errors import InputError, Preempted, one_line
from wsrnas.runtime.preemption import stop_requests
from wsrnas.runtime.run_directory import RunDirectory
from wsrnas.training.epoch import Diverged, Epoch, Loader, train_epoch
from wsrnas.training.losses import LOSSES
from wsrnas.training.training_attacks import FAST_STEP

NOTHING_SELECTED = {"epoch": 0, "clean_accuracy": 0.0, "robust_accuracy": -1.0}


@dataclass
class Progress:
    """Hold the progress of a retraining; the trainer has a state of its own.

    Args:
        epochs: number of complete epochs.
        epoch: progress of the epoch under way.
        best: epoch and accuracies of the best selection.
        last: epoch and accuracies of the latest selection.
        probe: best accuracy of a probe so far; None before the first one.
        rollbacks: one entry for each roll-back.
    """

    epochs: int = 0
    epoch: Epoch = field(default_factory=Epoch)
    best: dict[str, Any] = field(default_factory=lambda: dict(NOTHING_SELECTED))
    last: dict[str, Any] = field(default_factory=lambda: dict(NOTHING_SELECTED))
    probe: float | None = None
    rollbacks: list[dict[str, Any]] = field(default_factory=list)


class Retraining:
    """Configuration, run directory, trainer, progress and loaders of one network's training.

    Args:
        config: recipe of the training.
        run: open run directory.
        network: the network, on its device and equal on all processes.
        train_loader: augmented training batches.
        held_out_loader: training images that select ``best.pt``; None: no selection.
        description: dictionary that checkpoints store of the network (``models.description``).
    """

    def __init__(self, config: AnyTraining, run: RunDirectory, network: nn.Module, train_loader: Loader,
                 held_out_loader: Loader | None, description: dict[str, Any]) -> None:
        self.config, self.run, self.world, self.description = config, run, run.world, description
        self.train_loader, self.held_out_loader = train_loader, held_out_loader
        self.one_step = LOSSES[config.adv_loss].one_step
        self.trainer = make_trainer(config, network, len(train_loader), run.world)
        self.trainer.graphs = config.graphs(run.world.device, run.log)
        self.progress = Progress()
        self.collapsed = False  # whether the latest epoch has overfitted catastrophically
        self.stop: Callable[[], bool] = lambda: False  # whether to stop between two training steps

    @property
    def unfinished(self) -> bool:
        """Whether there are epochs left."""
        return self.progress.epochs < self.config.epochs

    @property
    def epoch_name(self) -> str:
        """Name of the epoch under way: ``epoch 3/176``."""
        return f"epoch {self.progress.epochs + 1}/{self.config.epochs}"

    @property
    def attack_step(self) -> float | None:
        """Step size of the training attack in pixels of [0, 1]; None: the loss chooses it."""
        rollbacks = len(self.progress.rollbacks)
        if not rollbacks:
            return self.config.step_size or None
        return (self.config.step_size or FAST_STEP * self.config.epsilon) * STEP_FACTOR ** rollbacks

    @property
    def shown_step(self) -> float:
        """Step size of Fast-AT's attack for messages, in pixels of [0, 1]."""
        return self.attack_step or FAST_STEP * self.config.epsilon

    # -- beginning and end ----------------------------------------------------------------------------------------

    @contextmanager
    def resumed(self) -> Iterator[None]:
        """Resume from the run directory; inside, SIGTERM and SIGUSR1 ask for a stop after the step under way."""
        if self.world.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.world.device)
        self._load_checkpoint()
        if self.one_step and not self.progress.epochs and not self.progress.epoch.batches:
            self.run.save(self.state(), run_files.GOOD)  # the first epoch may overfit, too
        if self.config.compile:
            torch.compiler.reset()  # otherwise torch stops compiling after a few trainings in one process
            self.trainer.network.compile()
        with stop_requests(self.world) as self.stop:
            yield

    def finish(self) -> None:
        """Mark the run as complete, and bring its page up to date."""
        self.run.finish(conclusion(self.config, self.progress.best, self.progress.last))
        refresh(self.run.path, self.world, self.run.log, ended=True)

    # -- the steps of an epoch ------------------------------------------------------------------------------------

    def train_epoch(self) -> dict[str, Any]:
        """Train on the rest of the epoch, and return its row of ``metrics.jsonl``.

        Raises:
            Preempted: a signal asked to stop; the state is saved.
            InputError: the loss diverged; the last good state is saved.
        """
        self.trainer.settings = replace(self.trainer.settings, step_size=self.attack_step)
        left = len(self.train_loader) - self.progress.epoch.batches
        try:
            with self.trainer.graphs.used(left):
                trained = train_epoch(self.trainer, self.train_loader, self.progress.epochs, epoch=self.progress.epoch,
                                      after_step=self._after_step, label=self.epoch_name,
                                      report_freq=self.config.report_freq, log=self.run.log)
        except Diverged as error:
            raise InputError(f"{error}; {self._checkpoints_left()}; start under another --save with a lower "
                             "--learning_rate") from None
        except RuntimeError as error:
            if self.config.compile and isinstance(error, torch._dynamo.exc.TorchDynamoException):
                reason = one_line(str(error).partition("\n")[0])
                raise InputError(f"the network cannot be compiled ({reason}); expected a C++ compiler, or a start "
                                 "without --compile") from None
            raise
        self.trainer.make_buffers_equal()
        self.progress.epoch = Epoch()
        return {"learning_rate": self.trainer.learning_rate, "train": trained}

    def overfitted(self, row: dict[str, Any]) -> bool:
        """Return whether to undo the epoch, because its one-step attack has made the network overfit.

        Other losses are not probed. The probe is added to ``row``.
        """
        self.collapsed = self.one_step and self._probe(row)
        return self.collapsed and self.config.on_overfitting != "ignore"

    def roll_back(self, row: dict[str, Any]) -> None:
        """Return to the last good state. Training goes on with a smaller attack step, or stops, as configured.

        Raises:
            InputError: the configuration says to stop, or smaller steps have not helped.
        """
        epoch, rollbacks, probe = self.progress.epochs + 1, [*self.progress.rollbacks], row["probe"]
        good = self.run.path / run_files.GOOD
        state, _ = checkpoint.restore(good, self.run.log)
        if state is None:
            raise InputError(f"catastrophic overfitting, and {good} is gone; start again with --overwrite")
        self.load(state)
        if self.world.is_main:
            self.run.drop_metrics_from(self.progress.epochs)  # more than one epoch, if overfitting was ignored before
        self.progress.rollbacks = rollbacks
        stop = self.config.on_overfitting == "stop"
        if not stop and len(rollbacks) < MAX_ROLLBACKS:
            self.progress.rollbacks = [*rollbacks, {"epoch": epoch, "accuracy": probe["accuracy"],
                                                    "attack_step": probe["attack_step"]}]
            self.run.log(f"rolled back to the end of epoch {self.progress.epochs}; the attack step is now "
                         f"{format_epsilon(self.shown_step)}")
        self.run.save(self.state())
        if stop or len(rollbacks) == MAX_ROLLBACKS:
            why = "as --on_overfitting stop asks" if stop else f"after {MAX_ROLLBACKS} smaller attack steps"
            what_next = "; --on_overfitting roll-back resumes with a smaller attack step" if stop else ""
            raise InputError(f"stopped because of catastrophic overfitting in epoch {epoch}, {why}; "
                             f"{self.run.path / run_files.CHECKPOINT} is the last good state (epoch "
                             f"{self.progress.epochs}){what_next}")

    def select(self, row: dict[str, Any]) -> None:
        """Measure the network on the held-out images if a selection is due; keep the best as ``best.pt``.

        The best is the most robust, or for a training without attack the one with the highest clean accuracy.
        """
        config, progress, number = self.config, self.progress, self.progress.epochs + 1
        if self.held_out_loader is None or (number % config.select_every and number < config.epochs):
            return
        result = robust_accuracy(self.trainer.evaluated, self.held_out_loader, (config.epsilon,), config.select_steps,
                                 world=self.world, label="held out")
        row["held_out"] = {"clean_accuracy": result["clean_accuracy"],
                           "robust_accuracy": result["average_robust_accuracy"]}
        progress.last = {"epoch": number, **row["held_out"]}
        rule = LOSSES[config.adv_loss].selects_by
        if not progress.best["epoch"] or row["held_out"][rule] > progress.best[rule]:
            progress.best = progress.last
            self.run.save({"step": number, "network": self.description, "model": self.trainer.evaluated.state_dict(),
                           "best": progress.best, "selection": config.selection_rule}, run_files.BEST)

    def complete(self, row: dict[str, Any]) -> None:
        """Count the epoch, write its row and its checkpoint, and report it.

        Raises:
            Preempted: a signal asked to stop.
        """
        row["peak_memory_gib"] = all_max(peak_memory_gib(self.world), self.world)
        self.run.record(self.progress.epochs, row)
        self.progress.epochs += 1
        state = self.state()
        if self.one_step and not self.collapsed:
            self.run.save(state, run_files.GOOD)  # saved first, so good.pt is never older than checkpoint.pt
        self.run.save(state)
        self.run.log(epoch_summary(self.config, self.progress.epochs, row))
        refresh(self.run.path, self.world, self.run.log)
        if self.stop() and self.unfinished:
            raise Preempted(f"stopped after epoch {self.progress.epochs}/{self.config.epochs}")

    # -- checkpoints ----------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return the content of a checkpoint: the weights to use (``model``), and all that training resumes from.

        Called by every process.
        """
        progress = {key: value for key, value in vars(self.progress).items() if key != "epoch"}
        training = self.trainer.state_dict()
        return {"step": self.progress.epochs, "network": self.description,
                "model": self.trainer.weights_to_keep(training["buffers"]), "trainer": training,
                "selection": self.config.selection_rule, "standing": progress,
                "epoch": self.progress.epoch.state_dict(self.world)}

    def load(self, state: dict[str, Any]) -> None:
        """Resume from the content of a checkpoint.

        Raises:
            InputError: it is the checkpoint of another network.
        """
        stored = state.get("network", {})
        different = [f"{key} is {_short(stored.get(key))}, expected {_short(value)}"
                     for key, value in self.description.items() if stored.get(key) != value]
        require(not different, f"the checkpoint in {self.run.path} is of another architecture: {'; '.join(different)}")
        try:
            self.trainer.load_state_dict(state["trainer"])
            self.progress = Progress(**state["standing"], epoch=Epoch.load(state["epoch"], self.world))
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"the checkpoint in {self.run.path} does not fit: {reason}") from None

    def _load_checkpoint(self) -> None:
        state = self.run.restore()
        if state is None:
            return
        self.load(state)
        batches, epochs = self.progress.epoch.batches, self.config.epochs
        self.run.log(f"resuming after step {batches}/{len(self.train_loader)} of {self.epoch_name}" if batches else
                     f"resuming after epoch {self.progress.epochs}/{epochs}")

    def _after_step(self, epoch: Epoch) -> None:
        """Save if a checkpoint is due; stop if a signal arrived."""
        done, total, stop = epoch.batches, len(self.train_loader), self.stop()
        every = self.config.save_every
        if stop or (every and done % every == 0 and done < total):
            epoch.refuse_divergence(self.epoch_name, self.world)
            self.run.save(self.state())
        if stop:
            raise Preempted(f"stopped after step {done}/{total} of {self.epoch_name}")

    def _checkpoints_left(self) -> str:
        path = self.run.path / run_files.CHECKPOINT
        if not self.run.has_checkpoint:
            return "there is no checkpoint yet"
        before = checkpoint.previous(path)
        return (f"the last good checkpoint is {path} (complete epochs: {self.progress.epochs})"
                + (f", before it {before.name}" if before.exists() else ""))

    # -- catastrophic overfitting -----------------------------------------------------------------------------------

    def _probe(self, row: dict[str, Any]) -> bool:
        """Attack a training batch by PGD; return whether the network has overfitted catastrophically."""
        config, progress = self.config, self.progress
        accuracy, images = probe_accuracy(self.trainer.network, self.train_loader, progress.epochs, config.epsilon,
                                          config.probe_steps, self.world)
        step = self.shown_step
        row["probe"] = {"accuracy": accuracy, "images": images, "attack_step": step,
                        "rollbacks": len(progress.rollbacks),
                        "undone": [entry for entry in progress.rollbacks if entry["epoch"] == progress.epochs + 1]}
        one_step = row["train"]["adversarial_accuracy"]
        if not has_collapsed(accuracy, progress.probe, one_step, images, config.probe_drop):
            progress.probe = max(accuracy, progress.probe or 0.0)
            return False
        before = "" if progress.probe is None else f", {progress.probe:.1%} before"
        self.run.log(f"catastrophic overfitting in epoch {progress.epochs + 1}: PGD-{config.probe_steps} accuracy on a "
                     f"training batch is {accuracy:.1%}{before}, {one_step:.1%} under the training attack (step "
                     f"{format_epsilon(step)})")
        return True


def train_all_epochs(training: Retraining) -> None:
    """Resume a training and run it to its end, one line for each step of an epoch.

    Raises:
        Preempted: a signal asked to stop; the state is saved.
        InputError: the loss diverged, or Fast-AT overfitted and the configuration says to stop; the last good state is
            saved.
    """
    with training.resumed():
        while training.unfinished:
            row = training.train_epoch()
            if training.overfitted(row):
                training.roll_back(row)
            else:
                training.select(row)
                training.complete(row)
    training.finish()


def _short(value: Any) -> str:
    """Return a value for an error message: a genotype's JSON is long."""
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
