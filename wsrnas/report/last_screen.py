"""The last screen of ``scripts/quickstart.sh``: what was found, what that shows, and what to do next, in few lines.

python -m wsrnas.report.last_screen RUNS NAME
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wsrnas.runtime import run_files
from wsrnas.runtime.config import Parser, require
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.program import run_program
from wsrnas.runtime.reading import read_json

with deferred_imports():
    from wsrnas.evaluation.results import differences
    from wsrnas.report.strategies import every, read_results

LINES = 25  # of a terminal
NETWORKS = ("searched", "initial")
STRATEGIES = {"wsr": "this project's search", "random": "random graphs"}


def last_screen(runs: Path, name: str) -> list[str]:
    """Return the lines.

    Args:
        runs: Folder of all runs.
        name: Name of the quickstart's runs.

    Raises:
        InputError: A result is missing.
    """
    search = runs / "search" / name
    networks = {which: _evaluation(runs / "retrain" / f"{name}-{which}") for which in NETWORKS}
    searched = shlex.quote(str(runs / "retrain" / f"{name}-searched"))
    lines = ["", *_strategies(read_results(runs / "tabular" / name)),
             *_networks(networks), "",
             f"pages   {search / run_files.REPORT}  (the search)",
             f"        {runs / 'evaluate' / '-'.join(NETWORKS) / run_files.REPORT}  (the networks)",
             "next    DATASET=folder DATA=/path/to/your/images bash scripts/quickstart.sh",
             f"        python -m retrain.evaluate --model {searched} --protocol curve",
             f"        python -m retrain.export --model {searched}"]
    assert len(lines) < LINES
    return lines


def _strategies(results: dict[str, Any]) -> list[str]:
    """Say how far from the best architecture of about one size the search ends, and random ones of that size."""
    task, found = results["task"], {result["strategy"]: result["regret"] for result in every(results)}
    rows = [f"  {text:<22}" + "   ".join(f"{kinds['best'][0]:5.2f} after {count} looked at"
                                        for count, kinds in found[strategy].items())
            for strategy, text in STRATEGIES.items()]
    kind = ("The table is a formula, not measurements. For measured ones: docs/SEARCH.md#what-wsr-finds."
            if task["synthetic"] else "The table is measured; what was chosen by it: docs/SEARCH.md#what-wsr-finds.")
    return [f"Does a search find? Among {task['distinct']:,} graphs of about one size in the table {results['table']},",
            f"points below the best one, mean of {len(results['seeds'])} searches:", *rows, kind]


def _networks(networks: dict[str, dict[str, Any]]) -> list[str]:
    """Say how accurate the searched and the initial network are, and what their difference shows."""
    first = networks[NETWORKS[0]]
    lines = [f"A cell was searched and retrained beside the initial one ({first['dataset']}, {first['images']} test "
             "images, %):", f"  {'':<22}" + "".join(f"{name:>22}" for name in networks)]
    measured = {"without noise": "clean", "mean over noise": "average_robust"}
    for text, key in measured.items():
        lines.append(f"  {text:<22}" + "".join(f"{_shown(result[key]):>22}" for result in networks.values()))
    rows = differences({name: networks[name] for name in reversed(NETWORKS)})
    row = next((row for row in rows if row["attack"] == "average robust"), None)
    if row:
        low, high = (100 * end for end in row["interval"])
        lines.append(f"  {'difference':<22}{100 * row['difference']:>+22.1f} points [{low:+.1f}, {high:+.1f}]")
    sizes = " and ".join(f"{result['model']['parameters']:,}" for result in networks.values())
    return [*lines, f"They have {sizes} parameters and were trained once, after a search of minutes:",
            "this shows that everything works, not that this search pays."]


def _shown(measured: dict[str, Any]) -> str:
    low, high = (100 * end for end in measured["interval"])
    return f"{100 * measured['accuracy']:.1f} [{low:.1f}, {high:.1f}]"


def _evaluation(run: Path) -> dict[str, Any]:
    """Return the newest complete evaluation of a run."""
    files = sorted((run / run_files.EVALUATIONS).glob("*.json"), key=lambda file: file.stat().st_mtime)
    every = [found for file in files if isinstance(found := read_json(file), dict)]
    whole = [found for found in every if found.get("complete") is True and found.get("average_robust")]
    require(bool(whole), f"{run} holds no complete evaluation; expected one of the quickstart")
    return whole[-1]


def main(argv: Sequence[str] | None = None) -> None:
    """Print the screen of the runs that the command line names."""
    parser = Parser(prog="wsrnas.report.last_screen", description="Print the last screen of the quickstart.")
    parser.add_argument("runs", type=Path, help="folder of all runs")
    parser.add_argument("name", help="name of the quickstart's runs, such as quickstart-digits")
    arguments = parser.parse_args(argv)
    print("\n".join(last_screen(arguments.runs, arguments.name)))


if __name__ == "__main__":
    run_program(main)
