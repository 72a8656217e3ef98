"""The loss on held-out images that the architecture descends, as a function of its parameters (RNAS, Eq. 8)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from search.relaxation import Relaxation
from search.spaces.supernet import Supernet
from wsrnas.attacks import full_precision
from wsrnas.runtime.distributed import World
from wsrnas.runtime.seeding import BatchNoise, generator
from wsrnas.training.losses import Attack, LossSettings

Losses = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class CrossEntropies:
    """Compute clean and adversarial cross-entropy of a supernet at any A.

    Attributes:
        supernet: the network.
        relaxation: map from A to the operations that the supernet runs.
        attack: function that makes the adversarial images.
        settings: settings of the attack.
        world: processes that share a batch.
        seed: seed of the random start of the attack.
    """

    supernet: Supernet
    relaxation: Relaxation
    attack: Attack
    settings: LossSettings
    world: World
    seed: int

    def freeze(self, batch: tuple[Tensor, Tensor], weights: Sequence[float], part: str, *draw: int | str) -> Losses:
        """Return both losses (2,) in nats of a batch as a function of A, with noise made at the current A.

        Clean and adversarial images go through the supernet together, in its own mode. A loss without weight is left
        out and counts as 0.

        Args:
            batch: images (B, C, H, W) in [0, 1] and labels (B,).
            weights: weights of the clean and of the adversarial loss.
            part: name, together with ``draw``, of the random start of the attack.
            *draw: names of the noise of a sampled path; two batches with the same names see the same path.
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
