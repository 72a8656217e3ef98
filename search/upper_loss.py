"""The loss on held-out images that the architecture descends, as a function of its parameters (RNAS, Eq. 8)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from search.relaxation import Relaxation
from search.supernet import Supernet
from wsrnas.attacks import full_precision
from wsrnas.runtime.distributed import World
from wsrnas.runtime.seeding import BatchNoise, generator
from wsrnas.training.losses import Attack, LossSettings

Losses = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class CrossEntropies:
    """Clean and adversarial cross-entropy of a supernet at any A.

    Attributes:
        attack: what makes the noise; settings: of it.
        seed: of its random start.
    """

    supernet: Supernet
    relaxation: Relaxation
    attack: Attack
    settings: LossSettings
    world: World
    seed: int

    def freeze(self, batch: tuple[Tensor, Tensor], weights: Sequence[float], part: str, *draw: int | str) -> Losses:
        """Both losses (2,) in nats of a batch as a function of A, the noise made at the supernet's current one.

        Both halves go through the supernet together, in its own mode; one without weight is left out and counts 0.

        Args:
            weights: of the clean and of the adversarial loss.
            part: names, with ``draw``, the attack's random start.
            draw: names the noise of a sampled path; two batches of one draw see one path.
        """
        images, labels = batch
        self.relaxation.follow(self.supernet, self.supernet.alphas().detach(), *draw)
        stream = generator(self.seed, "attack", part, *draw, device=images.device)
        noise = BatchNoise(stream, self.world.rank, self.world.size)
        clean, adversarial = weights
        halves = [images] if clean else []
        if adversarial:
            halves.append(self.attack(self.supernet, images, labels, self.settings, noise))
        both = torch.cat(halves).contiguous(memory_format=torch.channels_last)

        def losses(alphas: Tensor) -> Tensor:
            self.relaxation.follow(self.supernet, alphas, *draw)
            parts = iter(full_precision(self.supernet(both)).chunk(len(halves)))
            return torch.stack([F.cross_entropy(next(parts), labels) if weight else both.new_zeros(())
                                for weight in weights])
        return losses
