"""The common parts of the learned AN-Estimators: normalised noises, bidirectional recurrence, attention (Fig. 2).

Shapes: B batch, C channels, H W image, S source strengths, T target strengths, D and ... one code (a vector
or a feature map of D channels). Strengths are L-inf radii in pixels of [0,1].
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsrnas.estimators.base import NoiseEstimator, project, radii
from wsrnas.estimators.interpolation import bracket, interpolation_weights, weighted_average

STRENGTH_UNIT = 8 / 255  # the strength that the strength encoders see as 1
STRENGTH_FEATURES = 20
PIXELS_AT_ONCE = 4096  # on a CPU: four images of 32x32


class RecurrentEstimator(NoiseEstimator):
    """Estimate by the weighted average plus a learned adjustment, in units of the target strength (Eq. 7).

    A subclass sets the hidden cells `forward_cell` and `backward_cell` (state, strength and noise code
    concatenated along the channels -> state), and defines `encode_image`, `encode_strengths`, `encode_noises`
    and `decode`.
    """

    forward_cell: nn.Module
    backward_cell: nn.Module

    def __init__(self) -> None:
        super().__init__()
        self.strength_encoder = nn.Sequential(nn.Linear(1, STRENGTH_FEATURES), nn.ReLU())

    def forward(
        self, source_noises: Tensor, images: Tensor, source_epsilons: Tensor, target_epsilons: Tensor
    ) -> Tensor:
        """Return the estimate with the L2 norm of the weighted average, projected; see `NoiseEstimator.forward`.

        Training by squared error gives an average noise with too small a norm, so its norm is restored. Otherwise the
        estimate is a weaker attack than the average, even if it is nearer to the attack's noise.
        """
        # Deviation: paper and reference restore the L2 norm of the noise to be estimated, which is unknown.
        estimates = self.unprojected(source_noises, images, source_epsilons, target_epsilons)
        average = weighted_average(
            interpolation_weights(source_epsilons.to(images), target_epsilons.to(images)), source_noises.to(images)
        )
        return project(with_norm_of(average, estimates), images, target_epsilons)

    def estimate(
        self, source_noises: Tensor, images: Tensor, source_epsilons: Tensor, target_epsilons: Tensor
    ) -> Tensor:
        """Return Eq. 7 before the projection, (B, T, C, H, W)."""
        # Deviation: paper and reference divide a noise by its L2 norm and encode that norm; we use the L-inf
        # strength for sources and targets alike, so both are in one unit and any image size works.
        units = source_noises / radii(source_epsilons)
        queries, hidden = self.read(units, images, source_epsilons, target_epsilons)
        learned = radii(target_epsilons) * self.decode(queries, hidden, units)
        return learned + self.average(source_noises, source_epsilons, target_epsilons)

    def average(
        self, source_noises: Tensor, source_epsilons: Tensor, target_epsilons: Tensor
    ) -> Tensor | float:
        """Return the term that the adjustment is added to: WA-ANE's estimate, (B, T, C, H, W)."""
        return weighted_average(interpolation_weights(source_epsilons, target_epsilons), source_noises)

    def read(
        self, units: Tensor, images: Tensor, source_epsilons: Tensor, target_epsilons: Tensor
    ) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Run both recurrences over the sources, then ask them for the targets.

        Returns:
            The forward and the backward query of every target, each (B, T, D, ...); the hidden states
            of every source, forward and backward concatenated, (B, S, 2D, ...).
        """
        batch, sources, targets = len(images), units.shape[1], target_epsilons.shape[-1]
        initial = self.encode_image(images)
        strengths = self.encode_strengths(source_epsilons.expand(batch, sources), images)
        wanted = self.encode_strengths(target_epsilons.expand(batch, targets), images)
        forward_noises, backward_noises = self.encode_noises(units)

        after = unroll(self.forward_cell, initial, strengths, forward_noises)
        # Deviation: the reference's "backward" recurrence runs forward as well; ours is reversed.
        before = unroll(self.backward_cell, initial, strengths.flip(1), backward_noises.flip(1)).flip(1)
        # after[:, k] has seen sources 1..k, before[:, k] has seen sources S..k+1; both start at the image.
        hidden = torch.cat([after[:, 1:], before[:, :-1]], dim=2)

        count = bracket(source_epsilons, target_epsilons).expand(batch, targets)
        row = torch.arange(batch, device=count.device).unsqueeze(1)
        # Deviation: the reference puts a weighted noise into the query and applies its FC layers twice or not
        # at all; as in the paper, a query has no noise, and each layer is used once.
        silence = torch.zeros_like(forward_noises[:, :1]).expand(-1, targets, *forward_noises.shape[2:])
        forward_query = torch.cat([after[row, count], wanted, silence], dim=2)
        backward_query = torch.cat([before[row, count], wanted, silence], dim=2)
        return (each(self.forward_cell, forward_query), each(self.backward_cell, backward_query)), hidden

    def strength_features(self, epsilons: Tensor) -> Tensor:
        """Return learned features (B, N, 20) of strengths (B, N)."""
        return self.strength_encoder(epsilons.unsqueeze(-1) / STRENGTH_UNIT)

    def encode_image(self, images: Tensor) -> Tensor:
        """Return the initial state of both recurrences, (B, D, ...)."""
        raise NotImplementedError

    def encode_strengths(self, epsilons: Tensor, images: Tensor) -> Tensor:
        """Return codes (B, N, ...) of strengths (B, N); a map has the size of the `images`."""
        raise NotImplementedError

    def encode_noises(self, units: Tensor) -> tuple[Tensor, Tensor]:
        """Return codes (B, S, ...) of normalised noises (B, S, C, H, W), for the forward and the backward cell."""
        raise NotImplementedError

    def decode(self, queries: tuple[Tensor, Tensor], hidden: Tensor, units: Tensor) -> Tensor:
        """Return the adjustment in units of the target strength, (B, T, C, H, W), from the result of `read`."""
        raise NotImplementedError


def each(module: nn.Module, codes: Tensor) -> Tensor:
    """Apply a module to every element of sequences (B, N, ...)."""
    return applied(module, codes.flatten(0, 1)).unflatten(0, codes.shape[:2])


def applied(module: nn.Module, codes: Tensor) -> Tensor:
    """Apply a module to codes (N, ...): to maps in channels_last, and on a CPU a few at a time.

    The maps between the layers are a hundred times as large as a noise. Few of them fit into the CPU's caches, which
    makes A-ANE-plus six times as fast. Where images depend on one another, or for a gradient, all are taken at once.
    """
    if codes.dim() != 4:
        return module(codes)
    codes = codes.contiguous(memory_format=torch.channels_last)
    if codes.device.type != "cpu" or module.training or torch.is_grad_enabled():
        return module(codes)
    rows = max(1, PIXELS_AT_ONCE // (codes.shape[-2] * codes.shape[-1]))
    return torch.cat([module(part) for part in codes.split(rows)])


def unroll(cell: nn.Module, initial: Tensor, strengths: Tensor, noises: Tensor) -> Tensor:
    """Return the states (B, S + 1, D, ...) of a recurrence: the initial one, then one after every source.

    Args:
        cell: state, strength and noise code, concatenated -> state.
        initial: state (B, D, ...).
        strengths: codes of the sources in the order of the recurrence, (B, S, ...).
        noises: codes of their noises, (B, S, ...).
    """
    states = [initial]
    for strength, noise in zip(strengths.unbind(1), noises.unbind(1), strict=True):
        states.append(applied(cell, torch.cat([states[-1], strength, noise], dim=1)))
    return torch.stack(states, dim=1)


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Average the values (B, S, C, H, W) for queries (B, T, D) that meet keys (B, S, D): (B, T, C, H, W)."""
    # Deviation: A-ANE of the reference has neither softmax nor scale, so its weights are unbounded. Queries
    # and keys are standardised too: without it they grow until the softmax is one-hot and learning stops.
    scores = _standardised(queries) @ _standardised(keys).transpose(1, 2) / queries.shape[-1] ** 0.5
    # Slot 0 has score and value zero (as in the reference's E-ANE): a query can leave the average as it is.
    weights = torch.softmax(F.pad(scores, (1, 0)), dim=-1)[..., 1:]
    return torch.einsum("bts,bschw->btchw", weights, values)


def _standardised(vectors: Tensor) -> Tensor:
    """Return each vector (..., D) with mean 0 and variance 1."""
    return F.layer_norm(vectors, vectors.shape[-1:])


def with_norm_of(lengths: Tensor, noises: Tensor) -> Tensor:
    """Return noises (B, T, C, H, W) with the L2 norms of others; zero stays zero."""
    wanted, norms = (torch.linalg.vector_norm(n, dim=(2, 3, 4), keepdim=True) for n in (lengths, noises))
    return noises / norms.clamp_min(torch.finfo(noises.dtype).tiny) * wanted


def zeroed(layer: nn.Module) -> nn.Conv2d:
    """Zero the last layer of an adjustment, so that training starts exactly at WA-ANE; returns the layer."""
    # Deviation: in the reference, training starts with random noise on top of the average.
    assert isinstance(layer, nn.Conv2d) and layer.bias is not None
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
    return layer
