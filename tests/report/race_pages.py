"""Races as their documents, and their pages, for the tests of pages."""

import copy
import csv
import itertools
import json
import random
import statistics

import genotypes
from tests.pages import Page
from wsrnas.report.race import write_race_report

PGD = [f"PGD-20  eps {epsilon:.4f} ({epsilon * 255:.4g}/255)" for epsilon in (0.03, 0.1)]
AUTO = "AutoAttack  eps 0.0314 (8/255)"
NAMES = ("alpha", "beta", "gamma")
CELLS = {"alpha": "WsrNet_Basic", "beta": "RACL"}
MEASURES = [{"name": "clean", "attack": None, "norm": None, "epsilon": 0.0},
            *({"name": name, "attack": "PGD-20", "norm": "linf", "epsilon": epsilon}
              for name, epsilon in zip(PGD, (0.03, 0.1), strict=True)),
            {"name": AUTO, "attack": "AutoAttack", "norm": "linf", "epsilon": 8 / 255},
            {"name": "average robust", "attack": None, "norm": None, "epsilon": None}]


def score(values):
    return {"values": list(values), "mean": statistics.fmean(values),
            "deviation": statistics.stdev(values) if len(values) > 1 else None}


def entrant(name, seeds, measures, place):
    drawn = random.Random(name)
    tell = {weights: {measure["name"]: score([drawn.uniform(0.2, 0.8) for _ in seeds]) for measure in measures}
            for weights in ("best", "last")}
    cell = json.loads(genotypes.load(CELLS[name]).to_json()) if name in CELLS else None
    return {"name": name, "family": f"family of {name}", "source": f"paper of {name}", "genotype": cell,
            "init_channels": 45 + place, "layers": 20, "parameters": 4544830 + 1000 * place,
            "multiply_adds": 6.9e8 + 1e7 * place, "activation_bytes": 2**20 * (3 + place),
            "latency": {"device": "some device", "threads": 1 + place, "seconds_one": 0.0125, "seconds_batch": 0.5,
                        "batch": 64}, **tell,
            "jobs": [f"retrain/{name}-seed{seed}" for seed in seeds], "failed_checks": []}


def race(names=NAMES, seeds=(0, 1), measures=MEASURES, **more):
    entrants = [entrant(name, seeds, measures, place) for place, name in enumerate(names)]
    differences = []
    for (one, other), weights, measure in itertools.product(itertools.combinations(entrants, 2), ("best", "last"),
                                                            measures):
        values = [a - b for a, b in zip(*(e[weights][measure["name"]]["values"] for e in (one, other)), strict=True)]
        told = score(values)
        low, high = told["mean"] - 0.05, told["mean"] + 0.07
        differences.append({"first": one["name"], "second": other["name"], "weights": weights,
                            "measure": measure["name"], "values": values, "difference": told["mean"],
                            "deviation": told["deviation"], "interval": [low, high], "distinct": low * high > 0})
    return {"format": "wsrnas race 2", "name": "three", "complete": True, "done": 6, "jobs": 6,
            "budget": {"quantity": "params", "value": 4.5e6, "tolerance": 0.02}, "dataset": "folder", "recipe": "tiny",
            "protocol": "paper", "images": 400, "seeds": list(seeds),
            "command": ["/x/retrain/compare.py", "--epochs", "10"], "measures": copy.deepcopy(measures),
            "entrants": entrants, "differences": differences,
            "power": {"measured": len(seeds) > 1, "summary": "What this race can see."},
            "config": {"epochs": 10, "data": "somewhere"}, **more}


def store(folder, document):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "race.json").write_text(json.dumps(document))
    return folder


def race_page(folder, document, **more):
    return Page(write_race_report(store(folder, document), **more))


def numbers(folder, name):
    with open(folder / "figures" / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


def told(row):
    """A score as the tables write it, without their helper."""
    text = f"{100 * row['mean']:.1f}"
    return text if row["deviation"] is None else f"{text} ± {100 * row['deviation']:.1f}"


def ranked(document, weights="best", measure="average robust"):
    return sorted(document["entrants"], key=lambda e: -e[weights][measure]["mean"])


def bands(axes):
    """Every line of two points or more with the corners of its band."""
    lines = [line.get_xydata() for line in axes.lines if len(line.get_xdata()) > 1]
    areas = [c for c in axes.collections if type(c).__name__ in ("PolyCollection", "FillBetweenPolyCollection")]
    return [(line, {tuple(corner) for corner in area.get_paths()[0].vertices})
            for line, area in zip(lines, areas, strict=True)]
