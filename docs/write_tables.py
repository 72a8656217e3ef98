"""Write the tables that documents show and the code holds: ``python -m docs.write_tables``, from the repository's root.

A document marks the place of a table by ``<!-- table NAME -->`` and ``<!-- end -->``. A test compares the text between
both marks with the code.
"""

import argparse
import ast
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from search.spaces import SPACES
from search.strategies import STRATEGIES
from search.strategy.objective import OBJECTIVES
from search.strategy.predictors import PREDICTORS
from search.supernet_strategies import SUPERNET_STRATEGIES
from search.training_free import TRAINING_FREE
from search.training_paths import PATHS
from wsrnas.architectures.outputs import OUTPUTS
from wsrnas.complexity import count_parameters
from wsrnas.data.datasets import DATASETS
from wsrnas.estimators import ESTIMATORS, build_estimator
from wsrnas.evaluation.attack_table import ATTACKS
from wsrnas.evaluation.protocols import PROTOCOLS, fallen_in_words, in_order, passes_of
from wsrnas.report.race import SECTIONS as RACE_SECTIONS
from wsrnas.report.ranking import SECTIONS as RANKING_SECTIONS
from wsrnas.report.run_sections import SECTIONS
from wsrnas.report.strategies import SECTIONS as STRATEGY_SECTIONS
from wsrnas.runtime.markdown import markdown_table
from wsrnas.training.losses import loss_table

DOCUMENTS = Path(__file__).parent
MARKED = re.compile(r"(<!-- table (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def attacks() -> str:
    """Return one row for each attack that an evaluation can use."""
    def row(name: str) -> tuple[str, ...]:
        entry = ATTACKS[name]
        forms = name + ("[-l2]" if len(entry.norms) > 1 else "") + ("[-STEPS]" if entry.steps else "") + (
            "[xRESTARTS]" if entry.restarts else "")
        step = f"{entry.step_factor:g} ε/STEPS".removeprefix("1 ") if entry.takes_step_size else ""
        return (f"`{forms}`", entry.label, entry.help, str(entry.steps or ""), step,
                "white box" if entry.white_box else "transfer" if entry.needs_source else "black box")
    return markdown_table(("written", "in tables", "what it does", "default steps", "default step size",
                           "sees"), map(row, ATTACKS))


def protocols() -> str:
    """Return one row for each protocol."""
    def row(name: str) -> tuple[str, ...]:
        protocol = PROTOCOLS[name]
        everything = in_order(protocol.curve, protocol.attacks)
        passes = " + ".join(f"{number:,}" for number in passes_of(everything))
        return f"`{name}`", protocol.help, passes if everything else "", fallen_in_words(name)
    return markdown_table(("`--protocol`", "attacks", "passes of an image, at most", "images that fell at a smaller "
                           "strength"), map(row, PROTOCOLS))


def data_sets() -> str:
    """Return one row for each data set."""
    return markdown_table(("`--dataset`", "what it is", "`--download` fetches it"),
                          ((f"`{name}`", source.help, "yes" if source.downloads else "no")
                           for name, source in DATASETS.items()))


def choices(flag: str, meaning: str, table: Mapping[str, Any]) -> Callable[[], str]:
    """Return a function that writes one row for each entry of a table that a flag chooses from."""
    return lambda: markdown_table((f"`--{flag}`", meaning),
                                  ((f"`{name}`", entry.help) for name, entry in table.items()))


def spaces() -> str:
    """Return one row for each search space."""
    def row(name: str) -> tuple[str, ...]:
        space = SPACES[name]
        kinds, edges, operations = space.shape
        return f"`{name}`", space.help, f"{kinds} × {edges} × {operations}", space.layers_help or "any number"
    return markdown_table(("`--space`", "what is searched", "A: kinds of cell × edges × operations", "`--layers`"),
                          map(row, SPACES))


def estimators() -> str:
    """Return one row for each AN-Estimator."""
    def row(name: str) -> tuple[str, ...]:
        entry = ESTIMATORS[name]
        parameters = f"{count_parameters(build_estimator(name)):,}" if entry.learned else "none"
        return f"`{name}`", entry.help, parameters, str(entry.gradients(15))
    return markdown_table(("name", "what it is", "parameters to train", "passes of the network for 15 strengths"),
                          map(row, ESTIMATORS))


def page_sections() -> str:
    """Return one row for each section of the pages."""
    sections = (*SECTIONS, *RACE_SECTIONS, *STRATEGY_SECTIONS, *RANKING_SECTIONS)
    return markdown_table(("section", "shown for"), ((section.title, section.shown_for) for section in sections))


def files(*folders: str) -> str:
    """Return one row for each Python file of some folders: its path and the first line of its docstring."""
    paths = sorted(path for folder in folders for path in (DOCUMENTS.parent / folder).rglob("*.py"))
    rows = [(f"`{path.relative_to(DOCUMENTS.parent)}`", docstring.splitlines()[0].rstrip(".").replace("``", "`"))
            for path in paths if (docstring := ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))))]
    return markdown_table(("file", "what it holds"), rows)


TABLES: dict[str, Callable[[], str]] = {
    "attacks": attacks,
    "protocols": protocols,
    "losses": loss_table,
    "data-sets": data_sets,
    "estimators": estimators,
    "objectives": choices("objective", "what the search minimises", OBJECTIVES),
    "strategies": choices("strategy", "how it chooses what is measured next", STRATEGIES),
    "supernet-strategies": choices("strategy", "how the search moves", SUPERNET_STRATEGIES),
    "outputs": choices("output", "which architecture is the genotype", OUTPUTS),
    "paths": choices("paths", "what a training path is", PATHS),
    "predictors": choices("predictor", "what the strategy `wsr` learns from the measurements", PREDICTORS),
    "training-free": lambda: markdown_table(("score", "what it is"), ((f"`{name}`", entry.help)
                                                                     for name, entry in TRAINING_FREE.items())),
    "spaces": spaces,
    "page-sections": page_sections,
    "files-library": lambda: files("wsrnas"),
    "files-search": lambda: files("search"),
    "files-retrain": lambda: files("retrain"),
    "files-test_AN_estimator": lambda: files("test_AN_estimator"),
    "files-measurements": lambda: files("benchmarks", "studies"),
}


def with_tables(text: str) -> str:
    """Return a document with each marked table as the code has it now."""
    return MARKED.sub(lambda marked: f"{marked[1]}{TABLES[marked['name']]()}\n{marked[3]}", text)


def main() -> None:
    """Write the tables into every document that marks one."""
    argparse.ArgumentParser("python -m docs.write_tables", description="Write the tables of the documents in docs/ "
                            "from the code; files that already agree stay untouched.").parse_args()
    for path in sorted(DOCUMENTS.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if (written := with_tables(text)) != text:
            path.write_text(written, encoding="utf-8")
            print(f"wrote {path}")


if __name__ == "__main__":
    main()
