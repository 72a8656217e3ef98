"""The interface of every AN-Estimator: one signature, one unit, one projection.

Shapes: B batch, C channels, H W image, S source strengths, T target strengths. Strengths are L-inf radii
in pixels of [0,1].
"""

import torch
from torch import Tensor, nn

from wsrnas.runtime.errors import InputError

MIN_IMAGE_SIZE = 8  # pixels; the convolutions of the learned estimators need as many


def radii(epsilons: Tensor) -> Tensor:
    """Return strengths (..., N) as radii (..., N, 1, 1, 1) that broadcast over noises (B, N, C, H, W)."""
    return epsilons[..., None, None, None]


def project(noise: Tensor, images: Tensor, epsilons: Tensor) -> Tensor:
    """Clamp noise into the L-inf ball of its strength and, added to its image, into the image box [0,1].

    Both sets are boxes, so one clamp to [max(-epsilon, -x), min(epsilon, 1 - x)] is the exact projection.

    Args:
        noise: (B, T, C, H, W), pixels of [0,1].
        images: (B, C, H, W) in [0,1].
        epsilons: (T,) or (B, T), not negative, pixels of [0,1].

    Returns:
        (B, T, C, H, W).
    """
    radius, pixels = radii(epsilons.to(noise)), images.unsqueeze(1)
    return noise.clamp(torch.maximum(-radius, -pixels), torch.minimum(radius, 1 - pixels))


class NoiseEstimator(nn.Module):
    """Estimate adversarial noise at new strengths from noise at a few strengths (phi of Eq. 3).

    A subclass defines `estimate`, whose arguments are checked and have one dtype and device. No method reads
    a value on the host, so that nothing waits for the accelerator.

    Args:
        channels: C of the images.
    """

    def __init__(self, channels: int = 3) -> None:
        super().__init__()

    def forward(
        self, source_noises: Tensor, images: Tensor, source_epsilons: Tensor, target_epsilons: Tensor
    ) -> Tensor:
        """Estimate noise at the target strengths, inside the L-inf ball and the image box.

        Args:
            source_noises: (B, S, C, H, W), pixels of [0,1].
            images: (B, C, H, W) in [0,1]; device and dtype of the result, and of the estimator's weights.
            source_epsilons: (S,) or per image (B, S); positive and ascending along S (not checked: reading
                the values would wait for the accelerator).
            target_epsilons: (T,) or per image (B, T); not negative, in any order.

        Returns:
            (B, T, C, H, W).

        Raises:
            InputError: the shapes do not fit together, or the images are smaller than 8 pixels.
        """
        # Deviation: paper and reference restore the L2 norm of the target only; we enforce the bounds of the
        # attack, the L-inf radius and the image box.
        noise = self.unprojected(source_noises, images, source_epsilons, target_epsilons)
        return project(noise, images, target_epsilons)

    @staticmethod
    def gradients(targets: int) -> int:
        """Return the number of forward and backward passes of `more_sources` per image for ``targets`` strengths."""
        return 0

    def more_sources(
        self, model: nn.Module, images: Tensor, labels: Tensor, source_noises: Tensor, source_epsilons: Tensor,
        target_epsilons: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return the sources to estimate from; an estimator that uses the network adds sources to the given ones.

        Args:
            model: images (B, C, H, W) in [0,1] -> logits (B, K); attacked in `attack_mode`.
            images: images, as in `forward`.
            labels: (B,) classes.
            source_noises: noises, as in `forward`.
            source_epsilons: their strengths, as in `forward`.
            target_epsilons: wanted strengths, as in `forward`.

        Returns:
            Noises (B, S', C, H, W) and their strengths, (S',) or (B, S'), ascending.
        """
        return source_noises, source_epsilons

    def unprojected(
        self, source_noises: Tensor, images: Tensor, source_epsilons: Tensor, target_epsilons: Tensor
    ) -> Tensor:
        """Estimate noise (B, T, C, H, W) before the projection: phi of Eq. 5, without a clamp that stops gradients.

        Arguments and errors are those of `forward`.
        """
        _check_shapes(source_noises, images, source_epsilons, target_epsilons)
        return self.estimate(
            source_noises.to(images), images, source_epsilons.to(images), target_epsilons.to(images)
        )

    def estimate(
        self, source_noises: Tensor, images: Tensor, source_epsilons: Tensor, target_epsilons: Tensor
    ) -> Tensor:
        """Estimate noise; a subclass defines this, with the arguments and the result of `unprojected`."""
        raise NotImplementedError


def _check_shapes(source_noises: Tensor, images: Tensor, sources: Tensor, targets: Tensor) -> None:
    """Raise InputError unless the four arguments of an estimator fit together."""
    if images.ndim != 4 or min(images.shape[-2:]) < MIN_IMAGE_SIZE:
        raise InputError(
            f"images: expected (B, C, H, W) with H and W of at least {MIN_IMAGE_SIZE}, "
            f"got {tuple(images.shape)}"
        )
    batch, *image_shape = images.shape
    count = source_noises.shape[1] if source_noises.ndim == 5 else 0
    if count == 0 or source_noises.shape != (batch, count, *image_shape):
        raise InputError(
            f"source_noises: expected (B, S, C, H, W) for images {tuple(images.shape)} with S of at least 1, "
            f"got {tuple(source_noises.shape)}"
        )
    if tuple(sources.shape) not in {(count,), (batch, count)}:
        raise InputError(
            f"source_epsilons: expected ({count},) or ({batch}, {count}), got {tuple(sources.shape)}"
        )
    if targets.ndim not in {1, 2} or targets.shape[-1] == 0 or (targets.ndim == 2 and len(targets) != batch):
        raise InputError(
            f"target_epsilons: expected (T,) or ({batch}, T) with T of at least 1, got {tuple(targets.shape)}"
        )
