"""The efficient wide spectrum searcher (EWSS): strengths, the robust search objective, the architecture's step."""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau
from torch import Tensor

from search.loss_estimator import ValidationLossEstimator
from search.supernet import Supernet, gumbel_noise, gumbel_softmax
from search.vulnerability.projection import Projection, project
from wsrnas.runtime.config import require

PROJECTION_STEP = 0.5  # in logits


def split_strengths(count: int, attacked: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Which of ``count`` strengths are attacked by PGD and which are estimated (Sec. "Experiments").

    The strengths form ``attacked`` (N1) intervals of equal length; the first of each is made by PGD, the rest by the
    AN-Estimator. Where N1 does not divide the count, the first intervals are longer by one.

    Returns:
        Indices of the attacked and of the estimated strengths, ascending.
    """
    length, longer = divmod(count, attacked)
    first = [i * length + min(i, longer) for i in range(attacked)]
    return tuple(first), tuple(i for i in range(count) if i not in first)


def check_strengths(strengths: Sequence[float], attacked: int, estimated: int) -> None:
    """Refuse strengths that are not N1 + N2 increasing numbers inside (0, 1).

    Raises:
        InputError: with what is wrong and what was expected.
    """
    require(attacked >= 1, f"num_pgd_strengths (N1) is {attacked}; expected at least 1: the AN-Estimator starts from "
            "attacks")
    require(estimated >= 0, f"num_estimated_strengths (N2) is {estimated}; expected at least 0")
    require(len(strengths) == attacked + estimated,
            f"strengths has {len(strengths)} entries; expected N1 + N2 = {attacked} + {estimated} = "
            f"{attacked + estimated}")
    for strength in strengths:
        require(0 < strength < 1, f"strengths contains {strength:g}; expected pixels of [0, 1], strictly inside (0, 1)")
    for weaker, stronger in itertools.pairwise(strengths):
        require(weaker < stronger, f"strengths must increase, but {weaker:g} comes before {stronger:g}")


def check_attacked(attacked: Sequence[float], strengths: Sequence[float], count: int) -> None:
    """Refuse attacked strengths that are not ``count`` (N1) different ones of ``strengths``; none at all is a choice.

    Raises:
        InputError: with what is wrong and what was expected.
    """
    for strength in attacked:
        require(strength in strengths, f"attacked_strengths contains {strength:g}, which is not among strengths; "
                f"expected some of {', '.join(f'{e:g}' for e in strengths)}")
        require(attacked.count(strength) == 1, f"attacked_strengths contains {strength:g} twice; expected each once")
    require(len(attacked) in (0, count), f"attacked_strengths has {len(attacked)} entries; expected N1 = {count}, or "
            "none for the first strength of each of N1 intervals")


def attacked_indices(strengths: Sequence[float], attacked: Sequence[float], count: int) -> list[int]:
    """Indices, ascending, of the ``attacked`` strengths; where none are named, of the paper's ``count`` (N1)."""
    if not attacked:
        return list(split_strengths(len(strengths), count)[0])
    return sorted(strengths.index(strength) for strength in attacked)


def column_name(epsilon: float) -> str:
    """What a strength is called in ``metrics.jsonl``."""
    return f"eps_{epsilon:.4g}"


def estimator_gap(strengths: Sequence[float], estimated: Tensor, attacked: Tensor, images: int) -> dict[str, Any]:
    """How far the AN-Estimator's noise is from PGD's on the same images; positive where the estimate is weaker.

    Args:
        strengths: the T estimated ones.
        estimated, attacked: (2 or 3, T) sums over the images of loss (nats), of correct predictions and of
            vulnerability where there is one, under the estimated noise and under PGD's.

    Returns:
        ``gap`` (accuracy under the estimate minus that under PGD, as shares), ``loss_gap`` and ``vulnerability_gap``
        (under PGD minus under the estimate), the accuracies, all by strength; ``mean_gap``, ``largest_gap`` and its
        strength ``largest_gap_at`` (the weakest of several).
    """
    losses, accuracies, *vulnerabilities = (torch.stack([estimated, attacked], 1).double() / images).cpu()  # (2, T)
    gaps = (accuracies[0] - accuracies[1]).tolist()
    columns = {"gap": gaps, "loss_gap": (losses[1] - losses[0]).tolist(),
               "estimated_accuracy": accuracies[0].tolist(), "pgd_accuracy": accuracies[1].tolist()}
    if vulnerabilities:
        columns["vulnerability_gap"] = (vulnerabilities[0][1] - vulnerabilities[0][0]).tolist()
    names = [column_name(strength) for strength in strengths]
    return {"images": images, "mean_gap": sum(gaps) / len(gaps), "largest_gap": max(gaps),
            "largest_gap_at": strengths[gaps.index(max(gaps))],
            **{key: dict(zip(names, values, strict=True)) for key, values in columns.items()}}


def check_objective(alpha: float, beta: float, weights: Sequence[float], count: int) -> None:
    """Refuse weights that break the constraints of Eq. 10: α, β, β_i > 0, α + β = 1, Σ β_i = 1.

    Raises:
        InputError: with what is wrong and what was expected.
    """
    require(alpha > 0 and beta > 0, f"alpha is {alpha:g} and beta is {beta:g}; expected both above 0 (Eq. 10)")
    require(abs(alpha + beta - 1) < 1e-6, f"alpha + beta is {alpha + beta:g}; expected 1 (Eq. 10)")
    require(len(weights) == count, f"strength_weights has {len(weights)} entries; expected one a strength, {count}")
    for weight in weights:
        require(weight > 0, f"strength_weights contains {weight:g}; expected every weight above 0 (Eq. 10)")
    require(abs(sum(weights) - 1) < 1e-6, f"strength_weights sum to {sum(weights):g}; expected 1 (Eq. 10)")


def robust_search_objective(losses: Tensor, alpha: float, beta: float, weights: Tensor) -> Tensor:
    """α L_natural + β Σ β_i L_i (Eq. 10).

    Args:
        losses: (..., 1 + N or more), natural first; what follows the losses is not read.
        weights: (N,) the β_i.

    Returns:
        (...,) in nats.
    """
    return alpha * losses[..., 0] + beta * (losses[..., 1:1 + len(weights)] @ weights)


def update_architecture(supernet: Supernet, estimator: ValidationLossEstimator, optimizer: torch.optim.Optimizer,
                        alpha: float, beta: float, weights: Tensor, samples: int,
                        generator: torch.Generator) -> float:
    """One optimiser step of A down the predicted robust search objective; the supernet's weights stay untouched.

    The objective is the mean over ``samples`` draws of ξ. Deviation: the paper writes A' <- A + c∇; to minimise
    Eq. 10 the step must be against the gradient, as here.

    Returns:
        The predicted objective before the step.
    """
    alphas = supernet.alphas()
    noise = gumbel_noise((samples, *alphas.shape), generator).to(alphas)
    gates = gumbel_softmax(alphas, noise, supernet.tau).flatten(1, 2)
    objective = robust_search_objective(estimator(gates), alpha, beta, weights).mean()
    gradients = torch.autograd.grad(objective, supernet.architecture_parameters())  # ψ collects no gradient
    for parameter, gradient in zip(supernet.architecture_parameters(), gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return objective.item()


def project_architecture(supernet: Supernet, estimator: ValidationLossEstimator, bounds: Tensor, samples: int,
                         generator: torch.Generator) -> Projection:
    """Move A to the nearest point whose predicted vulnerability is within its bound at every strength.

    This puts the constraint of RNAS (Eq. 9) into Wsr-NAS: F_i, the mean over ``samples`` draws of ξ of what the VLE
    predicts for strength i, is differentiable in A, and the supernet is not asked. In the result the vulnerability is
    the largest F_i / H_i, and the bound 1. Its gradient is that of the strength which is farthest off.

    Args:
        estimator: its last N columns are vulnerabilities; bounds: (N,) the H_i.
    """
    alphas = supernet.alphas().detach()
    noise = gumbel_noise((samples, *alphas.shape), generator).to(alphas)

    def vulnerability(alphas: Tensor) -> Tensor:
        predicted = estimator(gumbel_softmax(alphas, noise, supernet.tau).flatten(1, 2))[:, -len(bounds):].mean(0)
        return (predicted / bounds).max()

    # The VLE knows the neighbourhood of the paths that it has seen: short steps.
    found = project(vulnerability, alphas, 1.0, trust_region=PROJECTION_STEP)
    with torch.no_grad():
        for parameter, values in zip(supernet.architecture_parameters(), found.alphas, strict=True):
            parameter.copy_(values)
    return found


def rank_correlation(predictions: Iterable[Sequence[float]]) -> dict[str, float | None]:
    """Kendall's τ of (predicted, measured) pairs in the order of their making; empty for fewer than three.

    The supernet keeps learning, so both columns fall over time and τ alone flatters; ``kendall_tau_detrended`` is that
    of what a straight line over time leaves (from five pairs on).
    """
    pairs = np.array(list(predictions), dtype=float).reshape(-1, 2)
    columns = {"kendall_tau": pairs} if len(pairs) >= 3 else {}
    if len(pairs) >= 5:
        time = np.arange(len(pairs))
        line = np.polynomial.polynomial.polyfit(time, pairs, 1)
        columns["kendall_tau_detrended"] = pairs - np.polynomial.polynomial.polyval(time, line).T
    taus = {name: kendalltau(values[:, 0], values[:, 1]).statistic for name, values in columns.items()}
    return {name: None if math.isnan(tau) else float(tau) for name, tau in taus.items()}
