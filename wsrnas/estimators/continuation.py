"""C-ANE: follow the noise from strength to strength, one gradient step at a few of them, and interpolate.

Shapes: B batch, C channels, H W image, S source strengths, T target strengths, A anchors. Strengths are L-inf radii in
pixels of [0,1].
"""

import torch
from torch import Tensor, nn

from wsrnas.attacks import pgd
from wsrnas.estimators.base import project
from wsrnas.estimators.interpolation import WAANE, interpolation_weights, weighted_average

ANCHOR_SHARE = 4, 15  # four anchors for 15 targets: 1/23 of the 91 passes of PGD-7, which share the first gradient
STEP = 0.5  # step size of an anchor = 0.5 * its epsilon


class CANE(WAANE):
    """Estimate by WA-ANE between more sources (continuation AN-Estimator, C-ANE). No parameters.

    Before it interpolates, it adds anchors to the sources: about every fourth target, nearest to the sources first.
    Each anchor begins at WA-ANE's estimate from all noises known by then and takes one step of PGD with the network.
    So the estimator follows the noise along its strength, as numerical continuation follows a path. Without a network
    (`forward` on the given sources alone) it is WA-ANE.

    Deviation: not in the paper. docs/AN_ESTIMATOR.md measures what it gains.
    """

    @staticmethod
    def gradients(targets: int) -> int:
        """Return the number of anchors for a number of targets; each takes a forward and backward pass per image."""
        return targets * ANCHOR_SHARE[0] // ANCHOR_SHARE[1]

    def more_sources(
        self, model: nn.Module, images: Tensor, labels: Tensor, source_noises: Tensor, source_epsilons: Tensor,
        target_epsilons: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return sources and anchors, ascending: noises (B, S + A, C, H, W) and strengths (B, S + A)."""
        batch = len(images)
        row = torch.arange(batch, device=images.device).unsqueeze(1)
        noises, sources = source_noises, source_epsilons.to(images).expand(batch, -1)
        anchors = anchor_strengths(sources, target_epsilons.to(images).expand(batch, -1),
                                   self.gradients(target_epsilons.shape[-1]))
        for epsilon in anchors.unbind(1):
            target = epsilon.unsqueeze(1)
            start = project(weighted_average(interpolation_weights(sources, target), noises), images, target)
            noise = pgd(model, images, labels, epsilon, steps=1, step_size=STEP * epsilon,
                        start=images + start.squeeze(1)) - images
            sources, order = torch.cat([sources, target], 1).sort(1)
            noises = torch.cat([noises, noise.unsqueeze(1)], 1)[row, order]
        return noises, sources


def anchor_strengths(sources: Tensor, targets: Tensor, count: int) -> Tensor:
    """Return the middles of `count` equal groups of the targets, those at the smallest ratio to a source first.

    Args:
        sources: (B, S), positive.
        targets: (B, T), in any order.
        count: A, number of anchors.

    Returns:
        (B, count).
    """
    total = targets.shape[1]
    # Counted on the device, because a list as an index is a copy that the host waits for.
    middles = (2 * torch.arange(count, device=targets.device) + 1) * total // max(1, 2 * count)
    anchors = targets.sort(1).values[:, middles]
    ratios = (anchors.clamp_min(torch.finfo(anchors.dtype).tiny).log().unsqueeze(2) - sources.log().unsqueeze(1)).abs()
    return anchors.gather(1, ratios.amin(2).argsort(dim=1, stable=True))
