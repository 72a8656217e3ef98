"""The page of search strategies that were judged on a table of measured architectures."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wsrnas.architectures.outputs import OUTPUTS
from wsrnas.report.figures.regret import regret_over_queries
from wsrnas.report.html import alarm, definitions, details, document, escape, paragraph, table
from wsrnas.report.page_files import write_files
from wsrnas.report.sections import Part, Section, drawn_sections, numbers_of, section_html
from wsrnas.report.texts import command_text, text_of
from wsrnas.runtime import run_files
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.reading import read_json

Results = Mapping[str, Any]


def every(results: Results) -> list[Results]:
    """Return the results of all strategies."""
    return [results, *results["others"]]


def shown(value: Sequence[float | None] | None) -> str:
    """Return mean and standard error as text."""
    if value is None or value[0] is None:
        return "–"
    mean = f"{value[0]:.2f}".replace("-", "−")
    return mean if value[1] is None else f"{mean} ± {value[1]:.2f}"


def regret(results: Results) -> Sequence[Part]:
    """Show the regret of every strategy after every reported number of queries."""
    counts = list(results["regret"])
    rows = [[result["strategy"], output.short, *(shown(result["regret"][count][kind]) for count in counts)]
            for result in every(results) for kind, output in OUTPUTS.items()
            if any(result["regret"][count][kind] for count in counts)]
    outside = [f"{result['strategy']}, {kind} after {count}: {missing} of {len(result['seeds'])} searches"
               for result in every(results) for count, kinds in result["outside"].items()
               for kind, missing in kinds.items()]
    seeds = len(results["seeds"])
    parts: list[Part] = [table(
        ["strategy", "output", *(f"after {count}" for count in counts)], rows, range(2, 2 + len(counts)),
        f"Regret in points, mean ± standard error over {seeds} seed{'s' * (seeds != 1)}: the true objective of what a "
        f"strategy gives out, minus that of the best of {results['task']['distinct']:,} different architectures.")]
    if outside:
        parts.append(paragraph("Some outputs may not be measured or are not in the table, so they have no regret and "
                               f"are left out of the mean: {'; '.join(outside)}.", "warning"))
    drawn = regret_over_queries(every(results))
    return [*parts, drawn] if drawn else parts


def rank_correlation(results: Results) -> Sequence[Part]:
    """Show how well every strategy that learns ranks what it has not measured."""
    counts = list(results["tau"])
    rows = [[result["strategy"], part, *(shown(result["tau"][count][part]) for count in counts)]
            for result in every(results) for part in ("all", "best fifth")
            if any(result["tau"][count][part] for count in counts)]
    size = results["task"]["size_tau"]
    rows += [["number of parameters", part, *[f"{value:.2f}"] * len(counts)] for part, value in size.items()
             if value is not None]
    return [table(["prediction", "architectures", *(f"after {count}" for count in counts)], rows,
                  range(2, 2 + len(counts)), "Kendall's τ of predicted and true objectives of up to 500 architectures "
                  "that were not measured. The number of parameters learns nothing; its τ is that of all "
                  "architectures, so its best fifth is another one.")] if rows else []


def size(results: Results) -> Sequence[Part]:
    """Say how much of what was found is size."""
    largest = next((result for result in every(results) if result["strategy"] == "largest-first"), None)
    if largest is None:
        return []
    count = next(iter(largest["regret"]))
    task = results["task"]
    text = (f"To measure the largest architectures first, without learning anything, gives a regret of "
            f"{shown(largest['regret'][count]['best'])} points after {count} queries.")
    if task["size_class"]:
        text += (f" All architectures of this task have about the same size (class {task['size_class']}), so what is "
                 "better than that was learned.")
    else:
        text += (" As far as that is small, a small regret of another strategy may be knowledge of the size alone. To "
                 "see what a strategy learns besides, give all architectures the same size: --size_class.")
    return [paragraph(text), *size_share(results)]


def size_share(results: Results) -> Sequence[Part]:
    """Show by how much each output is better than the mean, and than the mean of its size."""
    count = list(results["regret"])[-1]
    rows = [[result["strategy"], output.short, shown(gain["all"]), shown(gain["size"])]
            for result in every(results) for kind, output in OUTPUTS.items()
            if (gain := result.get("gain", {}).get(count, {}).get(kind)) and gain["all"]]
    return [table(["strategy", "output", "better than the mean by", "of this, its size gives"], rows, (2, 3),
                  f"Points of the true objective after {count} queries, mean ± standard error. The mean is that of all "
                  "different allowed architectures. What its size gives: by how much those that have as many "
                  "parameters (within 2 %) are better than the mean.")] if rows else []


def cost(results: Results) -> Sequence[Part]:
    """Show how long a strategy itself computes for a query."""
    return [table(["strategy", "ms a query"], [[result["strategy"], f"{1000 * result['seconds_per_query']:.2f}"]
                                               for result in every(results)], (1,),
                  "Processor time of the strategy's own computation, without the measurement.")]


def origin(results: Results) -> Sequence[Part]:
    """Show the command, the task and the configuration."""
    names = ("source", "space", "columns", "weights", "noise", "proxy", "size_class", "budget", "architectures",
             "distinct")
    pairs = [("command", command_text(results["command"])), ("table", results["table"])]
    pairs += [(name.replace("_", " "), text_of(value)) for name in names
              if (value := results["task"].get(name, "")) not in ("", None)]
    config = results["config"]
    return [definitions(pairs), details(f"configuration ({len(config)} fields)",
                                        definitions((name, text_of(value)) for name, value in config.items()))]


SECTIONS: tuple[Section, ...] = (
    Section("Regret", regret, "strategies on a table", "strategies"),
    Section("How much is size", size, "strategies on a table", "strategies"),
    Section("Rank correlation", rank_correlation, "strategies on a table", "strategies"),
    Section("Time of a query", cost, "strategies on a table", "strategies"),
    Section("How it was made", origin, "strategies on a table", "strategies"),
)


def read_results(folder: Path) -> dict[str, Any]:
    """Read the results in a folder.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / run_files.STRATEGIES
    try:
        results = read_json(path)
        whole = {"table", "strategy", "regret", "tau", "others", "task"} <= set(results)
        if whole and isinstance(results["others"], list) and {"source", "synthetic"} <= set(results["task"]):
            return dict(results)
    except (OSError, ValueError, TypeError):
        pass
    raise InputError(f"{path} holds no results of strategies; the same command of search.tabular writes it again")


def write_strategies_report(folder: Path, out: Path | None = None) -> Path:
    """Write ``report.html``, and every figure and its numbers into ``figures/``.

    Args:
        folder: folder with ``results.json``.
        out: folder of the page; None: the same.

    Returns:
        The path of the page.

    Raises:
        InputError: the folder holds no results, or the page cannot be written.
    """
    results = read_results(folder)
    sections = drawn_sections(SECTIONS, strategies=results)
    name = folder.resolve().name
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime((folder / run_files.STRATEGIES).stat().st_mtime))
    state = f"{len(every(results))} strategies on the table {results['table']} · last update {when}"
    warning = [alarm("The table is synthetic.", [results["task"]["source"]])] * bool(results["task"]["synthetic"])
    head = "\n".join([f"<h1>{escape(name)}</h1>", f'<p class="state">{escape(state)}</p>', *warning])
    text = document(f"{name} · strategies", head, "\n".join(section_html(section, "") for section in sections))
    return write_files(out or folder, text, {numbers.name: numbers for numbers in numbers_of(sections)},
                       new=out is not None)
