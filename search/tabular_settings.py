"""Configuration of the judging of strategies on a table."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from search.strategies import STRATEGIES
from search.strategy.objective import RobustObjective
from search.strategy.settings import StrategyConfig
from search.supernet_settings import LEAST_TAU
from search.tables.reading import DEMO, FORMATS
from search.tables.size_class import parse_size_class
from wsrnas.runtime.config import option, require

REFERENCES = ("random", "largest-first")
"""Strategies that stand beside all others: chance, and size alone. They cost nothing."""


@dataclass(frozen=True)
class TabularConfig(StrategyConfig):
    """Judge search strategies on a table of measured architectures: how far from the best is what they find?

    A strategy sees the losses of an architecture when it asks for them. Its regret is the objective of what it gives
    out minus that of the best allowed architecture of the table, in points. Every seed is one search. The same command
    resumes; started several times at once, it shares its seeds.
    """

    first_flags: ClassVar[tuple[str, ...]] = ("table", "strategy", "queries", "seeds", "size_class", "budget", "out")
    overwrite_help: ClassVar[str] = "move the existing folder aside and start again"

    table: str = option(DEMO, lambda: "JSON file of measured architectures (" + "; ".join(
        form.help for form in FORMATS.values()) + f"), or {DEMO} for a synthetic one", identity=False, group="table")
    strategy: tuple[str, ...] = option(("wsr",), lambda: f"strategies; {' and '.join(REFERENCES)} are "
                                       "always added", identity=False,
                                       choices=STRATEGIES, group="searches")
    queries: tuple[int, ...] = option((50, 100, 200), "numbers of measured architectures after which results are "
                                      "reported")
    seeds: int = option(10, "searches, with seeds --first_seed, --first_seed + 1, ...", identity=False)
    first_seed: int = option(0, "first seed", identity=False)
    columns: tuple[str, ...] = option((), "accuracies that count, on clean images first; empty: clean, pgd_3 and pgd_8 "
                                      "(DARTS cells: clean and pgd)", group="objective")
    alpha: float = option(0.0, "weight of the first column in the objective; 0: 1 / number of columns")
    beta: float = option(0.0, "weight of the other columns; alpha + beta = 1; 0: 1 - alpha")
    strength_weights: tuple[float, ...] = option((), "weight of each of the other columns, their sum is 1; empty: "
                                                 "equal")
    noise: float = option(0.0, "standard deviation in points of the noise of a query; its columns share it, and a "
                          "second query has another one", group="what a query shows")
    proxy: float = option(0.0, "rank correlation (of normal scores) between what a query shows and the truth; "
                          "isomorphic graphs show the same, and a second query helps nothing; 0: the truth")
    size_class: str = option("", "two bounds such as 18:20: only architectures whose live operations weigh so much "
                             "(graphs of NAS-Bench-201: 9 for a 3x3 convolution, 1 for a 1x1); empty: all",
                             group="budget")
    out: str = option("", "folder of the results; empty: runs/tabular/NAME, named after table and task", identity=False,
                      group="output")

    warmup_architectures: int = option(0, "N, random architectures that wsr-paper measures before A moves; 0: half of "
                                       "the largest --queries", group="the paper's strategy (VLE)")
    loss_memory: int = option(100, "size of M_v in wsr-paper (published code)")
    tau: float = option(0.1, "temperature of the Gumbel-softmax in wsr-paper (published code)")
    alpha_std: float = option(1e-3, "standard deviation of the initial A in wsr-paper (published code)")

    def __post_init__(self) -> None:
        require(bool(self.strategy), f"strategy is empty; expected some of {', '.join(STRATEGIES)}")
        require(bool(self.queries) and list(self.queries) == sorted(set(self.queries)) and self.queries[0] >= 1,
                f"queries are {list(self.queries)}; expected increasing whole numbers from 1")
        self.require_at_least(1, "seeds", "loss_memory")
        self.require_at_least(0, "first_seed", "noise", "warmup_architectures", "alpha_std", "alpha", "beta")
        self.require_at_least(LEAST_TAU, "tau")
        require(0 <= self.proxy < 1, f"proxy is {self.proxy:g}; expected a correlation from 0 to below 1")
        parse_size_class(self.size_class)
        self.require_strategy()

    @property
    def strategies(self) -> tuple[str, ...]:
        """The strategies that run: those that were asked for, then the references."""
        return tuple(dict.fromkeys((*self.strategy, *REFERENCES)))

    @property
    def folder(self) -> Path:
        """Folder of the results; without a time stamp, so that a restarted job finds itself."""
        words = [Path(self.table).stem, *[f"noise{self.noise:g}"] * bool(self.noise),
                 *[f"proxy{self.proxy:g}"] * bool(self.proxy),
                 *[f"size{self.size_class.replace(':', '-')}"] * bool(self.size_class),
                 *[self.budget.replace("=", "")] * bool(self.budget)]
        return Path(self.out) if self.out else Path("runs") / "tabular" / "-".join(words)

    def objective(self, columns: tuple[str, ...]) -> RobustObjective:
        """Return the objective over the columns of a table, by default their plain mean.

        Raises:
            InputError: the weights do not fit.
        """
        others = len(columns) - 1
        require(others >= 1, f"columns are {' '.join(columns)}; expected a clean one and at least one under attack")
        alpha = self.alpha or (1 - self.beta if self.beta else 1 / len(columns))
        weights = self.strength_weights or (1 / others,) * others
        require(len(weights) == others, f"strength_weights has {len(weights)} entries; expected one for each of the "
                f"columns {', '.join(columns[1:])}")
        return RobustObjective(alpha, self.beta or 1 - alpha, weights)
