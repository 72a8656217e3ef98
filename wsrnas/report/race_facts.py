"""The key numbers of a race: one function for each fact."""

from wsrnas.evaluation import caveats
from wsrnas.report.race_tables import plain_name, shown, with_deviation
from wsrnas.report.reading.races import Race, budget_of, listed
from wsrnas.report.texts import text_of
from wsrnas.report.tiles import Fact, Tile


def leader(race: Race) -> list[Tile]:
    """Return the entrant that ranks first if all others can be told apart from it, otherwise that none leads."""
    first = race.standing[0] if race.standing else None
    if not first or not (score := first.score(race.weights, race.ranking)):
        return []
    seeds = f"{len(score.values)} seed{'s' * (len(score.values) != 1)}"
    remark = [f"{plain_name(race.ranking)} {with_deviation(score)} %, {race.weights} weights, {seeds}"]
    remark += ["a check failed"] * bool(first.listed("failed_checks"))
    leads, sentence = found_leader(race)
    if leads:
        return [Tile("leader" if race.complete else "leader so far", first.name, "; ".join(remark))]
    return [Tile("leader", "none", f"{sentence}; {'; '.join(remark)}")]


def found_leader(race: Race) -> tuple[bool, str]:
    """Return whether there is a leader, and a sentence that names it or says why there is none."""
    def better(one: str, other: str) -> bool:
        pair = race.difference(one, other)
        return pair is not None and pair.distinct and (pair.difference > 0) == (pair.first == one)
    names = [entrant.name for entrant in race.standing if entrant.score(race.weights, race.ranking)]
    at_chance = [entrant.name for entrant in race.entrants if entrant.document.get("at_chance") is True]
    return caveats.leader(names, better, at_chance)


def budget(race: Race) -> list[Tile]:
    """Return the size that entrants are scaled to."""
    text = budget_of(race)
    return [Tile("budget", text, "every entrant has its own size" if text == "none" else
                 "every entrant is scaled to it")]


def seeds(race: Race) -> list[Tile]:
    """Return the seeds of the trainings."""
    found = listed(race.document.get("seeds"))
    each = "one training for each" if len(found) > 1 else "one training of every entrant"
    return [Tile("seeds", text_of(found), each)] if found else []


def images(race: Race) -> list[Tile]:
    """Return the number of test images."""
    count = race.quantity("images")
    which = f"test images of {race.document.get('dataset') or 'the data set'}"
    return [] if count is None else [Tile("images", shown(count), which)]


FACTS: tuple[Fact, ...] = (leader, budget, seeds, images)
