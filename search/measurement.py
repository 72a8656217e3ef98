"""Measurement of the supernet on D_v: loss, accuracy and, if the search asks for it, vulnerability."""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from search.spaces.supernet import Supernet
from wsrnas.attacks import is_correct, many_attack_steps
from wsrnas.data.loader import BatchLoader
from wsrnas.evaluation.vulnerability import network_vulnerability
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import Preempted
from wsrnas.runtime.progress import progress


class Measured(Protocol):
    """Say whether the vulnerability is measured, and how; ``SupernetConfig`` does."""

    @property
    def measures_vulnerability(self) -> bool:
        """Whether it is measured."""

    @property
    def distance(self) -> str:
        """Distance of feature maps."""

    @property
    def standardize(self) -> bool:
        """Whether maps are divided by the clean channel's deviation."""


@torch.no_grad()
def measure(supernet: Supernet, columns: Iterable[Tensor], labels: Tensor, config: Measured,
            clean: Tensor | None = None) -> Tensor:
    """Measure the current path in evaluation mode on N versions of a batch of images.

    Args:
        supernet: network with a current path.
        columns: the N versions, each (B, C, H, W).
        labels: (B,).
        config: configuration of the search; it names the bound and the distance of the vulnerability.
        clean: images (B, C, H, W) that the vulnerability compares with; None: the first column.

    Returns:
        Sums over the images, (2, N): loss in nats and number of correct predictions; under a bound a third row, B times
        the vulnerability.
    """
    rows: list[list[Tensor]] = []
    reference: list[Tensor] = []
    with many_attack_steps(supernet):
        if config.measures_vulnerability and clean is not None:
            supernet(clean.contiguous(memory_format=torch.channels_last), reference)
        for images in columns:
            outputs: list[Tensor] | None = [] if config.measures_vulnerability else None
            logits = supernet(images.contiguous(memory_format=torch.channels_last), outputs)
            rows.append([F.cross_entropy(logits, labels, reduction="sum"), is_correct(logits, labels).sum()])
            if outputs is not None:
                reference = reference or outputs
                # Maps do not differ from themselves.
                vulnerability = logits.new_zeros(()) if outputs is reference else network_vulnerability(
                    reference, outputs, config.distance, config.standardize)
                rows[-1].append(len(labels) * vulnerability)
    return torch.stack([torch.stack([value.double() for value in row]) for row in rows], 1)


def batches_until_stopped(loader: BatchLoader, title: str, purpose: str, world: World,
                          stop: Callable[[], bool]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of a loader with a progress line, until a signal asks to stop.

    Processes ask one another at every batch that all of them have.

    Args:
        loader: images of D_v.
        title: name of the step.
        purpose: what is done in it.
        world: this process.
        stop: function that returns whether to stop; all processes call it together.

    Raises:
        Preempted: a signal asked to stop.
    """
    shared = shared_batches(loader, world)
    for number, batch in enumerate(progress(loader.batches(), f"{title}: {purpose}", world, len(loader))):
        if number < shared and stop():
            raise Preempted(f"stopped in {title}; the steps before it are saved")
        yield batch


def shared_batches(loader: BatchLoader, world: World) -> int:
    """Return how many batches every process has."""
    full, tail = divmod(len(loader.image_set), loader.batch_size)
    return full + (tail >= world.size) if loader.batch_size >= world.size else 0
