"""The Wsr-NAS search: all that it owns, and one method for each step of Algorithm 1."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from search.measured_paths import described_paths, measured_shares, parameters
from search.measurement import batches_until_stopped, measure
from search.not_finite import finite, require_finite_measurement
from search.path_training import train_epoch_of_paths
from search.priors import priors_of
from search.searcher import SupernetSearcher
from search.spaces import SPACES
from search.spaces.supernet import Path
from search.strategy.anchors import Anchors
from search.strategy.estimator_check import estimator_gap, noise_samples
from search.strategy.memory import Memory
from search.strategy.objective import OBJECTIVES, build_objective
from search.strategy.rank_correlation import rank_correlation
from search.strategy.step import Step
from search.strategy.strengths import attacked_indices, column_name
from search.vulnerability.projection import summarize
from search.wsr_nas_parts import build_loaders, build_networks, few_shot_of
from search.wsr_nas_settings import SearchConfig, planned_estimator_steps, proposed_paths, schedule
from wsrnas.attacks import multi_strength_pgd, rows_at_once
from wsrnas.data.image_set import DataSet
from wsrnas.estimators.training import leave_one_out, train_estimator
from wsrnas.runtime.distributed import World, all_sum, broadcast_model
from wsrnas.runtime.errors import Preempted
from wsrnas.runtime.seeding import generator
from wsrnas.training.batch_norm import recalibrate_batch_norm

# Number of latest predictions used for the rank correlation; each was made before the predictor saw that entry.
NEWEST = 20


class Searcher(SupernetSearcher):
    """Own supernet, AN-Estimator, strategy, their optimisers and memories, for one data set.

    Args:
        config: configuration of the search.
        data: the data set.
        split: indices of D_t and D_v in the training set.
        world: the processes of the search.
    """

    config: SearchConfig

    def __init__(self, config: SearchConfig, data: DataSet, split: tuple[Tensor, Tensor], world: World) -> None:
        self.config, self.world, self.space = config, world, SPACES[config.space]
        self.network = config.init_channels, config.layers, data.num_classes, data.image_shape
        self._divide(attacked_indices(config.strengths, config.attacked_strengths, config.num_pgd_strengths))
        self.objective = build_objective(config)
        loaders = build_loaders(config, data, split, self.batch_world)
        self.train_set, self.train_loader, self.check_loader = loaders.train_set, loaders.training, loaders.check
        self.recalibration_loader, self.validation_loader = loaders.recalibration, loaders.validation
        self.supernet, self.estimator, self.strategy = build_networks(config, data, self.objective, world)
        self.few_shot = few_shot_of(config, self.supernet)
        self.priors = priors_of(config, self.space, self.network, loaders.few, world)
        self.estimator_memory, self.loss_memory = Memory(config.estimator_memory), Memory(self.strategy.capacity)
        self.estimator_step = self.proposed = 0
        self.estimator_total = planned_estimator_steps(config, len(self.attacked), sum(
            step.phase != "warm-up" for step in schedule(config)))
        self.paths: list[Path] = []  # of the current step: proposals, then anchors
        self.anchors = Anchors(config.anchors)
        self.bounds: Tensor | None = None  # H at every strength, once the population is known
        self.predictions: deque[list[float]] = deque(maxlen=NEWEST)
        self.initial_genotype = self.supernet.genotype()

    def _divide(self, attacked: list[int]) -> None:
        """Divide the strengths: PGD attacks those of these indices (ascending), the AN-Estimator makes the others."""
        strengths = torch.tensor(self.config.strengths, device=self.world.device)
        self.attacked, self.estimated = attacked, [i for i in range(len(strengths)) if i not in attacked]
        self.source_epsilons, self.target_epsilons = strengths[self.attacked], strengths[self.estimated]

    # -- the steps of Algorithm 1 ---------------------------------------------------------------------------------

    def sample(self, step: Step) -> None:
        """Choose the path H of this step, or several, and make the first the current one (lines 2 and 20).

        The anchors follow, where this step measures them again.

        Raises:
            Preempted: a signal asked to stop.
        """
        if self.stop():
            raise Preempted(f"stopped before {step.title}; the steps before it are saved")
        self.paths = self.strategy.sample(self.loss_memory, step, proposed_paths(self.config, step))
        self.proposed = len(self.paths)
        if step.phase != "warm-up":
            self.paths += [self.supernet.resolve(gates.view(self.space.shape)) for gates in self.anchors.gates]
        self.supernet.path = self.paths[0]

    def use(self, path: Path) -> None:
        """Make a path the current one, with the weights of the few-shot supernet that was trained for it, if any."""
        self.supernet.path = path
        if self.few_shot:
            self.few_shot.use(self.supernet, path.gates)

    def each_path(self) -> Iterator[bool]:
        """Make one path of this step after the other the current one; yield whether it is the first."""
        for path in self.paths:
            self.use(path)
            yield path is self.paths[0]

    def train_supernet(self, step: Step) -> dict[str, float]:
        """Train the sampled path, or one path in every step, adversarially on D_t for one epoch (lines 4, 8 and 21)."""
        return train_epoch_of_paths(self, step)

    def recalibrate(self, step: Step) -> None:
        """Give the path its own BatchNorm statistics before it is measured in evaluation mode."""
        epoch = step.index if self.config.trains_supernet else 0  # else the same batches for all paths
        batches = islice(self.recalibration_loader.batches(epoch), self.config.recalibration_batches)
        recalibrate_batch_norm(self.supernet, batches, self.batch_world)

    def update_estimator_memory(self, step: Step) -> None:
        """Attack B images of D_t and append the leave-one-out tasks to M_a (line 9)."""
        config = self.config
        draw = generator(config.seed, "estimator images", step.index)
        chosen = torch.randperm(len(self.train_set), generator=draw)[:config.estimator_images]
        batch = self.train_set.subset(chosen)
        images = (batch.images.float() / 255).contiguous(memory_format=torch.channels_last)
        tasks = leave_one_out(self.supernet, images, batch.labels, self.source_epsilons,
                              config.estimator_max_epsilon, config.measuring_steps, draw)
        self.estimator_memory.append(step.index, **tasks)

    def train_estimator(self, step: Step) -> dict[str, float]:
        """Train the AN-Estimator for K_a passes over M_a (line 10, Eq. 5)."""
        config = self.config
        error, self.estimator_step = train_estimator(
            self.estimator, self.estimator_optimizer, self.estimator_memory.rows, config.estimator_passes,
            generator(config.seed, "estimator", step.index), learning_rate=config.estimator_learning_rate,
            step=self.estimator_step, total_steps=self.estimator_total,
            batch_size=config.estimator_batch_size)
        broadcast_model(self.estimator, self.batch_world)
        finite(error, step, "the error of the AN-Estimator")
        return {"relative_error": error, "tasks": len(self.estimator_memory),
                "networks": self.estimator_memory.iterations()}

    @torch.no_grad()
    def validate(self, step: Step) -> dict[str, Tensor]:
        """Measure losses and accuracies (1 + N1 + N2,) over D_v: natural, then the strengths in order (lines 11-15).

        PGD makes the noise of the N1 strengths in one batch; the AN-Estimator turns it into the noise of the N2 others.
        Under a bound, the vulnerability at every strength (N1 + N2,) is measured as well.
        """
        sums = torch.zeros(2 + self.config.measures_vulnerability, 1 + len(self.config.strengths), dtype=torch.float64,
                           device=self.world.device)
        count = torch.zeros(1, dtype=torch.float64, device=self.world.device)
        loader = self.validation_loader
        with self.trainer.graphs.used(len(loader)):
            for images, labels in batches_until_stopped(loader, step.title, "validate", self.batch_world, self.stop):
                sums += measure(self.supernet, self._spectrum(images, labels), labels, self.config)
                count += len(images)
        losses, accuracies, *vulnerabilities = all_sum(sums, self.batch_world) / all_sum(count, self.batch_world)
        measured = {"losses": losses.float(), "accuracies": accuracies}
        if vulnerabilities:
            measured["vulnerabilities"] = vulnerabilities[0][1:].float()
        require_finite_measurement(measured, self.config.strengths, self.estimated, step)
        return measured

    @torch.no_grad()
    def check_estimator(self, step: Step) -> tuple[dict[str, Any], dict[str, Any]]:
        """Compare the estimated noise with PGD's on ``check_images`` images of D_v.

        This draws no random number and changes no state. Processes that share batches get the same numbers.

        Returns:
            The row of ``metrics.jsonl``: the result of ``estimator_gap``, the ``attacked`` strengths and, if the
            largest gap is above ``max_estimator_gap``, the ``fallback``: a strength that PGD also attacks from then on.
            The arrays of the report: ``images`` (B, C, H, W) bytes, ``epsilons`` (T,), ``pgd`` and ``estimated``
            noises (B, T, C, H, W), and ``step``; empty where this process has no image.
        """
        config, loader, targets = self.config, self.check_loader, self.target_epsilons
        sums = torch.zeros(2, 2 + config.measures_vulnerability, len(targets), dtype=torch.float64,
                           device=self.world.device)
        shown: dict[str, np.ndarray] = {}
        for images, labels in batches_until_stopped(loader, step.title, "check", self.batch_world, self.stop):
            estimated = self._estimate(images, labels, self._attack(images, labels, self.source_epsilons))
            attacked = self._attack(images, labels, targets)
            sums += torch.stack([measure(self.supernet, noisy.unbind(1), labels, config, images)
                                 for noisy in (estimated, attacked)])
            if not shown:
                shown = noise_samples(images, targets, {"pgd": attacked, "estimated": estimated}, step.index)
        by_estimate, by_pgd = all_sum(sums, self.batch_world)
        row = estimator_gap([config.strengths[i] for i in self.estimated], by_estimate, by_pgd, len(loader.image_set))
        row["attacked"] = [config.strengths[i] for i in self.attacked]
        if 0 < config.max_estimator_gap < row["largest_gap"]:
            row["fallback"] = row["largest_gap_at"]
        return row, shown

    def attack_too(self, strength: float, gaps: Sequence[float], step: Step) -> None:
        """Let PGD attack one of the estimated strengths as well, from the step after ``step`` on.

        Args:
            strength: the estimated strength, in pixels of [0, 1].
            gaps: missing loss in nats, and under a bound missing vulnerability, of the estimate there.
            step: the last one before the change.
        """
        index, count = self.config.strengths.index(strength), len(self.config.strengths)
        self._divide(sorted([*self.attacked, index]))
        # The losses of this strength in M_v come from the weaker estimate; target and bound keep their meaning.
        if len(self.loss_memory):
            for column, gap in zip((1 + index, 1 + count + index), gaps, strict=False):
                self.loss_memory["losses"][:, column] += gap
                if len(self.anchors):
                    self.anchors.losses[:, column] += gap
        if self.bounds is not None and len(gaps) > 1 and self.config.bound().relative:
            self.bounds[index] += self.config.bound().value * gaps[1]
        self.predictions.clear()
        # The tasks in M_a have one source fewer than those to come; rows of one queue have one shape.
        self.estimator_memory = Memory(self.config.estimator_memory)
        remaining = len(schedule(self.config)) - step.index - 1
        self.estimator_total = self.estimator_step + planned_estimator_steps(self.config, len(self.attacked),
                                                                              remaining)

    def remember(self, step: Step, measured: Sequence[dict[str, Tensor]]) -> dict[str, Any]:
        """Append (H, L) to M_v (line 16), and report how well the predictor ranks entries before it has seen them.

        Under a bound, the vulnerabilities follow the losses in L. What anchors show of the supernet's progress is added
        to all entries before.

        Args:
            step: the current step.
            measured: results of ``validate`` for each path of the step.

        Returns:
            For the metrics, ``paths`` and ``loss_estimator``, what is known of the first path and of all predictions.
        """
        losses = torch.stack([self.row(found, path) for found, path in zip(measured, self.paths, strict=True)])
        losses, again = losses[:self.proposed], losses[self.proposed:]
        gates = torch.stack([path.encoding for path in self.paths[:self.proposed]])
        objectives = [self.objective(row).item() for row in losses]
        predicted = self.strategy.expected(self.paths[:self.proposed]) if step.phase == "search" else []
        paths = described_paths(self.space, gates, self.network, objectives, predicted)
        result = {name: value for name, value in paths[0].items() if name != "architecture"}
        if predicted:
            self.predictions.extend(map(list, zip(predicted, objectives, strict=True)))
            result |= {"ranked": len(self.predictions)} | rank_correlation(self.predictions)
        if len(again):
            before = self.objective(self.anchors.losses).mean().item()
            self.anchors.correct(self.loss_memory, again)
            result["anchor_change"] = self.objective(again).mean().item() - before
        self.loss_memory.append(step.index, gates=gates.to(losses.device), losses=losses)
        self.anchors.add(gates, losses)
        return {"loss_estimator": result, "paths": paths, "measured_shares": measured_shares(self.space, gates)}

    def row(self, measured: Mapping[str, Tensor], path: Path) -> Tensor:
        """Return what M_v keeps of a result of ``validate`` of a path, and what the objective reads: losses first."""
        row = OBJECTIVES[self.config.objective].row(measured)
        return torch.cat([row, row.new_tensor([-prior(path) for prior in self.priors])])

    def train_loss_estimator(self, step: Step) -> float:
        """Train the predictor on M_v (lines 18 and 23, Eq. 9); return its standardised squared error."""
        return finite(self.strategy.learn(self.loss_memory, step), step, "the error of the loss estimator")

    def update_architecture(self, step: Step) -> float:
        """Move A down the objective that the predictor expects (line 24); return that objective."""
        return finite(self.strategy.move(self.loss_memory, step), step, "the predicted objective")

    def project_architecture(self, step: Step) -> dict[str, Any]:
        """Project A onto the bounds of the predicted vulnerability (not part of Algorithm 1)."""
        config = self.config
        if self.bounds is None:
            reference = self.loss_memory["losses"][:, 1 + len(config.strengths):].median(0).values
            self.bounds = torch.stack([value.new_tensor(config.bound().resolve(value.item())) for value in reference])
        return {"bounds": dict(zip(map(column_name, config.strengths), self.bounds.tolist(), strict=True)),
                **summarize([self.strategy.project(self.bounds, step)])}

    # -- what they need -------------------------------------------------------------------------------------------

    def _spectrum(self, images: Tensor, labels: Tensor) -> list[Tensor]:
        """Return the natural images, then one noisy copy (B, C, H, W) for each strength in order."""
        attacked = self._attack(images, labels, self.source_epsilons)
        noisy = dict(zip(self.attacked, attacked.unbind(1), strict=True))
        if self.estimated:
            noisy |= zip(self.estimated, self._estimate(images, labels, attacked).unbind(1), strict=True)
        return [images, *(noisy[index] for index in range(len(noisy)))]

    def _attack(self, images: Tensor, labels: Tensor, epsilons: Tensor) -> Tensor:
        """Return PGD's images (B, S, C, H, W), of fewer images at a time where S > N1, to bound the memory."""
        part = max(1, len(images) * self.config.num_pgd_strengths // max(self.config.num_pgd_strengths, len(epsilons)))
        return torch.cat([multi_strength_pgd(self.supernet, some, of_some, epsilons, steps=self.config.measuring_steps,
                                             rows=rows_at_once(images))
                          for some, of_some in zip(images.split(part), labels.split(part), strict=True)])

    def _estimate(self, images: Tensor, labels: Tensor, attacked: Tensor) -> Tensor:
        """Return images with estimated noise (B, N2, C, H, W) from those that PGD attacked (B, N1, C, H, W)."""
        clean = images.unsqueeze(1)
        noises, epsilons = self.estimator.more_sources(self.supernet, images, labels, attacked - clean,
                                                       self.source_epsilons, self.target_epsilons)
        return (clean + self.estimator(noises, images, epsilons, self.target_epsilons)).clamp(0, 1)

    @cached_property
    def estimator_optimizer(self) -> torch.optim.AdamW | None:
        """The optimiser of the AN-Estimator; None for one without weights."""
        return self.config.estimator_optimizer(self.estimator)

    @property
    def learns_to_estimate(self) -> bool:
        """Whether there is an AN-Estimator to train: one with weights, and strengths to estimate."""
        return bool(self.estimated) and next(self.estimator.parameters(), None) is not None

    @property
    def checks(self) -> bool:
        """Whether estimates are compared with PGD."""
        return bool(self.estimated) and self.config.check_images > 0

    def genotype(self) -> Any:
        """Return the architecture that the strategy has found."""
        return self.strategy.architecture()

    def architecture_statistics(self) -> dict[str, Any]:
        """Return what A looks like, and the parameters of what was found in a network of the supernet's size."""
        choices = self.space.encode(self.genotype()).unsqueeze(0)
        return super().architecture_statistics() | {"parameters": parameters(self.space, choices, self.network)[0]}

    # -- state ----------------------------------------------------------------------------------------------------

    def parts(self) -> dict[str, Any]:
        """Return the networks and optimisers by their keys in the checkpoint."""
        parts = super().parts() | {"estimator": self.estimator} | self.strategy.parts()
        parts |= {"few_shot": self.few_shot} if self.few_shot and self.config.few_shot else {}
        return parts | ({"estimator_optimizer": self.estimator_optimizer} if self.estimator_optimizer else {})

    def own_state(self) -> dict[str, Any]:
        """Return memories, counts, division of the strengths, recent predictions and bounds."""
        return {
            "estimator_memory": self.estimator_memory.state_dict(), "loss_memory": self.loss_memory.state_dict(),
            "estimator_step": self.estimator_step, "estimator_total": self.estimator_total,
            "attacked": self.attacked, "predictions": list(self.predictions), "bounds": self.bounds,
            "anchors": self.anchors.state_dict(),
        }

    def load_own_state(self, state: dict[str, Any]) -> None:
        """Continue from the result of ``own_state``."""
        self.estimator_memory.load_state_dict(state["estimator_memory"], self.world.device)
        self.loss_memory.load_state_dict(state["loss_memory"], self.world.device)
        self.estimator_step, self.estimator_total = state["estimator_step"], state["estimator_total"]
        self._divide(list(state["attacked"]))
        if "anchors" in state:  # earlier versions have none
            self.anchors.load_state_dict(state["anchors"], self.world.device)
        self.bounds = state["bounds"] if state["bounds"] is None else state["bounds"].to(self.world.device)
        self.predictions = deque(state["predictions"], maxlen=NEWEST)
