"""The page of a ranking: how well a supernet ranks architectures that were trained one by one."""

import time
from collections.abc import Sequence
from pathlib import Path

from wsrnas.report.figures.ranking import correlations, scores_and_truth
from wsrnas.report.html import Cell, alarm, definitions, details, document, escape, paragraph, table
from wsrnas.report.page_files import write_files
from wsrnas.report.reading.rankings import (
    FIXED,
    WHERE,
    Results,
    main_column,
    meaning,
    name_of,
    questions,
    read_ranking,
    shown,
)
from wsrnas.report.sections import Folded, Part, Section, drawn_sections, numbers_of, section_html
from wsrnas.report.texts import text_of
from wsrnas.runtime import run_files

SHOWN_FOR = "rankings of a supernet"


def correlation_table(results: Results, measure: str, subset: str) -> str:
    """Return the correlations of every score in one subset with every column of the truth."""
    rows = [[name_of(entry), *(shown(value) for value in entry[measure][subset].values())]
            for entry in results["scores"]]
    return table(["score", *results["columns"]], rows, range(1, 1 + len(results["columns"])),
                 f"{results['measures'][measure]}, {subset} ({results['counts'][subset]} architectures): "
                 f"{results['subsets'][subset]}.".replace(": all architectures.", "."))


def rank_correlations(results: Results) -> Sequence[Part]:
    """Show all rank correlations."""
    texts = [paragraph("A positive number means that the score ranks well: a low loss, a low F or a high accuracy goes "
                       f"with a high accuracy alone. In brackets: 95 % over {results['resamples']:,} resamples of the "
                       "architectures."), correlation_table(results, "tau", next(iter(results["subsets"])))]
    others = [Folded(f"{title}, {subset}", [correlation_table(results, measure, subset)])
              for measure, title in results["measures"].items() for subset in results["subsets"]][1:]
    return [correlations(results), *texts, *others]


def beyond_size(results: Results) -> Sequence[Part]:
    """Say which scores know more than the size of an architecture does."""
    column = main_column(results)
    known = {name_of(entry): entry["tau"][FIXED][column] for entry in results["scores"]}
    better = [[name, shown(value)] for name, value in known.items() if value is not None and value[1] > 0]
    if not better:
        return [paragraph(f'At fixed size, no score ranks the accuracy "{column}" better than chance.')]
    return [paragraph(f'At fixed size, these scores rank the accuracy "{column}" better than chance.'),
            table(["score", "Kendall's τ"], better, [1])]


def vulnerability(results: Results) -> Sequence[Part]:
    """Answer whether a low vulnerability predicts accuracy under attack."""
    rows = [[measured, column, *(cell for value in values for cell in (shown(value), Cell(meaning(value), "text")))]
            for measured, column, values in questions(results)]
    header = ["F", "accuracy", *(title for where in WHERE.values() for title in (f"τ, {where.lower()}", "a low F?"))]
    return [paragraph("RNAS searches under a bound on F, because a low F is to mean accuracy under attack. Does it?"),
            table(header, rows)] if rows else []


def scatter(results: Results) -> Sequence[Part]:
    """Show the main scores of every architecture against its true accuracy."""
    return [scores_and_truth(results)]


def origin(results: Results) -> Sequence[Part]:
    """Show what was measured, on which images, and the configuration."""
    names = ("run", "steps", "table", "source", "space", "architectures", "available", "images", "strengths",
             "num_steps", "recalibration_batches", "measured", "seed")
    return [definitions((name.replace("_", " "), text_of(results[name])) for name in names),
            details(f"configuration ({len(results['config'])} fields)",
                    definitions((name, text_of(value)) for name, value in results["config"].items()))]


SECTIONS: tuple[Section, ...] = (
    Section("Rank correlations", rank_correlations, SHOWN_FOR, "ranking"),
    Section("Beyond size", beyond_size, SHOWN_FOR, "ranking"),
    Section("Does a low vulnerability predict robustness?", vulnerability, SHOWN_FOR, "ranking"),
    Section("Scores and true accuracies", scatter, SHOWN_FOR, "ranking"),
    Section("How it was made", origin, SHOWN_FOR, "ranking"),
)


def write_ranking_report(folder: Path, out: Path | None = None) -> Path:
    """Write ``report.html``, and every figure and its numbers into ``figures/``.

    Args:
        folder: folder with ``ranking.json``.
        out: folder of the page; None: the same.

    Returns:
        The path of the page.

    Raises:
        InputError: the folder holds no ranking, or the page cannot be written.
    """
    results = read_ranking(folder)
    sections = drawn_sections(SECTIONS, ranking=results)
    name = folder.resolve().name
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime((folder / run_files.RANKING).stat().st_mtime))
    state = (f"{results['architectures']} architectures of {results['table']} ranked by {results['run']} · last "
             f"update {when}")
    warning = [alarm("The table is synthetic.", [results["source"]])] * bool(results["synthetic"])
    head = "\n".join([f"<h1>{escape(name)}</h1>", f'<p class="state">{escape(state)}</p>', *warning])
    text = document(f"{name} · ranking", head, "\n".join(section_html(section, "") for section in sections))
    return write_files(out or folder, text, {numbers.name: numbers for numbers in numbers_of(sections)},
                       new=out is not None)
