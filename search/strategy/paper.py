"""The strategy of the paper: a random population, then a step of A down the VLE for each architecture drawn from A."""

import torch
from torch import Tensor

from search.loss_estimator import ValidationLossEstimator, train_loss_estimator
from search.spaces.supernet import Supernet
from search.strategy.memory import Memory
from search.strategy.objective import update_architecture
from search.strategy.problem import Measured, Problem
from search.strategy.proposal import likeliest
from search.strategy.settings import StrategyConfig
from wsrnas.runtime.seeding import seeded_weights

TRIES = 200  # draws of A


class PaperStrategy:
    """Search by Algorithm 1 with measurements that come from elsewhere; an architecture may be measured twice.

    Args:
        problem: what is searched.
        settings: options of the VLE and of the step of A.
        columns: L, losses of a measurement.
        population: N, architectures that are measured before A moves.
        memory: size of M_v.
        tau: temperature of the Gumbel-softmax.
        alpha_std: standard deviation of the initial A.
        seed: seed of A and of the VLE's weights.
    """

    def __init__(self, problem: Problem, settings: StrategyConfig, columns: int, population: int, memory: int,
                 tau: float, alpha_std: float, seed: int) -> None:
        space = problem.space
        self.problem, self.settings, self.population = problem, settings, population
        self.architecture = Supernet()
        self.architecture.add_architecture(space, tau, alpha_std, torch.Generator().manual_seed(seed))
        with seeded_weights(seed):
            self.estimator = ValidationLossEstimator(len(space.operations), columns, settings.loss_hidden_size,
                                                     space.num_rows)
        betas = (0.5, 0.999)
        self.optimizer = torch.optim.Adam(self.architecture.architecture_parameters(),
                                          settings.architecture_learning_rate, betas=betas)
        self.loss_optimizer = torch.optim.Adam(self.estimator.parameters(), settings.loss_learning_rate, betas=betas,
                                               weight_decay=settings.loss_weight_decay)
        self.memory = Memory(memory)
        self.gates: list[Tensor] = []  # of the paths that were proposed; the VLE reads these, not the choices

    def propose(self, measured: Measured, generator: torch.Generator) -> Tensor:
        """Return the architecture (R,) to measure next: allowed, else drawn again (lines 2 and 20).

        Where none of some draws of A is allowed, as with a table of a few cells, A weighs random ones that are.
        """
        self.learn(measured, generator)
        for _ in range(TRIES):
            path = self.architecture.sample(generator)
            choices = torch.tensor(path.operations).flatten()
            if bool(self.problem.allowed(choices.unsqueeze(0))):
                self.gates.append(path.encoding)
                return choices
        space = self.problem.space
        found = self.problem.random(self.settings.proposal_draws, generator)
        logits = torch.log_softmax(self.architecture.alphas().detach().flatten(0, 1), -1)
        shares = (space.gates(found).to(logits) * logits).sum((1, 2)).softmax(0)
        choices = found[torch.multinomial(shares, 1, generator=generator)[0]]
        self.gates.append(space.gates(choices))
        return choices

    def learn(self, measured: Measured, generator: torch.Generator) -> None:
        """Put each new measurement into M_v, train the VLE (lines 18 and 23) and move A (line 24)."""
        known = int(self.memory.rows["iteration"][-1]) + 1 if len(self.memory) else 0
        for number in range(known, len(measured)):
            self.memory.append(number, gates=self.gates[number].unsqueeze(0),
                               losses=measured.losses[number:number + 1].float())
            if number + 1 < self.population:
                continue
            train_loss_estimator(self.estimator, self.loss_optimizer, self.memory["gates"], self.memory["losses"],
                                 self.settings.loss_passes, generator)
            if number + 1 > self.population:
                update_architecture(self.architecture, self.estimator, self.optimizer, self.problem.objective,
                                    self.settings.architecture_samples, generator)

    def outputs(self, measured: Measured, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the measured architecture with the best objective, and the paper's output, that of A."""
        self.learn(measured, generator)
        alphas = self.architecture.alphas().detach().flatten(0, 1)
        return {"best": measured.choices[self.problem.objective(measured.losses).argmin()],
                "argmax": likeliest(alphas, self.problem, self.settings.proposal_draws, generator)}

    @torch.no_grad()
    def predict(self, measured: Measured, choices: Tensor, generator: torch.Generator) -> Tensor:
        """Return the objectives (n,) that the VLE predicts for choices (n, R)."""
        with torch.enable_grad():
            self.learn(measured, generator)
        return self.problem.objective(self.estimator(self.problem.space.gates(choices)))
