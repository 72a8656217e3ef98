"""The strategies of a supernet search behind one interface: the path to train, the predictor, the move of A."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from search.loss_estimator import ValidationLossEstimator, train_loss_estimator
from search.spaces import SPACES
from search.spaces.supernet import Path, Supernet
from search.strategy.budget import require_enough, within
from search.strategy.memory import Memory
from search.strategy.objective import Objective, update_architecture
from search.strategy.problem import Allowed, Measured, Problem, everything
from search.strategy.size import Sizes
from search.strategy.step import Step
from search.strategy.wsr import WsrStrategy
from search.training_paths import PATHS
from search.vulnerability.predicted import project_architecture
from search.vulnerability.projection import Projection
from wsrnas.complexity import count_parameters, readable
from wsrnas.data.image_set import DataSet
from wsrnas.runtime.distributed import World, broadcast, broadcast_model
from wsrnas.runtime.seeding import generator


class SupernetStrategy(ABC):
    """Choose the paths of a supernet, learn from the losses in M_v, and move A.

    A strategy draws from generators that are seeded by the step alone. What it decides is the same on all processes.

    Attributes:
        capacity: size of M_v.
    """

    capacity: int

    @abstractmethod
    def sample(self, memory: Memory, step: Step, count: int) -> list[Path]:
        """Return the paths of a step, at least one and at most ``count`` (lines 2 and 20)."""

    @abstractmethod
    def expected(self, paths: Sequence[Path]) -> list[float]:
        """Return the objectives in nats that the predictor expects of the paths of a step, which it has not seen."""

    @abstractmethod
    def learn(self, memory: Memory, step: Step) -> float:
        """Train the predictor on M_v (lines 18 and 23); return its squared error, standardised."""

    @abstractmethod
    def move(self, memory: Memory, step: Step) -> float:
        """Move A down the predicted objective (line 24); return that objective in nats."""

    @abstractmethod
    def architecture(self) -> Any:
        """Return the architecture that the search has found so far."""

    @abstractmethod
    def parts(self) -> dict[str, Any]:
        """Return what has a state, by its key in the checkpoint."""

    @abstractmethod
    def describe(self) -> str:
        """Return a few words for ``--dry_run``."""

    def project(self, bounds: Tensor, step: Step) -> Projection:
        """Move A within the bounds (N,) of the predicted vulnerabilities."""
        raise NotImplementedError("this strategy predicts no vulnerability")


class PaperInSupernet(SupernetStrategy):
    """Follow the paper: paths are drawn from A, the VLE predicts their losses, and A takes one step in an iteration.

    The VLE predicts the natural loss and the losses of all strengths, and under a bound their vulnerabilities.

    Args:
        config: ``SearchConfig``.
        data: the data set.
        objective: function from losses to the number to minimise.
        supernet: owner of A.
        world: the processes.
    """

    def __init__(self, config: Any, data: DataSet, objective: Objective, supernet: Supernet, world: World) -> None:
        self.config, self.objective, self.supernet, self.world = config, objective, supernet, world
        self.capacity = config.loss_memory
        self.space = space = SPACES[config.space]
        self.estimator = ValidationLossEstimator(len(space.operations), config.columns, config.loss_hidden_size,
                                                 space.num_rows).to(world.device)

    @cached_property
    def optimizer(self) -> torch.optim.Adam:
        """The optimiser of A."""
        return torch.optim.Adam(self.supernet.architecture_parameters(), self.config.architecture_learning_rate,
                                betas=(0.5, 0.999))

    @cached_property
    def loss_optimizer(self) -> torch.optim.Adam:
        """The optimiser of the VLE."""
        return torch.optim.Adam(self.estimator.parameters(), self.config.loss_learning_rate, betas=(0.5, 0.999),
                                weight_decay=self.config.loss_weight_decay)

    def sample(self, memory: Memory, step: Step, count: int) -> list[Path]:
        """Draw ``count`` H from A, or their architectures where paths are cells.

        Both warm-up loops see the same H_i, because A does not move before the search.
        """
        stream = "search" if step.phase == "search" else "population"
        first = step.number * (1 if step.phase == "warm-up" else self.config.paths_per_iteration)
        drawn = [self.supernet.sample(generator(self.config.seed, "path", stream, first + number))
                 for number in range(count)]
        if self.config.path_kind == "cell":
            choices = self.space.discrete(torch.stack([path.gates for path in drawn]))
            return [self.supernet.resolve(gates.view(self.space.shape)) for gates in self.space.gates(choices)]
        return drawn

    @torch.no_grad()
    def expected(self, paths: Sequence[Path]) -> list[float]:
        """Return the objectives of the losses that the VLE predicts for H."""
        gates = torch.stack([path.encoding for path in paths]).to(self.world.device)
        return [self.objective(losses).item() for losses in self.estimator(gates)]

    def learn(self, memory: Memory, step: Step) -> float:
        """Train the VLE for K_v passes over M_v (Eq. 9)."""
        error = train_loss_estimator(self.estimator, self.loss_optimizer, memory["gates"], memory["losses"],
                                     self.config.loss_passes, generator(self.config.seed, "losses", step.index))
        broadcast_model(self.estimator, self.world)
        return error

    def move(self, memory: Memory, step: Step) -> float:
        """Take one step of A down the objective that the VLE predicts for draws of A."""
        predicted = update_architecture(self.supernet, self.estimator, self.optimizer, self.objective,
                                        self.config.architecture_samples,
                                        generator(self.config.seed, "architecture", step.index))
        broadcast(self.supernet.architecture_parameters(), self.world)
        return predicted

    def project(self, bounds: Tensor, step: Step) -> Projection:
        """Project A onto the bounds (N,) of the vulnerability that the VLE predicts."""
        found = project_architecture(self.supernet, self.estimator, bounds, self.config.architecture_samples,
                                     generator(self.config.seed, "projection", step.index))
        broadcast(self.supernet.architecture_parameters(), self.world)
        return found

    def architecture(self) -> Any:
        """Return the architecture of A."""
        return self.supernet.genotype()

    def parts(self) -> dict[str, Any]:
        """Return the VLE, as ``losses``, and both optimisers."""
        return {"architecture_optimizer": self.optimizer, "losses": self.estimator,
                "loss_optimizer": self.loss_optimizer}

    def describe(self) -> str:
        """Return the size of the VLE."""
        return f"VLE {readable(count_parameters(self.estimator))}"


class WsrInSupernet(SupernetStrategy):
    """Let ``WsrStrategy`` propose architectures; random ones are trained in the warm-up.

    M_v keeps all measurements, with one-hot gates. The same arguments as ``PaperInSupernet``.
    """

    def __init__(self, config: Any, data: DataSet, objective: Objective, supernet: Supernet, world: World) -> None:
        self.config, self.supernet, self.world, self.space = config, supernet, world, SPACES[config.space]
        self.capacity = config.measurements
        network = config.init_channels, config.layers, data.num_classes, data.image_shape
        of_budget: Allowed = everything
        if config.budget:
            of_budget = within(self.space, config.budget, config.budget_tolerance, network)

        def allowed(choices: Tensor) -> Tensor:
            """Allow what keeps to the budget without idle operations, which cost parameters and change nothing."""
            return self.space.lean(choices) & of_budget(choices)

        if config.budget:
            require_enough(self.space, config.budget, network, allowed, self.capacity, generator(config.seed, "budget"))
        self.problem = Problem(self.space, objective, Sizes(self.space, *network), allowed)
        self.columns = config.columns
        self.strategy = WsrStrategy(self.problem, config, supernet.alphas().detach().cpu().flatten(0, 1), self.columns,
                                    config.seed)
        self.next: Tensor | None = None  # proposed (n, R) and not yet measured
        self.predicted: list[float] = []  # their objectives in nats
        self.found: Tensor | None = None

    def sample(self, memory: Memory, step: Step, count: int) -> list[Path]:
        """Take a random path in the warm-up, then what was proposed, or propose some of the population."""
        draw = generator(self.config.seed, "proposal", step.phase, step.number)
        if step.phase == "warm-up" and self.config.path_kind == "cell":
            chosen = self.problem.random(1, draw)
        elif step.phase == "warm-up":
            chosen = PATHS[self.config.path_kind].draw(self.space, 1, draw)
        elif self.next is None:
            chosen = self.strategy.propose_several(self.measured(memory), count, draw)
        else:
            chosen = self.next
        gates = self.space.gates(self._agreed(chosen))
        return [self.supernet.resolve(path.view(self.space.shape)) for path in gates]

    def expected(self, paths: Sequence[Path]) -> list[float]:
        """Return the objectives that were predicted for the proposals."""
        return self.predicted

    def learn(self, memory: Memory, step: Step) -> float:
        """Fit the predictor to M_v."""
        prediction = self.strategy.fit(self.measured(memory), generator(self.config.seed, "losses", step.index))
        return (prediction.fitted - prediction.targets.objective).square().mean().item()

    def move(self, memory: Memory, step: Step) -> float:
        """Move A, propose what comes next, and choose the output; return what is predicted for the first proposal."""
        measured, draw = self.measured(memory), generator(self.config.seed, "architecture", step.index)
        self.next = self._agreed(self.strategy.propose_several(measured, self.config.paths_per_iteration, draw))
        expected = self.strategy.predict(measured, self.next, draw)
        self.predicted = self._agreed(self.strategy.fit(measured, draw).targets.in_nats(expected)).tolist()
        self.found = self._agreed(self.strategy.outputs(measured, draw)[self.config.output])
        alphas = self._agreed(self.strategy.alphas).view(self.space.shape)
        with torch.no_grad():
            for parameter, values in zip(self.supernet.architecture_parameters(), alphas, strict=True):
                parameter.copy_(values)
        return self.predicted[0]

    def architecture(self) -> Any:
        """Return the output that was asked for; before A has moved, the architecture of A."""
        return self.supernet.genotype() if self.found is None else self.space.decode(self.found)

    def parts(self) -> dict[str, Any]:
        """Return this object, as ``strategy``."""
        return {"strategy": self}

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the strategy, the proposal and the output."""
        return self.strategy.state_dict() | {"next": self.next, "predicted": self.predicted, "found": self.found}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the result of ``state_dict``."""
        self.strategy.load_state_dict(state)
        self.next, self.predicted, self.found = state["next"], state["predicted"], state["found"]
        if isinstance(self.predicted, float):  # earlier versions propose one architecture at a time
            self.next, self.predicted = None if self.next is None else self.next.unsqueeze(0), [self.predicted]

    def describe(self) -> str:
        """Return predictor and output."""
        return f"predictor {self.config.predictor}, output {self.config.output}"

    def measured(self, memory: Memory) -> Measured:
        """Return M_v as the strategy reads it, by strength."""
        measured = Measured(self.space, self.columns)
        if len(memory):
            measured.add(memory["gates"].argmax(-1).cpu(), memory["losses"].cpu())
        return measured

    def _agreed(self, values: Tensor) -> Tensor:
        """Return values of rank 0, on all processes."""
        broadcast([values], self.world)
        return values
