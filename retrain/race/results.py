"""Results of a race: one document, ``race.json``."""

import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retrain.race.costs import is_cost_of, known_costs
from retrain.race.entrants import Entrant
from retrain.race.jobs import Job, kept_weights, race_jobs, results
from retrain.race.register import entered
from retrain.race.settings import CompareConfig
from wsrnas.evaluation.caveats import is_at_chance, unchecked
from wsrnas.evaluation.comparison import FORMAT, against_random, main_measure, measures, noises, over_seeds, paired
from wsrnas.evaluation.power import Noise, Plan, measured_noise, planned, power
from wsrnas.evaluation.training_noise import UNKNOWN, TrainingNoise
from wsrnas.runtime import run_files
from wsrnas.runtime.budget import parse_budget
from wsrnas.runtime.checkpoint import write_json
from wsrnas.runtime.config import to_dict
from wsrnas.runtime.sharing import failures

COSTS = {"params": "parameters", "macs": "multiply_adds"}  # fields of an entrant


def document(config: CompareConfig, race: Path, image_set: str) -> dict[str, Any]:
    """Return the results of the race so far, as plain values; docs/RACE.md describes their form.

    Until all jobs are done or have failed, there are differences only for the measure and the weights that entrants are
    ranked by, because computing all of them takes time.

    Args:
        config: configuration of the race.
        race: folder of the race.
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
    noise = {weights: noises([trainings[entrant.name, weights] for entrant in entrants]) for weights in kept}
    differences = [{"first": first.name, "second": second.name, "weights": weights, **row}
                   for weights in (kept if everything else kept[:1])
                   for first, second in itertools.combinations(entrants, 2)
                   for row in paired(trainings[first.name, weights], trainings[second.name, weights],
                                     noise[weights], None if everything else [main])]
    ranked = [row for row in differences if (row["weights"], row["measure"]) == (kept[0], main)]
    return {
        "format": FORMAT, "name": config.name, "complete": len(done) == len(jobs), "done": len(done),
        "failed": failed, "jobs": len(jobs),
        "budget": {"quantity": budget.quantity, "value": budget.value, "tolerance": max([config.tolerance, *(
            abs(getattr(entrant, COSTS[budget.quantity]) / budget.value - 1) for entrant in entrants)])},
        "dataset": config.dataset, "recipe": config.preset, "protocol": config.protocol,
        "images": some["images"] if some else None, "seeds": [config.seed + number for number in range(seeds)],
        "command": sys.argv, "measures": rows, "main": main,
        "entrants": [_entrant(entrant, [job for job in jobs if job.entrant == entrant], found, trainings,
                              costs.get(entrant.name, {}) if is_cost_of(costs.get(entrant.name, {}), entrant)
                              else {}) for entrant in entrants],
        "differences": differences,
        "against_random": against_random(
            {entrant.name: over_seeds(trainings[entrant.name, kept[0]]).get(main) for entrant in entrants},
            [entrant.name for entrant in entrants if entrant.drawn],
            {entrant.name: set(trainings[entrant.name, kept[0]]) for entrant in entrants}),
        "power": power_of(ranked, noise[kept[0]].get(main, UNKNOWN),
                          planned(len(entrants), seeds, some["images"])) if some else None,
        "config": to_dict(config) | {"seeds": seeds},
    }


def power_of(rows: Sequence[Mapping[str, Any]], trainings: TrainingNoise, plan: Plan) -> dict[str, Any]:
    """Return the power of a race: with the seeds that were measured, or before that, with those planned.

    Args:
        rows: paired differences of the measure that ranks.
        trainings: how much trainings differ under this measure.
        plan: the whole race.
    """
    noise = measured_noise(rows, plan.images, trainings)
    if noise is None:
        return power(plan, Noise())
    return power(Plan(max(len(row["values"]) for row in rows), plan.images, trainings.freedom), noise)


def _entrant(entrant: Entrant, jobs: Sequence[Job], found: Mapping[str, Mapping[str, Any]],
             trainings: Mapping[tuple[str, str], Any], cost: Mapping[str, Any]) -> dict[str, Any]:
    cell = None if isinstance(entrant.arch, str) else json.loads(entrant.arch.to_json())
    return {
        "name": entrant.name, "family": entrant.family, "source": entrant.source, "genotype": cell,
        "init_channels": entrant.init_channels, "layers": entrant.layers, "parameters": entrant.parameters,
        "multiply_adds": entrant.multiply_adds, "activation_bytes": cost.get("activation_bytes"),
        "latency": cost.get("latency"),
        **{weights: over_seeds(trainings[entrant.name, weights]) or None for weights in ("best", "last")},
        "at_chance": any(is_at_chance(result) for job in jobs for result in found[job.name].values()),
        "unchecked": [sentence for job in jobs for result in found[job.name].values()
                      for sentence in unchecked(result)],
        "jobs": [f"retrain/{job.name}" for job in jobs],
        "failed_checks": [f"{job.name} {weights}: {check}" for job in jobs
                          for weights, result in found[job.name].items() for check in result["failed_checks"]],
    }


def keep_document(race: Path, values: Mapping[str, Any]) -> None:
    """Write ``race.json``."""
    write_json(race / run_files.RACE, values)
