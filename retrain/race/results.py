"""What comes out of a race: one document (``race.json``), its table, and what every entrant costs on this device."""

import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from retrain.race.entrants import Entrant
from retrain.race.jobs import Job, kept_weights, race_jobs, read_object, results
from retrain.race.register import entered
from retrain.race.settings import CompareConfig, parse_budget
from wsrnas.complexity import activation_bytes, latencies, readable
from wsrnas.data.image_set import DataSet
from wsrnas.evaluation.comparison import FORMAT, main_measure, measures, over_seeds, paired
from wsrnas.genotype import Genotype
from wsrnas.models import build_model
from wsrnas.runtime import run_files
from wsrnas.runtime.checkpoint import write_json
from wsrnas.runtime.config import to_dict
from wsrnas.runtime.device import device_name
from wsrnas.runtime.distributed import World
from wsrnas.runtime.sharing import failures


def known_costs(race: Path) -> dict[str, dict[str, Any]]:
    """What ``write_costs`` has measured so far."""
    return read_object(race / "costs.json")


def write_costs(race: Path, entrants: Sequence[Entrant], data: DataSet, world: World) -> dict[str, dict[str, Any]]:
    """Activation memory and latency of every entrant, kept in ``costs.json``.

    Where one is missing, or was measured on another device or with other threads, all are measured again, in turns, so
    that what else the machine does falls on all.
    """
    known = known_costs(race)
    here = [device_name(world.device), torch.get_num_threads()]
    if any([known.get(entrant.name, {}).get("latency", {}).get(key) for key in ("device", "threads")] != here
           for entrant in entrants):
        networks = {entrant.name: build_model(
            entrant.arch, data.num_classes, entrant.init_channels, entrant.layers, data.name, data.image_shape[0]
        ).to(world.device, memory_format=torch.channels_last) for entrant in entrants}
        measured = latencies(networks, data.image_shape)
        known = {name: {"activation_bytes": activation_bytes(network, data.image_shape), "latency": measured[name]}
                 for name, network in networks.items()}
        write_json(race / "costs.json", known)
    return known


def document(config: CompareConfig, race: Path, image_set: str) -> dict[str, Any]:
    """What the race has found so far, as plain values; its form is described in docs/RACE.md.

    Until all jobs are done or have failed, differences are those of the measure, and of the weights, that entrants are
    ranked by: all of them take their time.

    Args:
        image_set: fingerprint of the test images.
    """
    entrants, seeds = entered(race)
    jobs, costs = race_jobs(config, race, entrants, seeds), known_costs(race)
    budget = parse_budget(config.budget)
    found = {job.name: results(config, job, image_set) for job in jobs}
    trainings = {(entrant.name, weights): {job.seed: found[job.name][weights] for job in jobs
                                           if job.entrant == entrant and weights in found[job.name]}
                 for entrant in entrants for weights in ("best", "last")}
    some = next((result for by_weights in found.values() for result in by_weights.values()), None)
    rows, kept = measures(some) if some else [], kept_weights(config)
    main = main_measure(rows, [over_seeds(trainings[entrant.name, kept[0]]) for entrant in entrants])
    done = [name for name, by_weights in found.items() if len(by_weights) == len(kept)]
    failed = {name: said for name, said in failures(race / run_files.CLAIMS).items()
              if name in found and name not in done}
    everything = len(done) + len(failed) == len(jobs)
    return {
        "format": FORMAT, "name": config.name, "complete": len(done) == len(jobs), "done": len(done),
        "failed": failed, "jobs": len(jobs),
        "budget": {"quantity": budget.quantity, "value": budget.value, "tolerance": config.tolerance},
        "dataset": config.dataset, "recipe": config.preset, "protocol": config.protocol,
        "images": some["images"] if some else None, "seeds": [config.seed + number for number in range(seeds)],
        "command": sys.argv, "measures": rows, "main": main,
        "entrants": [_entrant(entrant, [job for job in jobs if job.entrant == entrant], found, trainings,
                              costs.get(entrant.name, {})) for entrant in entrants],
        "differences": [{"first": first.name, "second": second.name, "weights": weights, **row}
                        for weights in (kept if everything else kept[:1])
                        for first, second in itertools.combinations(entrants, 2)
                        for row in paired(trainings[first.name, weights], trainings[second.name, weights],
                                          None if everything else [main])],
        "config": to_dict(config),
    }


def _entrant(entrant: Entrant, jobs: Sequence[Job], found: Mapping[str, Mapping[str, Any]],
             trainings: Mapping[tuple[str, str], Any], cost: Mapping[str, Any]) -> dict[str, Any]:
    cell = json.loads(entrant.arch.to_json()) if isinstance(entrant.arch, Genotype) else None
    return {
        "name": entrant.name, "family": entrant.family, "source": entrant.source, "genotype": cell,
        "init_channels": entrant.init_channels, "layers": entrant.layers, "parameters": entrant.parameters,
        "multiply_adds": entrant.multiply_adds, "activation_bytes": cost.get("activation_bytes"),
        "latency": cost.get("latency"),
        **{weights: over_seeds(trainings[entrant.name, weights]) or None for weights in ("best", "last")},
        "jobs": [f"retrain/{job.name}" for job in jobs],
        "failed_checks": [f"{job.name} {weights}: {check}" for job in jobs
                          for weights, result in found[job.name].items() for check in result["failed_checks"]],
    }


def keep_document(race: Path, values: Mapping[str, Any]) -> None:
    """Write ``race.json``."""
    write_json(race / run_files.RACE, values)


# -- for people -----------------------------------------------------------------------------------------------------

def standing(values: Mapping[str, Any]) -> str:
    """The tables of a race as Markdown: accuracies of best and last weights, paired differences, costs."""
    weights = [kind for kind in ("best", "last") if any(entrant[kind] for entrant in values["entrants"])]
    if not weights:
        return "no training is complete yet"
    names = {"best": "Best weights (highest robust accuracy on held-out images)", "last": "Last weights"}
    over = seeds_of(values)
    parts = [] if values["complete"] else [f"**{values['done']} of {values['jobs']} jobs are done.**" + "".join(
        f" {name} failed: {said}." for name, said in values["failed"].items())]
    parts += [f"**{names[kind]}**, accuracy in %, {over}, {values['images']} test images:\n\n"
              f"{accuracy_table(values, kind)}" for kind in weights]
    measure = values["main"]
    if rows := difference_rows(values, weights[0], measure):
        parts.append(f"**Paired differences** of {measure}, {weights[0]} weights, in points: {over} [95 % over test "
                     "images]; * where the interval excludes 0 and all seeds, of at least two, agree (not corrected "
                     f"for {len(rows)} pairs):\n\n{markdown(['pair', 'difference'], rows)}")
    device = next((entrant["latency"]["device"] for entrant in values["entrants"] if entrant["latency"]), "")
    parts.append(f"**Cost** of one image{f', times on {device}' * bool(device)}:\n\n{cost_table(values)}")
    return "\n\n".join(parts)


def seeds_of(values: Mapping[str, Any]) -> str:
    """How many trainings the numbers are of."""
    counts = sorted({len(entrant[kind]["clean"]["values"]) for entrant in values["entrants"]
                     for kind in ("best", "last") if entrant[kind]})
    if counts[-1] == 1:
        return "one seed"
    return f"mean ± standard deviation over {' to '.join(map(str, dict.fromkeys([counts[0], counts[-1]])))} seeds"


def accuracy_table(values: Mapping[str, Any], weights: str) -> str:
    """One row an entrant, the best in the main measure first."""
    names = [measure["name"] for measure in values["measures"]]
    ranked = sorted((entrant for entrant in values["entrants"] if entrant[weights]),
                    key=lambda entrant: -entrant[weights][values["main"]]["mean"])
    rows = [[entrant["name"], *(_percent(entrant[weights][name]) for name in names)] for entrant in ranked]
    return markdown(["entrant", *names], rows)


def difference_rows(values: Mapping[str, Any], weights: str, measure: str) -> list[list[str]]:
    rows = []
    for row in values["differences"]:
        if (row["weights"], row["measure"]) == (weights, measure):
            low, high = (100 * end for end in row["interval"])
            deviation = "" if row["deviation"] is None else f" ± {100 * row['deviation']:.2f}"
            rows.append([f"{row['first']} − {row['second']}", f"{100 * row['difference']:+.2f}{deviation} "
                         f"[{low:+.1f}, {high:+.1f}]{' *' * row['distinct']}"])
    return rows


def cost_table(values: Mapping[str, Any]) -> str:
    """One row an entrant; the seconds are those of this device."""
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
    """A Markdown table whose columns are aligned in plain text, too."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = ["| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
             for row in [header, *rows]]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])
