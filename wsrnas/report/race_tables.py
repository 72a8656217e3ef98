"""The sections of a race that are tables: standing, paired differences, cost."""

from collections.abc import Sequence

from wsrnas.report.figures.picture import Numbers
from wsrnas.report.html import Cell, details, paragraph, table
from wsrnas.report.reading.races import BEST, CLEAN, LAST, Difference, Entrant, Race, Score, listed, number
from wsrnas.report.sections import Part
from wsrnas.report.texts import percent, text_of
from wsrnas.training.losses import selection_words

MISSING = "–"


# -- texts ------------------------------------------------------------------------------------------------------------

def with_deviation(score: Score | None) -> str:
    """Return a score in percent with its deviation, such as ``50.0 ± 1.2``."""
    if score is None:
        return MISSING
    return percent(score.mean) + (f" ± {percent(score.deviation)}" if score.deviation is not None else "")


def plain_name(measure: str | None) -> str:
    """Return a measure's name with single spaces."""
    return " ".join((measure or "").split())


def shown(value: float | None, form: str = ",.0f", unit: float = 1.0) -> str:
    """Return a number in multiples of ``unit``, a dash for None."""
    return MISSING if value is None else format(value / unit, form)


def title_of(entrant: Entrant) -> str:
    """Return an entrant's name, with a warning where a check failed."""
    return f"{entrant.name} (check failed)" if entrant.listed("failed_checks") else entrant.name


# -- standing ---------------------------------------------------------------------------------------------------------

def standing(race: Race) -> Sequence[Part]:
    """Show the ranking; where the best weights rank, the last weights have a second table."""
    if not race.entrants:
        return []
    parts: list[Part] = [paragraph(f"Ranked by {plain_name(race.ranking)}, {race.weights} weights." if race.ranking else
                       "No network is evaluated yet."),
             score_table(race, race.weights), *against_random(race)]
    if race.weights == BEST and any(entrant.scores[LAST] for entrant in race.entrants):
        parts.append(score_table(race, LAST))
        parts.append(paragraph("Best minus last: the accuracy that the last epochs lose under the ranking measure "
                               "(robust overfitting). It is left out where best and last have different numbers "
                               "of seeds.", "note"))
    numbers = standing_numbers(race)
    return [*parts, numbers] if numbers.rows else parts


def against_random(race: Race) -> Sequence[Part]:
    """Show how the entrants stand among the random cells; nothing where the document does not tell."""
    rows: list[list[str | Cell]] = []
    for row in listed(race.document.get("against_random")):
        found = row if isinstance(row, dict) else {}
        as_good, count, p, difference = (number(found.get(key)) for key in ("as_good", "random", "p", "difference"))
        if as_good is None or count is None or p is None or difference is None:
            continue
        rows.append([text_of(found.get("entrant")), f"{as_good:.0f} of {count:.0f}", f"{p:.2g}",
                     percent(difference, signed=True)])
    return [table(["entrant", "random cells as good", "p", "from their mean (points)"], rows, (1, 2, 3),
                  "Against random cells: p is the chance that a random cell does as well (one-sided)")] * bool(rows)


def score_table(race: Race, weights: str) -> str:
    """Return a table with one row for each entrant; clean accuracy and the measure that ranks come first."""
    ordered = dict.fromkeys([CLEAN, race.ranking or CLEAN, *(measure.name for measure in race.measures)])
    names = [name for name in ordered if any(entrant.score(weights, name) for entrant in race.entrants)]
    rows = [[title_of(entrant), seeds_of(race, entrant, weights), *facts(race, entrant, weights).values(),
             *(with_deviation(entrant.score(weights, name)) for name in names)] for entrant in race.standing]
    header = ["entrant", "seeds", *facts(race, race.entrants[0], weights), *map(plain_name, names)]
    config = race.document.get("config")
    rule = selection_words(str(config.get("adv_loss")) if isinstance(config, dict) else "")
    which = f"the epoch of the highest {rule} on held-out images" if weights == BEST else "the last epoch"
    return table(header, rows, range(1, len(header)), f"{weights.capitalize()} weights ({which}): accuracy "
                 "in %, mean over the seeds ± sample standard deviation")


def facts(race: Race, entrant: Entrant, weights: str) -> dict[str, str]:
    """Return the columns before the measures: for the weights that rank, sizes; for the others, what changed."""
    if weights == race.weights:
        return {"channels": shown(entrant.quantity("init_channels")),
                "parameters": shown(entrant.quantity("parameters")),
                "multiply-adds (M)": shown(entrant.quantity("multiply_adds"), ",.1f", 1e6)}
    return {"best minus last (points)": overfitting(race, entrant)}


def seeds_of(race: Race, entrant: Entrant, weights: str) -> str:
    """Return the number of seeds behind an entrant's numbers, and of all seeds where some are missing."""
    score = entrant.score(weights, race.ranking)
    count, every = len(score.values) if score else 0, len(listed(race.document.get("seeds")))
    return str(count) if count >= every else f"{count} of {every}"


def overfitting(race: Race, entrant: Entrant) -> str:
    """Return best minus last weights under the measure that ranks, of the same seeds."""
    best, last = (entrant.score(weights, race.ranking) for weights in (BEST, LAST))
    if best is None or last is None or len(best.values) != len(last.values):
        return MISSING
    return percent(best.mean - last.mean, signed=True)


# -- differences ------------------------------------------------------------------------------------------------------

def differences(race: Race) -> Sequence[Part]:
    """Show every pair under the measure that ranks as a square, and all differences as a list."""
    if not race.differences:
        return []
    names = [entrant.name for entrant in race.standing]
    rows = [[name, *(signed_difference(race, name, other) for other in names)] for name in names]
    pairs = len({frozenset((d.first, d.second)) for d in race.differences})
    whole = table(["first", "second", "weights", "measure", "difference (points)", "over the seeds", ""],
                  map(difference_row, race.differences), (4, 5))
    return [
        paragraph("Each difference is computed image by image and seed by seed, in percentage points: the mean over "
                  f"the seeds. {intervals(race)} "
                  f"{pairs} pair{'s are' if pairs > 1 else ' is'} compared, and the intervals are not corrected for "
                  "their number: among many pairs, some intervals exclude 0 by chance."),
        *power_of(race),
        table(["row minus column", *names], rows, range(1, len(names) + 1),
              f"{plain_name(race.ranking)}, {race.weights} weights, in percentage points"),
        details(f"all {len(race.differences)} differences with their intervals", whole),
        difference_numbers(race)]


def intervals(race: Race) -> str:
    """Say what the intervals of differences count."""
    known = race.document.get("power")
    if isinstance(known, dict) and known.get("measured"):
        return ("Its 95 % interval counts other test images (bootstrap) and other trainings, whose deviation all "
                "entrants together tell (Student's t). A star marks a difference whose interval excludes 0.")
    return ("Its 95 % interval counts other test images alone (bootstrap): one seed does not tell how much "
            "trainings differ, so no difference gets a star.")


def power_of(race: Race) -> Sequence[Part]:
    """Say which differences the race can see; nothing where the document does not tell."""
    known = race.document.get("power")
    return [paragraph(text_of(known["summary"]))] if isinstance(known, dict) and "summary" in known else []


def signed_difference(race: Race, name: str, other: str) -> str | Cell:
    """Return one field of the square: the row's entrant minus the column's."""
    found = race.difference(name, other)
    if found is None or name == other:
        return Cell(MISSING, "muted")
    value = percent(found.difference if found.first == name else -found.difference, signed=True)
    return f"{value} *" if found.distinct else Cell(value, "muted")


def difference_row(found: Difference) -> list[str]:
    """Return one row of the list."""
    deviation = f"± {percent(found.deviation)}" if found.deviation is not None else MISSING
    return [found.first, found.second, found.weights, plain_name(found.measure),
            percent(found.difference, found.interval, signed=True), deviation, "*" * found.distinct]


# -- cost -------------------------------------------------------------------------------------------------------------

def cost(race: Race) -> Sequence[Part]:
    """Show size, multiply-adds, memory and time."""
    if not race.entrants:
        return []
    rows = []
    for entrant in race.standing:
        latency = entrant.document.get("latency")
        latency = latency if isinstance(latency, dict) else {}
        one, batch, count, threads = (number(latency.get(key)) for key in
                                      ("seconds_one", "seconds_batch", "batch", "threads"))
        each = batch / count if batch is not None and count else None
        where = ", ".join([str(latency.get("device"))] * bool(latency.get("device"))
                          + [f"{shown(threads)} thread{'s' * (threads != 1)}"] * (threads is not None))
        rows.append([entrant.name, shown(entrant.quantity("parameters")),
                     shown(entrant.quantity("multiply_adds"), ",.1f", 1e6),
                     shown(entrant.quantity("activation_bytes"), ",.1f", 2**20), shown(one, ",.4g", 1e-3),
                     shown(each, ",.4g", 1e-3), shown(count), where or MISSING])
    return [table(
        ["entrant", "parameters", "multiply-adds (M)", "activations (MiB)", "one image alone (ms)",
         "an image in a batch (ms)", "batch", "measured on"], rows, range(1, 7), "Multiply-adds and memory of the "
        "activations are those of one image; times are of a forward pass")]


# -- numbers to download ----------------------------------------------------------------------------------------------

def standing_numbers(race: Race) -> Numbers:
    """Return every score for a CSV file."""
    attacks = {measure.name: [measure.attack, measure.norm, measure.epsilon] for measure in race.measures}
    return Numbers("standing", ("entrant", "weights", "measure", "attack", "norm", "epsilon", "mean", "deviation",
                                "values, one a seed"),
                   [[entrant.name, weights, name, *attacks[name], score.mean, score.deviation,
                     " ".join(map(str, score.values))] for entrant in race.standing
                    for weights, scores in entrant.scores.items() for name, score in scores.items()])


def difference_numbers(race: Race) -> Numbers:
    """Return every difference for a CSV file."""
    return Numbers("differences", ("first", "second", "weights", "measure", "difference", "deviation", "low", "high",
                                   "distinct"),
                   [[d.first, d.second, d.weights, d.measure, d.difference, d.deviation, *(d.interval or (None, None)),
                     str(d.distinct).lower()] for d in race.differences])
