"""The RNAS search: all that it owns, and one method for each part of its Algorithm 1."""

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor

from search.bound import RELATIVE
from search.relaxation import Relaxation
from search.rnas_loaders import build_loaders
from search.rnas_settings import RnasConfig
from search.searcher import SupernetSearcher
from search.spaces import SPACES
from search.supernet_settings import cosine_rate
from search.supernet_training import build_supernet, set_learning_rate
from search.unrolled import architecture_gradient, sgd_direction, unrolled_gradient
from search.upper_loss import CrossEntropies
from search.vulnerability.constraint import Attacked, Batch, Constraint
from search.vulnerability.projection import LEAST_ITERATIONS, Projection, least, project, summarize
from wsrnas.attacks import attack_mode, is_correct
from wsrnas.data.image_set import DataSet
from wsrnas.runtime.distributed import World, all_sum, broadcast
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.finite import require_finite
from wsrnas.runtime.preemption import until_asked
from wsrnas.runtime.progress import progress
from wsrnas.runtime.seeding import BatchNoise, generator, seeded_weights
from wsrnas.training.batch_norm import recalibrate_batch_norm, running_statistics_kept
from wsrnas.training.epoch import Epoch
from wsrnas.training.losses import LOSSES

Item = TypeVar("Item")
SLOWER = "start under another --save with a lower --learning_rate or --architecture_learning_rate"


class RnasSearcher(SupernetSearcher):
    """Own the supernet, the architecture parameters A, their optimisers and the bound H, for one data set.

    Args:
        config: configuration of the search.
        data: the data set.
        split: indices of D_t and D_v in the training set.
        world: processes that share the batches.
    """

    config: RnasConfig

    def __init__(self, config: RnasConfig, data: DataSet, split: tuple[Tensor, Tensor], world: World) -> None:
        self.config, self.world, self.space = config, world, SPACES[config.space]
        self.bound: float | None = None  # H, once it is resolved
        self.loaders = build_loaders(config, data, split, world)
        with seeded_weights(config.seed):
            self.supernet = build_supernet(config, data.num_classes, data.image_shape[0])
        self.supernet.to(world.device).to(memory_format=torch.channels_last)
        self.relaxation = Relaxation(config.relaxation, config.tau, config.seed)
        self.constraint = Constraint(
            self.supernet, self.relaxation, config.pgd_settings(), config.statistics == "batch",
            config.paths, config.distance, config.standardize, world, config.seed)
        self.cross_entropies = CrossEntropies(
            self.supernet, self.relaxation, config.upper_attack().attack, config.loss_settings(), world, config.seed)
        self.initial_genotype = self.genotype()

    @cached_property
    def architecture_optimizer(self) -> torch.optim.Adam:
        """The optimiser of A."""
        return torch.optim.Adam(self.supernet.architecture_parameters(), self.config.architecture_learning_rate,
                                betas=(0.5, 0.999), weight_decay=self.config.architecture_weight_decay)

    @property
    def steps(self) -> int:
        """T, steps of an epoch."""
        return self.loaders.steps

    # -- the parts of Algorithm 1 ---------------------------------------------------------------------------------

    def begin_epoch(self, epoch: int) -> Epoch:
        """Set the learning rate of an epoch, and return an empty sum of its training metrics."""
        set_learning_rate(self.trainer.optimizer, cosine_rate(self.config, epoch, self.config.epochs))
        self.trainer.steps = epoch * self.steps
        return Epoch()

    def warm_up(self, epoch: int, trained: Epoch) -> None:
        """Train one epoch of phase I adversarially on D_t; A stays."""
        batches = zip(range(self.steps), self.loaders.training.batches(epoch), strict=False)
        for step, batch in self._followed(batches, epoch, "warm-up", self.steps):
            self._train(epoch, step, batch, trained)
        trained.refuse_divergence(f"epoch {epoch + 1}", self.world)

    def search_freely(self, epoch: int, trained: Epoch) -> dict[str, float]:
        """Run step 1 of phase II: the weights descend the loss on D_t, then A the upper loss on D_v (Eq. 8)."""
        losses = []
        for step, batch, held_out in self._batches(epoch, 0, self.unconstrained_steps, "step 1"):
            self._train(epoch, step, batch, trained)
            losses.append(self._descend(epoch, step, batch, held_out))
        trained.refuse_divergence(f"epoch {epoch + 1}", self.world)
        self._refuse_divergence(epoch, 0, losses)
        return self._mean_losses(losses)

    def search_constrained(self, epoch: int, trained: Epoch) -> dict[str, float]:
        """Run step 2 of phase II: project A onto F <= H, batch by batch (Eq. 9)."""
        mode, projections, losses = self.config.constrained_step, [], []
        start = self.alphas()
        for step, batch, held_out in self._batches(epoch, self.unconstrained_steps, self.steps, "step 2"):
            if mode == "descend+project":
                self._train(epoch, step, batch, trained)
                losses.append(self._descend(epoch, step, batch, held_out))
            if self.resolved_bound < math.inf:
                projections.append(self._project(epoch, step, held_out, trained))
            if mode == "project+train":
                self._train(epoch, step, batch, trained)
        trained.refuse_divergence(f"epoch {epoch + 1}", self.world)
        self._refuse_divergence(epoch, self.unconstrained_steps, losses)
        return summarize(projections) | {"travelled": (self.alphas() - start).norm().item()}

    def resolve_bound(self) -> dict[str, Any]:
        """Turn H into a number at the end of the warm-up.

        A relative H is a share of the median F of ``bound_batches`` batches of D_v.

        Returns:
            ``bound``: H, that median and the F of every batch; empty without a bound.

        Raises:
            InputError: H is below the least vulnerability that a descent finds.
        """
        config = self.config
        if not config.bounded:
            self.bound = math.inf
            return {}
        frozen = self.watched(config.bound_batches)
        values = [self.constraint.value(batch, self.alphas()) for batch in frozen]
        reference = statistics.median(values)
        bound = config.bound().resolve(reference)
        vulnerability = self.constraint.of_batches(frozen[:config.watched_batches])
        trial = self._projected(vulnerability, bound)
        if not trial.feasible:
            lowest, _ = least(vulnerability, self.alphas(), iterations=LEAST_ITERATIONS)
            lowest = min(lowest, trial.after)
            if lowest > bound:
                raise InputError(
                    f"vulnerability_bound is {config.vulnerability_bound}, that is H = {bound:.4g}, but the least "
                    f"vulnerability found on {config.watched_batches} batches of D_v is {lowest:.4g} "
                    f"(after the warm-up it is {reference:.4g}); expected at least {RELATIVE}"
                    f"{math.ceil(100 * lowest / reference) / 100:g}, better more, because batches differ. The trained "
                    "weights are kept: the same command with a larger bound continues from there")
        self.bound = bound
        return {"bound": {"value": bound, "reference": reference, "batches": values}}

    def watch(self) -> dict[str, Any]:
        """Measure the vulnerability of the supernet and of its cells on the same few batches of D_v every time."""
        parts = [part for batch in self.watched(self.config.watched_batches) for part in batch]
        cells = self._mean([self.constraint.cells(part, self.alphas()) for part in parts])
        return {"network": cells.mean().item(), "cells": cells.tolist()}

    def finish(self) -> dict[str, Any]:
        """Project A for the last time, over ``bound_batches`` batches of D_v together, and measure the final cell.

        Returns:
            ``bound``; ``projection``; ``child``: vulnerability and accuracies of the discretised supernet with its
            weights.
        """
        result: dict[str, Any] = {"bound": None}
        if self.resolved_bound < math.inf:
            result["bound"] = self.bound
            vulnerability = self.constraint.of_batches(self.watched(self.config.bound_batches))
            projection = self._projected(vulnerability, self.resolved_bound)
            self.set_alphas(projection.alphas)
            result["projection"] = summarize([projection])
        return result | {"child": self._measure_child()}

    # -- what they need -------------------------------------------------------------------------------------------

    @property
    def resolved_bound(self) -> float:
        """H as a number; ``resolve_bound`` comes first."""
        assert self.bound is not None
        return self.bound

    @property
    def unconstrained_steps(self) -> int:
        """u, steps of step 1 in an epoch."""
        return self.config.unconstrained_steps(self.steps)

    def _batches(self, epoch: int, first: int, last: int, label: str) -> Iterator[tuple[int, Batch, Batch]]:
        """Yield number, batch of D_t and batch of D_v of some steps of an epoch."""
        steps = zip(range(first, last), self.loaders.training.batches(epoch, first),
                    self.loaders.architecture.batches(epoch, first), strict=False)
        return self._followed(steps, epoch, label, last - first)

    def _followed(self, steps: Iterable[Item], epoch: int, label: str, count: int) -> Iterator[Item]:
        """Show the progress of some steps of an epoch, and stop between two of them when asked to."""
        shown = progress(steps, f"epoch {epoch + 1}: {label}", self.world, count)
        return until_asked(shown, self.stop, f"stopped in epoch {epoch + 1}; those before it are saved")

    def follow(self, alphas: Tensor, *draw: int | str) -> None:
        """Make the supernet run A = ``alphas``; ``draw`` names the noise of a sampled path."""
        self.relaxation.follow(self.supernet, alphas, *draw)

    def watched(self, count: int) -> list[list[Attacked]]:
        """Attack the first batches of D_v, the same every time, at the current A, and keep the noise."""
        first = islice(self.loaders.watched.batches(0), count)
        batches = progress(first, "attacks on watched batches", self.world, count)
        return [self.constraint.freeze(batch, "watched", number) for number, batch in enumerate(batches)]

    def _train(self, epoch: int, step: int, batch: Batch, trained: Epoch) -> None:
        """Take one step of the weights at the current A."""
        self.follow(self.alphas(), "training", epoch, step)
        trained.add(self.trainer.step(*batch), self.trainer.gradient_norm)
        if trained.batches % self.config.report_freq == 0:
            trained.refuse_divergence(f"epoch {epoch + 1}", self.world)

    def _descend(self, epoch: int, step: int, batch: Batch, held_out: Batch) -> Tensor:
        """Take one step of A down the upper loss of ``held_out``; return its losses (2,), clean and adversarial."""
        draw, measured = ("architecture", epoch, step), []
        weights = torch.tensor(self.config.upper_weights, device=self.world.device)
        losses = self.cross_entropies.freeze(held_out, self.config.upper_weights, "upper", *draw)

        def upper(alphas: Tensor) -> Tensor:
            measured.append(losses(alphas))
            return measured[-1] @ weights

        if self.config.order == "first":
            with attack_mode(self.supernet, batch_statistics=True):
                gradient = architecture_gradient(upper, self.alphas())
        else:
            trained = self.cross_entropies.freeze(batch, (0, 1), "lower", *draw)
            with running_statistics_kept(self.supernet):
                direction = sgd_direction(self.trainer.optimizer, trained(self.alphas())[1])
                gradient = unrolled_gradient(upper, lambda alphas: trained(alphas)[1], self.alphas(), *direction)
        for parameter, part in zip(self.supernet.architecture_parameters(),
                                   self.constraint.mean_over_processes(gradient), strict=True):
            parameter.grad = part
        self.architecture_optimizer.step()
        self.architecture_optimizer.zero_grad(set_to_none=True)
        return measured[0].detach()

    def _projected(self, vulnerability: Callable[[Tensor], Tensor], bound: float) -> Projection:
        """Return the projection of the current A under a vulnerability; A stays."""
        config = self.config
        iterations = config.solver_iterations if config.solver == "slp" else None
        return project(vulnerability, self.alphas(), bound, config.solver, max_iterations=iterations)

    def _project(self, epoch: int, step: int, held_out: Batch, trained: Epoch) -> Projection:
        """Replace A by its projection under F of one batch; weights, buffers and random states stay."""
        frozen = self.constraint.freeze(held_out, "projection", epoch, step)
        try:
            result = self._projected(self.constraint.of_batch(frozen), self.resolved_bound)
        except InputError:  # F is not a number
            trained.refuse_divergence(f"epoch {epoch + 1}", self.world)  # because the training diverged, if it did
            raise
        self.set_alphas(result.alphas)
        return result

    def _measure_child(self) -> dict[str, Any]:
        """Measure vulnerability and accuracies of the genotype with the supernet's weights and renewed BatchNorm."""
        batches = islice(self.loaders.recalibration.batches(0), self.config.recalibration_batches)
        self.supernet.use(self.space.path_gates(self.genotype()))
        recalibrate_batch_norm(self.supernet, batches, self.world)
        self.supernet.eval()
        cells, correct, count = [], torch.zeros(2, device=self.world.device), 0
        watched = progress(islice(self.loaders.watched.batches(0), self.config.bound_batches),
                           "attacks on the genotype", self.world, self.config.bound_batches)
        for number, (images, labels) in enumerate(watched):
            stream = generator(self.config.seed, "child", number, device=self.world.device)
            adversarial = LOSSES["pgd"].attack(self.supernet, images, labels, self.config.pgd_settings(),
                                               BatchNoise(stream, self.world.rank, self.world.size))
            outputs: list[Tensor] = []
            with torch.no_grad(), attack_mode(self.supernet, path_alone=True):
                logits = self.supernet(torch.cat([images, adversarial]), outputs)
            cells.append(self.constraint.compare(outputs))
            correct += torch.stack([is_correct(half, labels).sum() for half in logits.chunk(2)])
            count += len(images) * self.world.size
        clean, robust = (all_sum(correct, self.world) / count).tolist()
        mean = self._mean(cells)
        return {"vulnerability": mean.mean().item(), "cells": mean.tolist(), "clean_accuracy": clean,
                "adversarial_accuracy": robust}

    def _mean(self, values: Sequence[Tensor]) -> Tensor:
        """Return the mean over a list and over the processes."""
        return self.constraint.mean_over_processes(torch.stack([value.detach() for value in values]).mean(0))

    def _refuse_divergence(self, epoch: int, first: int, losses: Sequence[Tensor]) -> None:
        """Refuse upper losses of the steps from ``first`` on, or architecture parameters, that are not finite."""
        for step, found in enumerate(losses, start=first + 1):
            require_finite(found, f"epoch {epoch + 1}, step {step}: the upper loss on D_v", SLOWER)
        require_finite(self.alphas(), f"epoch {epoch + 1}: an architecture parameter", SLOWER)

    def _mean_losses(self, losses: Sequence[Tensor]) -> dict[str, float]:
        """Return the mean losses of step 1 on D_v in nats."""
        return dict(zip(("clean", "adversarial"), self._mean(losses).tolist(), strict=True)) if losses else {}

    def alphas(self) -> Tensor:
        """Return A, (M, E, O), detached."""
        return self.supernet.alphas().detach()

    @torch.no_grad()
    def set_alphas(self, alphas: Tensor) -> None:
        """Set A to values (M, E, O), the same in all processes."""
        for parameter, values in zip(self.supernet.architecture_parameters(), alphas, strict=True):
            parameter.copy_(values)
        broadcast(self.supernet.architecture_parameters(), self.world)

    def genotype(self) -> Any:
        """Return the architecture of the current A by the DARTS rule: the largest softmax weights."""
        return self.space.discretize(self.alphas().softmax(-1))

    def parts(self) -> dict[str, Any]:
        """Return networks and optimisers, that of A too, by their keys in the checkpoint."""
        return super().parts() | {"architecture_optimizer": self.architecture_optimizer}

    def own_state(self) -> dict[str, Any]:
        """Return H, once it is resolved."""
        return {"bound": self.bound}

    def load_own_state(self, state: dict[str, Any]) -> None:
        """Continue from the result of ``own_state``."""
        self.bound = state["bound"]
