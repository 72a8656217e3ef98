"""Which images a network classifies correctly under which attack; network and attack are in evaluation mode."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from wsrnas.attacks import attack_mode, is_correct, random_start
from wsrnas.data.loader import BatchLoader
from wsrnas.evaluation.attack_spec import Attack
from wsrnas.evaluation.attack_table import AttackTask
from wsrnas.evaluation.ball_check import require_in_ball
from wsrnas.evaluation.chunks import ChunkedMeasurement
from wsrnas.evaluation.curve import Curve, smallest_noise
from wsrnas.evaluation.journal import Journal
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.seeding import generator


class Evaluation(ChunkedMeasurement):
    """One network on one set of test images; every number is a list of the images that it classifies correctly.

    Random numbers belong to an image (seed, attack, start, index), so neither the size of the batches nor the number
    of processes changes a result. Only AutoAttack's own random numbers belong to a batch.

    Args:
        model: network from images (B, C, H, W) in [0, 1] to logits (B, K), on the processes' device, in evaluation
            mode.
        loader: loader of the test images (``images_at``).
        num_classes: number of classes.
        world: the processes that share the chunks; None: a single one.
        seed: seed of all random numbers.
        batch_size: number of images of a chunk, which is attacked at once, or in halves where the GPU's memory is too
            small.
        journal: store of finished chunks; None: nothing is stored.
        source: network on which ``transfer`` makes its images.
        source_name: fingerprint of the source.
        name: first words of the progress line.
        log: function that prints a line.
        stop: function that is asked before every chunk, in one process alone; once it returns True the evaluation
            ends with ``Preempted``.
        has_gradient: whether a gradient leads from the logits to the images; the honesty checks need to know.
    """

    def __init__(self, model: nn.Module, loader: BatchLoader, num_classes: int, world: World | None = None,
                 seed: int = 0, batch_size: int = 500, journal: Journal | None = None, source: nn.Module | None = None,
                 source_name: str = "", name: str = "evaluate", log: Callable[[str], None] = print,
                 stop: Callable[[], bool] = lambda: False, has_gradient: bool = True) -> None:
        super().__init__(loader, world or World(), batch_size, journal, name, log, stop)
        self.model, self.num_classes, self.seed, self.has_gradient = model, num_classes, seed, has_gradient
        self.source, self.source_name = source, source_name

    def clean(self) -> Tensor:
        """Return which images are classified correctly without noise, (N,) bool."""
        self.passes.pop("clean", None)

        def judge(images: Tensor, labels: Tensor, _: Tensor) -> tuple[Tensor, list[str]]:
            self._spend(len(images), 0, 1)
            return self._correct(images, labels), []

        return self.stage("clean", "clean", torch.arange(self.images), judge, "clean")

    def robust(self, attack: Attack, among: Tensor) -> Tensor:
        """Return which images are still classified correctly under an attack.

        An image that falls to one start, or to one part of AutoAttack, is not attacked by the next.

        Args:
            attack: the attack at its strength.
            among: (n,) indices of the images to attack.

        Returns:
            (N,) bool, False for all other images.

        Raises:
            InputError: A transfer attack has no source, there are too few classes for the attack, the attack returned
                something else than images in its ball, or there is not enough memory for one image.
        """
        if attack.entry.needs_source and self.source is None:
            raise InputError(f"a {attack.method} attack needs another network to make its images: pass --source")
        check_classes(attack, self.num_classes, "there are")
        key = self._key(attack)
        self.seconds.pop(key, None)
        self.passes.pop(key, None)
        withstood = torch.zeros(self.images, dtype=torch.bool)
        withstood[among] = True
        for number, stage in enumerate(attack.stages):
            left = withstood.nonzero().flatten()

            def judge(images: Tensor, labels: Tensor, indices: Tensor, stage: str = stage, start: int = number
                      ) -> tuple[Tensor, list[str]]:
                task = self.task(attack, stage, start, images, labels, indices)
                found = require_in_ball(attack.entry.run(task), task, str(attack))
                flags = self._correct(found, labels)
                both, forward = task.spent or attack.passes_of_a_stage
                self._spend(1 if task.spent else len(images), both, forward)
                smaller = attack.entry.random_per_batch and self.part < self.batch_size
                return flags, task.warnings + [f"random numbers of batches of {self.part} images, for which alone the "
                                               "memory was sufficient"] * smaller

            withstood = self.stage(key, stage, left, judge, str(attack), attack.entry.random_per_batch)
        return withstood

    def distances(self, curve: Curve, among: Tensor) -> Tensor:
        """Return the smallest noise found for each image, (N,) float64.

        Args:
            curve: the curve that the noise is searched for.
            among: (n,) indices of the images to attack.

        Returns:
            Norms of the noise, infinite where none was found; 0 for all other images.
        """
        self.seconds.pop(curve.key, None)
        self.passes.pop(curve.key, None)

        def judge(images: Tensor, labels: Tensor, _: Tensor) -> tuple[Tensor, list[str]]:
            found, spent = smallest_noise(self.model, images, labels, curve)
            self._spend(1, *spent)
            return found.distances, []

        return self.values(curve.key, "distances", among, judge, str(curve))

    def cost(self, attack: Attack | Curve) -> tuple[float, list[str]]:
        """Return the seconds over all processes that an attack took when it was last run or stored, and its warnings.

        Args:
            attack: the attack at its strength, or a curve.
        """
        return self.seconds.get(self._key(attack), 0.0), self.warnings.get(self._key(attack), [])

    def passes_of(self, attack: Attack | Curve | None) -> tuple[float, float] | None:
        """Return the passes that an attack took for each test image when it was last run or stored.

        Args:
            attack: the attack at its strength, or a curve; None: the prediction without noise.

        Returns:
            Passes forward with backward and forward alone, means over all test images, those that were not attacked
            included; None where a stored chunk does not say.
        """
        both, forward = self.passes[self._key(attack) if attack else "clean"].mean(0).tolist()
        return None if math.isnan(both) else (both, forward)

    def task(self, attack: Attack, stage: str, start: int, images: Tensor, labels: Tensor, indices: Tensor,
             network: nn.Module | None = None, num_classes: int = 0) -> AttackTask:
        """Return what the attack's function needs for one batch.

        Args:
            attack: the attack at its strength.
            stage: name of the stage.
            start: number of the stage.
            images: (B, C, H, W) in [0, 1].
            labels: (B,) classes.
            indices: (B,) numbers of the images, which random numbers depend on.
            network: network to attack; None: the evaluation's, or its source.
            num_classes: number of classes of ``network``.
        """
        name = replace(attack, restarts=1).key  # ten starts are the first two and eight more
        epsilon = math.inf if attack.epsilon is None else attack.epsilon

        def generators(purpose: str) -> list[torch.Generator]:
            return [generator(self.seed, "evaluation", purpose, name, start, index) for index in indices.tolist()]

        begin = None
        if attack.random_start:  # drawn image by image on the CPU, so that no batch, device or process changes it
            begin = torch.cat([random_start(image[None], epsilon, attack.norm, draws)
                               for image, draws in zip(images.cpu(), generators("start"), strict=True)]).to(images)
        own = self.source if attack.entry.needs_source and self.source is not None else self.model
        return AttackTask(network or own, images, labels, epsilon, attack.norm, attack.steps, attack.step_size,
                          attack.loss, stage, num_classes or self.num_classes, self.seed, begin, generators)

    def _spend(self, images: int, both: int, forward: int) -> None:
        """Add the passes of some images, forward with backward and forward alone, to those of the chunk at hand."""
        self.spent += images * torch.tensor([both, forward])

    def complete(self, attack: Attack) -> Attack:
        """Return the attack with its source, where it needs one."""
        return replace(attack, source=self.source_name) if attack.entry.needs_source else attack

    def _key(self, attack: Attack | Curve) -> str:
        """Return the name under which an attack is stored, with all that its result depends on."""
        if isinstance(attack, Curve):
            return attack.key
        batch = f"_batch{self.batch_size}" if attack.entry.random_per_batch else ""
        return self.complete(attack).key + batch

    @torch.no_grad()
    def _correct(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return which images are classified correctly, (B,) bool; an image with a logit that is no number is not."""
        with attack_mode(self.model):
            logits = self.model(images)
        return is_correct(logits, labels)


def check_classes(attack: Attack, num_classes: int, subject: str) -> None:
    """Refuse an attack that needs more classes.

    Args:
        attack: the attack.
        num_classes: number of classes.
        subject: words before the number in the error message: ``there are`` or ``digits has``.

    Raises:
        InputError: There are too few classes.
    """
    least = attack.entry.least_classes
    if num_classes < least:
        others = "; attack with apgd-ce and square instead" if num_classes > 1 else ""
        raise InputError(f"{attack.entry.label} needs at least {least} classes, and {subject} {num_classes}{others}")


def refuse_gradient_attacks(attacks: Sequence[Attack | Curve], subject: str) -> None:
    """Refuse attacks that follow the gradient of a network that has none.

    Args:
        attacks: the attacks, or a curve.
        subject: name of the network.

    Raises:
        InputError: Naming the network and the first such attack.
    """
    for attack in attacks:
        if isinstance(attack, Curve) or attack.entry.white_box:
            raise InputError(f"{subject} has no gradient for its images (its forward pass runs without gradients, or "
                             f"detaches), and {attack} follows one; expected a network without torch.no_grad, "
                             "torch.inference_mode and .detach(), or attacks that need no gradient: --attacks square "
                             "noise")
