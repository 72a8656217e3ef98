"""Tables of a race in Markdown, for the terminal and ``race.md``."""

from collections.abc import Mapping, Sequence
from typing import Any

from wsrnas.complexity import readable
from wsrnas.evaluation.caveats import counted, leader
from wsrnas.training.losses import selection_words


def standing(values: Mapping[str, Any]) -> str:
    """Return the tables of a race: accuracies of best and last weights, paired differences, costs.

    Args:
        values: document of the race.
    """
    weights = [kind for kind in ("best", "last") if any(entrant[kind] for entrant in values["entrants"])]
    parts = [] if values["complete"] else [f"**{values['done']} of {values['jobs']} jobs are done.**" + "".join(
        f" {name} failed: {said}." for name, said in values["failed"].items())]
    if not weights:
        return "\n\n".join([*parts, "no training is complete yet"])
    rule = selection_words(values.get("config", {}).get("adv_loss", ""))
    names = {"best": f"Best weights (highest {rule} on held-out images)", "last": "Last weights"}
    over = seeds_of(values)
    parts.append(leader_line(values, weights[0]))
    parts += [f"**{names[kind]}**, accuracy in %, {over}, {values['images']} test images:\n\n"
              f"{accuracy_table(values, kind)}" for kind in weights]
    measure = values["main"]
    if rows := difference_rows(values, weights[0], measure):
        what = ("over test images and trainings]; * where the interval excludes 0" if values["power"]["measured"] else
                "over test images alone], so that no difference counts")
        parts.append(f"**Paired differences** of {measure}, {weights[0]} weights, in points: {over} [95 % {what} (not "
                     f"corrected for {len(rows)} pairs):\n\n{markdown(['pair', 'difference'], rows)}")
    if values["power"]:
        parts.append(f"**Power** of the race, in {measure}: {values['power']['summary']}")
    if chance := values["against_random"]:
        parts.append(f"**Against random cells**, in {measure}, {weights[0]} weights:\n\n"
                     + "\n".join(f"- {row['summary']}" for row in chance))
    device = next((entrant["latency"]["device"] for entrant in values["entrants"] if entrant["latency"]), "")
    parts.append(f"**Cost** of one image{f', times on {device}' * bool(device)}:\n\n{cost_table(values)}")
    return "\n\n".join(parts)


def leader_line(values: Mapping[str, Any], weights: str) -> str:
    """Return the first lines of a race: its leader or why there is none, what shows nothing and what was unchecked."""
    told = {(row["first"], row["second"]) if row["difference"] > 0 else (row["second"], row["first"])
            for row in values["differences"]
            if (row["weights"], row["measure"], row["distinct"]) == (weights, values["main"], True)}
    at_chance = [entrant["name"] for entrant in values["entrants"] if entrant["at_chance"]]
    found, sentence = leader([entrant["name"] for entrant in ranked(values, weights)],
                             lambda one, other: (one, other) in told, at_chance)
    title = ("Leader" if values["complete"] else "Leader so far") if found else "No leader"
    lines = [f"**{title}:** {sentence}."]
    lines += [f"**At chance:** the clean accuracy of {name} is not above chance in some training, so nothing follows "
              "about its robustness." for name in at_chance]
    lines += [f"**Not checked:** {sentence}." for sentence in counted(
        sentence for entrant in values["entrants"] for sentence in entrant["unchecked"])]
    return "\n\n".join(lines)


def ranked(values: Mapping[str, Any], weights: str) -> list[Mapping[str, Any]]:
    """Return the entrants with results, the best in the main measure first."""
    return sorted((entrant for entrant in values["entrants"] if entrant[weights]),
                  key=lambda entrant: -entrant[weights][values["main"]]["mean"])


def seeds_of(values: Mapping[str, Any]) -> str:
    """Return over how many trainings the numbers are."""
    counts = sorted({len(entrant[kind]["clean"]["values"]) for entrant in values["entrants"]
                     for kind in ("best", "last") if entrant[kind]})
    if counts[-1] == 1:
        return "one seed"
    return f"mean ± standard deviation over {' to '.join(map(str, dict.fromkeys([counts[0], counts[-1]])))} seeds"


def accuracy_table(values: Mapping[str, Any], weights: str) -> str:
    """Return one row for each entrant, the best in the main measure first."""
    names = [measure["name"] for measure in values["measures"]]
    rows = [[entrant["name"], *(_percent(entrant[weights][name]) for name in names)]
            for entrant in ranked(values, weights)]
    return markdown(["entrant", *names], rows)


def difference_rows(values: Mapping[str, Any], weights: str, measure: str) -> list[list[str]]:
    """Return one row for each pair of entrants: their names, and their difference in points."""
    rows = []
    for row in values["differences"]:
        if (row["weights"], row["measure"]) == (weights, measure):
            low, high = (100 * end for end in row["interval"])
            deviation = "" if row["deviation"] is None else f" ± {100 * row['deviation']:.2f}"
            rows.append([f"{row['first']} − {row['second']}", f"{100 * row['difference']:+.2f}{deviation} "
                         f"[{low:+.1f}, {high:+.1f}]{' *' * row['distinct']}"])
    return rows


def cost_table(values: Mapping[str, Any]) -> str:
    """Return one row for each entrant; the times are those of this device."""
    rows = []
    for entrant in values["entrants"]:
        latency, memory = entrant["latency"], entrant["activation_bytes"]
        rows.append([entrant["name"], f"{entrant['init_channels']}, {entrant['layers'] or 'own'}",
                     readable(entrant["parameters"]), readable(entrant["multiply_adds"]),
                     f"{memory / 2**20:.2f}" if memory else "-",
                     f"{1000 * latency['seconds_one']:.2f}" if latency else "-",
                     f"{1000 * latency['seconds_batch'] / latency['batch']:.3f}" if latency else "-"])
    batch = next((entrant["latency"]["batch"] for entrant in values["entrants"] if entrant["latency"]), 0)
    return markdown(["entrant", "C, layers", "parameters", "multiply-adds", "activations (MiB)", "alone (ms)",
                     f"in a batch of {batch} (ms)"], rows)


def _percent(cell: Mapping[str, Any]) -> str:
    deviation = "" if cell["deviation"] is None else f" ± {100 * cell['deviation']:.2f}"
    return f"{100 * cell['mean']:.2f}{deviation}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose columns are aligned in plain text, too."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = ["| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
             for row in [header, *rows]]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])
