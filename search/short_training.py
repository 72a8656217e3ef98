"""Short trainings: every measured architecture is trained by itself, from the same weights on the same batches.

What differs between two measurements is then the architecture alone, and it was trained with no other. The weights are
those of a fresh supernet, or those of a trained one (``--supernet``), which the architecture inherits.

Successive halving (Jamieson and Talwalkar, AISTATS 2016) saves epochs: of the architectures of an iteration, the worse
half ends after a part of its training. The learning rate of all follows the schedule of the whole training, so the
others are measured as they would be without halving.

Several processes share the architectures of a step, not their batches, so what is found does not depend on their
number.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from search.apart import Apart
from search.cost import PhaseClock
from search.few_shot import load_weights, own_weights
from search.spaces.supernet import Path
from search.strategy.step import Step
from search.supernet_training import train_alone
from search.wsr_nas_searcher import Searcher
from search.wsr_nas_settings import rungs

Measurement = Mapping[str, Tensor]  # what ``Searcher.validate`` returns


@dataclass
class Candidate:
    """An architecture in training.

    Args:
        path: the architecture.
        epochs: epochs that it was trained.
        weights: state of the supernet then; None: its first weights.
        momentum: state of the optimiser then.
        measured: what was measured at each rung so far.
    """

    path: Path
    epochs: int = 0
    weights: dict[str, Tensor] | None = None
    momentum: dict[str, Any] | None = None
    measured: list[Measurement] = field(default_factory=list)

    def reached(self, epochs: int, weights: dict[str, Tensor], momentum: dict[str, Any]) -> None:
        """Go on after ``epochs`` with these weights and this momentum."""
        self.epochs, self.weights, self.momentum = epochs, weights, momentum


class ShortTraining:
    """Train paths one after the other; each process those of its share.

    Args:
        searcher: the search, before it has trained anything: its weights are the first ones of every training.
    """

    def __init__(self, searcher: Searcher) -> None:
        self.searcher, self.apart = searcher, Apart(searcher)
        self.first = own_weights(searcher.supernet)
        self.candidates: list[Candidate] = []  # of the current step, in the order of its paths
        self.kept: list[int] = []  # those of them that are trained to the end, by any process

    def each_path(self, step: Step, clock: PhaseClock, row: dict[str, Any]) -> Iterator[bool]:
        """Train and make the paths of this process, one after the other, the current one; some of the step end early.

        Args:
            step: the current step.
            clock: clock of its phases.
            row: its row of ``metrics.jsonl``; ``train`` is that of the first path, ``halving`` has what ended early.

        Yields:
            Whether the path is the first of the step, with which the first process trains the AN-Estimator. The others
            wait for that.
        """
        self.candidates = [Candidate(path) for path in self.searcher.paths]
        self.kept = list(range(len(self.candidates)))
        for rung in rungs(self.searcher.config, step):
            with clock("halving"):
                row.setdefault("halving", []).append({"epochs": rung, "objectives": self.halve(rung, step)})
        for place, number in enumerate(self.apart.share(self.kept)):
            with clock("train"):
                trained = self.advance(self.candidates[number], self.searcher.config.short_epochs, step)
                row.setdefault("train", trained)
            if place == 0 and self.searcher.learns_to_estimate and not self.apart.is_first:
                with clock("wait"):
                    self.share_estimator()
            yield place == 0 and self.apart.is_first

    def share_estimator(self) -> None:
        """Give all processes the AN-Estimator of the first one, which calls this after it has trained it."""
        self.searcher.estimator.load_state_dict(self.apart.first(self.searcher.estimator.state_dict()))

    def halve(self, rung: int, step: Step) -> dict[int, float]:
        """Train the candidates up to a rung, measure them, and keep the better half.

        Returns:
            The objective in nats of each, by its place among the paths of the step.
        """
        states, found = {}, {}
        for number in self.apart.share(self.kept):
            self.advance(self.candidates[number], rung, step)
            states[number] = {"weights": own_weights(self.searcher.supernet),
                              "momentum": copy.deepcopy(self.searcher.trainer.optimizer.state_dict())}
            self.searcher.recalibrate(step)
            found[number] = self.searcher.validate(step)
        objectives = {}  # all processes are here: training-free scores are exchanged
        for number, measured in self.apart.gather(found).items():
            self.candidates[number].measured.append(measured)
            objectives[number] = self.searcher.objective(
                self.searcher.row(measured, self.candidates[number].path)).item()
        objectives = self.apart.first(objectives)  # on other devices, equal ones may differ by rounding
        better = sorted(self.kept, key=objectives.__getitem__)[:(len(self.kept) + 1) // 2]
        self.kept = sorted(better)
        # Another process may go on with a candidate.
        kept = {number: state for number, state in states.items() if number in self.kept}
        for number, state in self.apart.gather(kept).items():
            self.candidates[number].reached(rung, **state)
        return objectives

    def all_measured(self, measured: Sequence[Measurement], row: dict[str, Any],
                     clock: PhaseClock) -> list[dict[str, Tensor]]:
        """Return a measurement of every path of the step, in its order, on all processes.

        Args:
            measured: of those that this process has trained to the end. What ended early gets what was measured then,
                plus the mean change since then of those that went on.
            row: the row of ``metrics.jsonl``; all processes take that of the first one.
            clock: clock of the phases of the step.
        """
        with clock("wait"):
            whole = self.apart.gather(dict(zip(self.apart.share(self.kept), map(dict, measured), strict=True)))
            row |= self.apart.first(row)
        for number, candidate in enumerate(self.candidates):
            if number not in whole:
                rung = len(candidate.measured) - 1
                whole[number] = {name: changed(name, value, [
                    (self.candidates[other].measured[rung][name], whole[other][name]) for other in self.kept])
                    for name, value in candidate.measured[rung].items()}
        return [whole[number] for number in range(len(self.candidates))]

    def train(self, path: Path, step: Step) -> dict[str, Any]:
        """Train one path from the beginning to the end; the supernet keeps the weights until the next training."""
        return self.advance(Candidate(path), self.searcher.config.short_epochs, step)

    def advance(self, candidate: Candidate, until: int, step: Step) -> dict[str, Any]:
        """Train a candidate adversarially on D_t from where it is until after ``until`` epochs.

        Returns:
            The means over the last epoch: see ``wsrnas.training.epoch.train_epoch``.
        """
        searcher, trainer = self.searcher, self.searcher.trainer
        load_weights(searcher.supernet, candidate.weights or self.first)
        trainer.optimizer.state.clear()  # the momentum of the path before
        if candidate.momentum is not None:
            trainer.optimizer.load_state_dict(candidate.momentum)
        trained = train_alone(searcher, searcher.train_loader, candidate.path, range(candidate.epochs, until),
                              searcher.config.short_epochs, step.title)
        candidate.epochs = until
        return trained


def changed(name: str, value: Tensor, others: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Return what a measurement would be by now, from the mean change of others.

    Args:
        name: what was measured. Of vulnerabilities, which are positive, the logarithm changes.
        value: the measurement.
        others: for each other one, its measurement then and now.
    """
    then, now = (torch.stack(column) for column in zip(*others, strict=True))
    if name == "vulnerabilities":
        smallest = torch.finfo(value.dtype).tiny
        return value * (now.clamp_min(smallest) / then.clamp_min(smallest)).log().mean(0).exp()
    return value + (now - then).mean(0)
