"""The fields of a configuration that say how a search moves: predictor, proposals, the paper's own step."""

from dataclasses import dataclass

from search.strategy.acquisition import ACQUISITIONS
from search.strategy.budget import check_budget
from search.strategy.predictors import PREDICTORS
from wsrnas.runtime.config import Ranges, option, require

TEMPERATURES = (1.0, 0.3)  # of the Gumbel-softmax in the first and in the last step of A; their values hardly matter


@dataclass(frozen=True)
class Proposals:
    """How architectures are proposed. docs/SEARCH.md gives the reason for every value.

    Args:
        population: architectures measured first: the largest one, then others spread over the sizes; fewer where draws
            are repeated.
        steps: gradient steps of A before each proposal.
        learning_rate: of Adam on A in these steps.
        decay: factor of A before them.
        pull: what is added before them to A where the best architecture so far has its operations.
        temperatures: first and last temperature of the Gumbel-softmax in them.
        samples: draws of ξ averaged in a step.
        draws: architectures drawn from A.
        parents: best measured architectures whose neighbours are proposed.
        patience: measurements without a better architecture after which candidates are looked for further away, as a
            share of the number of the best one's neighbours.
        acquisition: key of ``ACQUISITIONS``.
        batch: architectures proposed at once.
    """

    population: int
    steps: int
    learning_rate: float
    decay: float
    pull: float
    temperatures: tuple[float, float]
    samples: int
    draws: int
    parents: int
    patience: float
    acquisition: str
    batch: int = 1


@dataclass(frozen=True)
class StrategyConfig(Ranges):
    """The fields of a program that searches by a predictor."""

    predictor: str = option("paths", "predictor of the objective in the strategy wsr", choices=PREDICTORS, added=True,
                            group="strategy wsr")
    loss_quantile: float = option(0.8, "share of the measurements, by each column, that the predictor tells apart; "
                                  "the worse ones count as equally bad; 1: all", added=True)
    population: int = option(1, "architectures that wsr measures before it learns: the largest, then others of all "
                             "sizes (a few less where draws repeat in a small space)", added=True)
    proposal_steps: int = option(3, "gradient steps of A before each proposal", added=True)
    proposal_learning_rate: float = option(0.3, "learning rate of Adam in these steps", added=True)
    architecture_decay: float = option(0.9, "factor of A before these steps", added=True)
    architecture_pull: float = option(0.3, "what is added to A before these steps for the operations of the best "
                                      "architecture so far", added=True)
    proposal_samples: int = option(4, "draws of Gumbel noise averaged in each of these steps", added=True)
    proposal_draws: int = option(64, "architectures drawn from A for each proposal", added=True)
    proposal_parents: int = option(1, "best measured architectures whose neighbours are proposed too", added=True)
    proposal_patience: float = option(0.5, "measurements without a better architecture, as a share of the number of "
                                      "its neighbours, after which wsr looks further: near more of the best ones, "
                                      "and at random ones", added=True)
    acquisition: str = option("improvement", "how the candidate to measure is chosen: by its expected improvement, or "
                              "by one draw of the posterior (Thompson)", choices=ACQUISITIONS, added=True)
    proposal_batch: int = option(1, "architectures that wsr proposes at once, before it measures any of them; each "
                                 "further one is the best in a draw of the posterior", added=True)
    budget: str = option("", "cost of what is measured and found, such as params=3.5M or macs=550M@C36L20 (width and "
                         "number of cells of the network meant; without: those of the search or table); empty: any",
                         added=True, group="budget")
    budget_tolerance: float = option(0.02, "largest allowed difference from --budget, as a fraction", added=True)

    loss_passes: int = option(500, "K_v, passes over M_v in every iteration (lines 18 and 23)",
                              group="the paper's strategy (VLE)")
    loss_hidden_size: int = option(16, "hidden size of the VLE's LSTM (published code)")
    loss_learning_rate: float = option(1e-3, "learning rate of the VLE's Adam (published code)")
    loss_weight_decay: float = option(1e-3, "weight decay of the VLE's Adam (published code)")
    architecture_learning_rate: float = option(0.03, "learning rate of Adam on the architecture parameters; it makes "
                                               "one step in every iteration")
    architecture_samples: int = option(64, "draws of Gumbel noise averaged in each step of A")

    def require_strategy(self) -> None:
        """Refuse fields that are out of range.

        Raises:
            InputError: naming the first such field.
        """
        self.require_at_least(1, "population", "proposal_samples", "proposal_draws", "proposal_parents",
                              "proposal_batch", "loss_passes", "loss_hidden_size", "architecture_samples")
        self.require_at_least(0, "proposal_steps", "proposal_patience", "architecture_pull", "loss_weight_decay")
        self.require_positive("proposal_learning_rate", "loss_learning_rate", "architecture_learning_rate")
        require(0 < self.loss_quantile <= 1, f"loss_quantile is {self.loss_quantile:g}; expected a share above 0, at "
                "most 1")
        check_budget(self.budget, self.budget_tolerance)
        require(0 <= self.architecture_decay <= 1, f"architecture_decay is {self.architecture_decay:g}; expected a "
                "factor from 0 to 1")

    def proposals(self, steps: int | None = None) -> Proposals:
        """Return what ``proposal`` needs to know, with another number of steps if one is given."""
        return Proposals(self.population, self.proposal_steps if steps is None else steps, self.proposal_learning_rate,
                         self.architecture_decay, self.architecture_pull, TEMPERATURES, self.proposal_samples,
                         self.proposal_draws, self.proposal_parents, self.proposal_patience, self.acquisition,
                         self.proposal_batch)
