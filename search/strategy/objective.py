"""The objective of a Wsr-NAS search (Eq. 10), and the step of the architecture parameters A down its prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from wsrnas.runtime.config import require
from wsrnas.runtime.deferred import deferred_imports

with deferred_imports():
    import torch
    from torch import Tensor

    from search.loss_estimator import ValidationLossEstimator
    from search.spaces.supernet import Supernet, gumbel_noise, gumbel_softmax

# Losses (..., 1 + N or more) in nats -> (...,), which the search minimises.
Objective: TypeAlias = "Callable[[Tensor], Tensor]"


@dataclass(frozen=True)
class RobustObjective:
    """Weigh the natural loss and the losses of all strengths: α L_natural + β Σ β_i L_i (Eq. 10).

    Args:
        alpha: weight of the natural loss.
        beta: weight of the adversarial losses; alpha + beta = 1.
        weights: the N weights β_i, one weight for each strength; their sum is 1.

    Raises:
        InputError: alpha or beta is below 0, another weight not above 0, or the weights do not sum to 1.
    """

    alpha: float
    beta: float
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        require(self.alpha >= 0 and self.beta >= 0,
                f"alpha is {self.alpha:g} and beta is {self.beta:g}; expected both at least 0 (Eq. 10)")
        require(abs(self.alpha + self.beta - 1) < 1e-6,
                f"alpha + beta is {self.alpha + self.beta:g}; expected 1 (Eq. 10)")
        for weight in self.weights:
            require(weight > 0, f"strength_weights contains {weight:g}; expected every weight above 0 (Eq. 10)")
        require(abs(sum(self.weights) - 1) < 1e-6,
                f"strength_weights sum to {sum(self.weights):g}; expected 1 (Eq. 10)")

    @classmethod
    def from_settings(cls, settings: Any) -> RobustObjective:
        """Build the objective of a configuration.

        Args:
            settings: ``alpha``, ``beta``, ``strengths`` and ``strength_weights``, as in ``SearchConfig``.

        Raises:
            InputError: the weights break the constraints of Eq. 10, or their number is not that of the strengths.
        """
        weights, count = settings.strength_weights, len(settings.strengths)
        require(len(weights) == count, f"strength_weights has {len(weights)} entries; expected one for each strength, "
                f"{count}")
        return cls(settings.alpha, settings.beta, weights)

    def __call__(self, losses: Tensor) -> Tensor:
        """Return the objective (...,) in nats of losses (..., 1 + N or more), natural first; the rest is not read."""
        weights = torch.tensor(self.weights, device=losses.device, dtype=losses.dtype)
        return self.alpha * losses[..., 0] + self.beta * (losses[..., 1:1 + len(weights)] @ weights)


def natural_loss(losses: Tensor) -> Tensor:
    """Return the natural loss (...,) of losses (..., 1 + N or more)."""
    return losses[..., 0]


@dataclass(frozen=True)
class SensitiveObjective:
    """Reward features that an attack moves: another objective - s log F, the mean over the strengths.

    A graph whose operations carry little has a low vulnerability F, and a low loss under attack for its natural one,
    whatever its accuracy; docs/SEARCH.md has what was measured.

    Args:
        objective: the other one.
        sensitivity: s, in nats.
        strengths: the number N of strengths.

    Raises:
        InputError: the sensitivity is not above 0.
    """

    objective: Objective
    sensitivity: float
    strengths: int

    def __post_init__(self) -> None:
        require(self.sensitivity > 0, f"sensitivity is {self.sensitivity:g}; expected above 0")

    def __call__(self, losses: Tensor) -> Tensor:
        """Return the objective (...,) of rows (..., 1 + 2 N): natural loss, N losses, N values of -log F."""
        return self.objective(losses) + self.sensitivity * losses[..., 1 + self.strengths:].mean(-1)


def sensitive(objective: Objective, settings: Any) -> Objective:
    """Return another objective with the sensitivity of a configuration."""
    return SensitiveObjective(objective, settings.sensitivity, len(settings.strengths))


@dataclass(frozen=True)
class PriorObjective:
    """Count what is known before anything is measured (``search.priors``): another objective - sum of w_k z_k.

    A supernet's losses err, and a search goes where they err most. Priors err elsewhere, or, as the size does, not at
    all; docs/SEARCH.md has what was measured.

    Args:
        objective: the other one.
        weights: w_k in nats, one for each prior; at least one.
    """

    objective: Objective
    weights: tuple[float, ...]

    def __call__(self, losses: Tensor) -> Tensor:
        """Return the objective (...,) of rows (..., L + K): what the other one reads, then -z_k."""
        weights = torch.tensor(self.weights, device=losses.device, dtype=losses.dtype)
        return self.objective(losses[..., :-len(weights)]) + losses[..., -len(weights):] @ weights


@dataclass(frozen=True)
class ObjectiveEntry:
    """One objective that a search can minimise.

    Args:
        build: ``SearchConfig`` -> objective; raises InputError where the configuration does not fit.
        help: explanation in one line, for ``--help``.
        reads_vulnerability: whether it reads -log F after the losses.
    """

    build: Callable[[Any], Objective]
    help: str
    reads_vulnerability: bool = False

    def row(self, measured: Mapping[str, Tensor]) -> Tensor:
        """Return what M_v keeps of a measurement: the losses (1 + N,), then -log F, or F under a bound, if measured."""
        if "vulnerabilities" not in measured:
            return measured["losses"]
        vulnerability = measured["vulnerabilities"]
        if self.reads_vulnerability:
            vulnerability = -vulnerability.clamp_min(torch.finfo(vulnerability.dtype).tiny).log()
        return torch.cat([measured["losses"], vulnerability])


OBJECTIVES: dict[str, ObjectiveEntry] = {
    "robust": ObjectiveEntry(RobustObjective.from_settings,
                             "alpha * natural loss + beta * sum of beta_i * loss at strength i; Eq. 10"),
    "natural": ObjectiveEntry(lambda settings: natural_loss, "the natural loss alone"),
    "sensitive": ObjectiveEntry(partial(sensitive, natural_loss),
                                "natural loss - sensitivity * log of the vulnerability F: a high F counts as good",
                                reads_vulnerability=True),
    "robust-sensitive": ObjectiveEntry(lambda settings: sensitive(RobustObjective.from_settings(settings), settings),
                                       "robust - sensitivity * log of the vulnerability F", reads_vulnerability=True),
}


def build_objective(settings: Any) -> Objective:
    """Return what a configuration minimises.

    Args:
        settings: ``objective`` and ``prior_weights``, and what the entry of ``OBJECTIVES`` reads.

    Raises:
        InputError: they do not fit.
    """
    objective = OBJECTIVES[settings.objective].build(settings)
    weights = settings.prior_weights
    for name, weight in weights.items():
        require(weight > 0, f"{name}_weight is {weight:g}; expected 0 or more")
    return PriorObjective(objective, tuple(weights.values())) if weights else objective


def update_architecture(supernet: Supernet, estimator: ValidationLossEstimator, optimizer: torch.optim.Optimizer,
                        objective: Objective, samples: int, generator: torch.Generator) -> float:
    """Take one optimiser step of A down the predicted objective; the supernet's weights stay untouched.

    The prediction is the mean over ``samples`` draws of ξ. Deviation: the paper writes A' <- A + c∇; to minimise
    Eq. 10 the step must be against the gradient, as here.

    Args:
        supernet: owner of A.
        estimator: the VLE, gates (B, R, O) -> losses; it collects no gradient.
        optimizer: optimiser of A.
        objective: function from losses to the number to minimise.
        samples: draws of ξ.
        generator: CPU source of ξ.

    Returns:
        The predicted objective before the step.
    """
    alphas = supernet.alphas()
    noise = gumbel_noise((samples, *alphas.shape), generator).to(alphas)
    gates = gumbel_softmax(alphas, noise, supernet.tau).flatten(1, 2)
    predicted = objective(estimator(gates)).mean()
    gradients = torch.autograd.grad(predicted, supernet.architecture_parameters())
    for parameter, gradient in zip(supernet.architecture_parameters(), gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return predicted.item()
