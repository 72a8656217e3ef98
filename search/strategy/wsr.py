"""The strategy that needs few measurements: a predictor with uncertainty, several steps of A, expected improvement."""

from typing import Any

import torch
from torch import Tensor

from search.strategy.acquisition import Prediction
from search.strategy.predictors import PREDICTORS
from search.strategy.problem import Measured, Problem
from search.strategy.proposal import descend, first_choices, likeliest, propose
from search.strategy.settings import StrategyConfig
from search.strategy.targets import targets

FINAL_STEPS = 50  # of A down the mean, before its largest weights are an output


class WsrStrategy:
    """Move A down a predictor of the objective, and measure the most promising of its draws and their neighbours.

    What it remembers besides the measurements is A and the state of the predictor.

    Args:
        problem: what is searched.
        settings: options of the strategy.
        alphas: initial A (R, O).
        columns: L, losses of a measurement.
        seed: seed of the predictor's weights, if it has any.
    """

    def __init__(self, problem: Problem, settings: StrategyConfig, alphas: Tensor, columns: int, seed: int) -> None:
        self.problem, self.settings, self.proposals = problem, settings, settings.proposals()
        self.alphas = alphas.detach().double()
        self.predictor = PREDICTORS[settings.predictor].build(problem, settings, columns, seed)
        self.planned = torch.zeros(0, problem.space.num_rows, dtype=torch.long)  # proposed together
        self.planned_after = 0  # measurements
        self.fitted: tuple[int, Prediction] | None = None

    def propose(self, measured: Measured, generator: torch.Generator) -> Tensor:
        """Return the architecture (R,) to measure next."""
        return self.propose_several(measured, 1, generator)[0]

    def propose_several(self, measured: Measured, count: int, generator: torch.Generator) -> Tensor:
        """Return the architectures (n, R) to measure next, 1 <= n <= ``count``: those planned, or of a new plan."""
        if len(measured) >= self.planned_after + len(self.planned):
            if len(measured):
                self.alphas, self.planned = propose(self.alphas, self.fit(measured, generator), self.problem, measured,
                                                    self.proposals, generator)
            else:
                self.planned = first_choices(self.problem, self.proposals, generator)
            self.planned_after = len(measured)
        return self.planned[len(measured) - self.planned_after:][:count]

    def fit(self, measured: Measured, generator: torch.Generator) -> Prediction:
        """Return the predictor's answer to all measurements; it is fitted once for each number of them."""
        if self.fitted is None or self.fitted[0] != len(measured):
            learnable = targets(measured.losses, self.problem.objective, self.settings.loss_quantile)
            self.fitted = len(measured), self.predictor.fit(measured.gates(), learnable, generator)
        return self.fitted[1]

    def outputs(self, measured: Measured, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the measured architecture with the best objective, that with the best prediction, and that of A."""
        prediction = self.fit(measured, generator)
        steps = self.settings.proposals(steps=FINAL_STEPS)
        alphas = descend(self.settings.architecture_decay * self.alphas, prediction.mean, steps, generator)
        return {"best": measured.choices[self.problem.objective(measured.losses).argmin()],
                "verified": measured.choices[prediction.fitted.argmin()],
                "argmax": likeliest(alphas, self.problem, self.proposals.draws, generator)}

    def predict(self, measured: Measured, choices: Tensor, generator: torch.Generator) -> Tensor:
        """Return the predicted objectives (n,), standardised, of choices (n, R)."""
        with torch.no_grad():
            return self.fit(measured, generator).mean(self.problem.space.gates(choices).double())

    def state_dict(self) -> dict[str, Any]:
        """Return A, the plan and the state of the predictor."""
        return {"alphas": self.alphas, "planned": self.planned, "planned_after": self.planned_after,
                "predictor": self.predictor.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the result of ``state_dict``."""
        self.alphas, self.planned, self.planned_after = state["alphas"], state["planned"], state["planned_after"]
        self.fitted = None
        self.predictor.load_state_dict(state["predictor"])
