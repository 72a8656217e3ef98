"""Compare the protocol curve with attacks at every strength, and APGD-CE+T with AutoAttack (docs/RESULTS.md).

    python -m studies.ten_networks --data CIFAR --out networks
    python -m studies.whole_curve --data CIFAR --networks networks --out whole_curve
    python -m studies.whole_curve --data CIFAR --networks networks --out whole_curve --seed 1

For each of ten small networks and both norms, on the same test images: accuracy at 16 strengths, the area under
accuracy over strength (for attacks at 16 strengths, an image's noise is the smallest strength at which it fell) and
passes of the curve, of longer curves, of PGD-20 on the cross-entropy at every strength (as the protocol spectrum was)
and at survivors, and of PGD-20 on the margin at survivors. ``--fixed`` compares APGD-CE+T and the standard AutoAttack
at one strength instead. Each part of an attack is stored when it is done, so the same command resumes; --minutes stops
in between. ``--seed 1`` takes the fresh networks and test images of that seed.
"""

import argparse
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from studies.ten_networks import images_of, network, networks_of
from wsrnas.data.loader import BatchLoader
from wsrnas.evaluation.attack_spec import Attack, at_strength, parse_attack
from wsrnas.evaluation.curve import Curve
from wsrnas.evaluation.journal import Journal
from wsrnas.evaluation.measurement import Evaluation
from wsrnas.evaluation.protocols import curve_of
from wsrnas.evaluation.results import measure
from wsrnas.runtime.checkpoint import write_json
from wsrnas.runtime.config import Parser, require, within
from wsrnas.runtime.program import run_program
from wsrnas.runtime.same_work import stored_object
from wsrnas.subjects.model_source import weights_hash

FIXED = {"linf": 8 / 255, "l2": 0.5}


def smallest_strengths(rows: list[dict[str, Any]]) -> Tensor:
    """Return for each image the smallest strength at which it falls, infinite where it falls at none, (N,)."""
    found = torch.full((len(rows[0]["robust"]),), math.inf, dtype=torch.float64)
    for row in reversed(rows):
        fallen = torch.tensor([flag == "0" for flag in row["robust"]])
        found[fallen] = row["epsilon"]
    return found


def entry(distances: Tensor, clean: Tensor, passes: float, curve: Curve) -> dict[str, Any]:
    """Return area, images that are right at each strength, and passes for each test image."""
    distances = torch.where(clean, distances, 0)
    return {"area": 100 * (distances.clamp_max(curve.strengths[-1]) / curve.strengths[-1]).mean().item(),
            "right": [int((distances > strength).sum()) for strength in curve.strengths], "passes": passes}


def margin_attack(norm: str) -> Attack:
    """Return PGD-20 on the margin."""
    return Attack("cw-linf", None, norm, 20, loss="margin")


def compare_curves(judge: Evaluation, norm: str) -> dict[str, Any]:
    """Measure one network with every attack that gives a whole curve."""
    curve, clean = curve_of(norm), judge.clean()
    found: dict[str, Any] = {"right": int(clean.sum()), "images": len(clean)}
    result = measure(judge, (), 30, level="none", curve=curve)["curve"]
    distances = torch.tensor([math.inf if value is None else value for value in result["distances"]])
    found["curve"] = entry(distances.double(), clean, sum(judge.passes_of(curve) or ()), curve)
    for steps in (100, 200):
        longer = Curve(norm, curve.strengths, steps)
        distances = judge.distances(longer, clean.nonzero().flatten())
        found[f"curve-{steps}"] = entry(distances, clean, sum(judge.passes_of(longer) or ()), curve)
    for name, kind, spare in (("PGD-20 CE, every image", parse_attack("pgd-l2" if norm == "l2" else "pgd"), False),
                              ("PGD-20 CE", parse_attack("pgd-l2" if norm == "l2" else "pgd"), True),
                              ("PGD-20 margin", margin_attack(norm), True)):
        attacks = [at_strength(kind, strength) for strength in curve.strengths]
        result = measure(judge, attacks, 30, level="none", spare_fallen=spare)
        passes = sum(sum(row["passes"]) for row in result["attacks"])
        found[name] = entry(smallest_strengths(result["attacks"]), clean, passes, curve)
    return found


def compare_fixed(judge: Evaluation, norm: str) -> dict[str, Any]:
    """Measure one network by AutoAttack and by its two gradient attacks."""
    names = [name + ("-l2" if norm == "l2" else "") for name in ("apgd-ce+t", "autoattack")]
    result = measure(judge, [at_strength(parse_attack(name), FIXED[norm]) for name in names], 30, level="none")
    return {"accuracies": [100 * row["accuracy"] for row in result["attacks"]],
            "passes": [sum(row["passes"]) for row in result["attacks"]], "disagreements": result["disagreements"]}


def lines(found: dict[str, dict[str, Any]]) -> list[str]:
    """Return the comparison as the rows of a table."""
    rows = []
    for name, result in found.items():
        if "accuracies" in result:
            (fast, strict), passes = result["accuracies"], result["passes"]
            rows.append(f"| {name} | {fast:.2f} | {strict:.2f} | {passes[0]:.0f} | {passes[1]:.0f} |")
            continue
        others = {key: value for key, value in result.items() if isinstance(value, dict)}
        best = min(value["area"] for value in others.values())
        curve, margin, before = (others[key] for key in ("curve", "PGD-20 margin", "PGD-20 CE, every image"))
        excess = max(mine - theirs for mine, theirs in zip(curve["right"], margin["right"], strict=True))
        areas = " | ".join(f"{value['area']:.2f} ({value['passes']:.0f})" for value in others.values())
        rows.append(f"| {name} | {result['right']} | {areas} | {curve['area'] - best:+.2f} | {excess:+d} | "
                    f"{before['passes'] / curve['passes']:.1f} |")
    return rows


def main() -> None:
    """Measure, store and print."""
    parser = Parser(prog="studies.whole_curve", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of CIFAR-10 with train/<class>/* and test/<class>/*")
    parser.add_argument("--networks", type=Path, required=True, help="folder of studies.ten_networks")
    parser.add_argument("--out", type=Path, required=True, help="folder of the measurements")
    parser.add_argument("--images", type=within(int, 1), default=150, help="test images (default: 150)")
    parser.add_argument("--fixed", action="store_true", help="compare APGD-CE+T and AutoAttack at one strength")
    parser.add_argument("--seed", type=within(int, 0), default=0, help="seed of networks and images (default: 0)")
    parser.add_argument("--minutes", type=within(float, 0), default=math.inf, help="stop after the part of this minute")
    arguments = parser.parse_args()
    end = time.monotonic() + 60 * arguments.minutes
    arguments.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Any]] = {}
    for place, (name, recipe) in enumerate(networks_of(arguments.seed).items()):
        test = images_of(recipe, arguments.data, arguments.images, arguments.seed)[1]
        for norm in FIXED:
            kind = ("fixed" if arguments.fixed else "curve") + f"-{place}-{norm}-{arguments.images}"
            file = arguments.out / (kind + f"-seed{arguments.seed}" * bool(arguments.seed) + ".json")
            model = network(name, arguments.data, arguments.networks, arguments.seed)
            of = {"network": name, "weights": weights_hash(model.state_dict().items()), "images": test.fingerprint()}
            stored = stored_object(file)
            require(stored is None or stored.get("of") == of, f"{file} is about another network or other images; "
                    "expected another --out, or no such file")
            if stored is None:
                journal = Journal(arguments.out / "chunks" / file.stem, of)
                judge = Evaluation(model, BatchLoader(test, 100, 0, "test"), 10, journal=journal,
                                   log=lambda line: None, stop=lambda: time.monotonic() > end)
                stored = {"of": of} | (compare_fixed if arguments.fixed else compare_curves)(judge, norm)
                write_json(file, stored)
            found[f"{name}, {norm}"] = {key: value for key, value in stored.items() if key != "of"}
            print(lines(found)[-1], flush=True)


if __name__ == "__main__":
    run_program(main)
