"""Runs as their files, and their pages, for the tests of pages."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import genotypes
from tests.pages import Page
from wsrnas.report import writing as report
from wsrnas.report.differences import paired_differences
from wsrnas.report.reading.evaluations import Evaluation
from wsrnas.report.reading.networks import networks_of
from wsrnas.runtime import run_files

CELL = genotypes.load("WsrNet_Basic")
PASSED = {"check": "logits are deterministic", "passed": True, "says": "largest relative change 0.0e+00"}


def evaluation(name="net", clean="11110", robust=None, image_set="images", **more):
    """An evaluation after the contract; ``robust``: (attack, method, norm, epsilon) -> one character per image."""
    if robust is None:
        robust = {("PGD-20", "pgd", "linf", 0.03): "11100", ("PGD-20", "pgd", "linf", 0.1): "11000",
                  ("AutoAttack", "autoattack", "linf", 8 / 255): "10000", ("C&W-100", "cw-l2", "l2", None): "00000"}

    def measured(text):
        share = text.count("1") / len(text)
        return {"accuracy": share, "interval": [max(share - 0.1, 0), min(share + 0.1, 1)], "robust": text}
    attacks = [{"attack": attack, "method": method, "norm": norm, "epsilon": epsilon, "steps": 20,
                "step_size": epsilon and epsilon / 8, "restarts": 1, "random_start": False, "loss": "ce", "source": "",
                "seconds": 1.0, **measured(text)} for (attack, method, norm, epsilon), text in robust.items()]
    pgd = [row for row in attacks if row["method"] == "pgd"]
    average = sum(row["accuracy"] for row in pgd) / max(len(pgd), 1)
    over = [f"PGD-20  eps {row['epsilon']:.4f} ({row['epsilon'] * 255:.4g}/255)" for row in pgd]
    return {"format": "wsrnas evaluation 1", "name": name, "protocol": "paper", "dataset": "cifar10",
            "images": len(clean), "seed": 0, "image_set": image_set, "clean": measured(clean), "attacks": attacks,
            "average_robust": {"accuracy": average, "interval": [0.1, 0.9], "over": over} if pgd else None,
            "area": {"value": 0.456, "interval": [0.4, 0.5], "up_to": 0.1} if pgd else None, "official": None,
            "complete": True, "checks": [PASSED], "failed_checks": [], "warnings": [],
            "environment": {"host": "secret-host", "command": ["/x/retrain/evaluate.py", "--model", "a b"]},
            "model": {"source": "best.pt", "fingerprint": f"weights of {name}", "parameters": 4544830,
                      "genotype": None}, **more}


def alphas(step):
    return np.log(np.arange(1, 1 + 14 * 8).reshape(14, 8) + step)


def search_row(step, **more):
    pairs = [[name, source] for name, source in CELL.normal]
    if step >= 2:
        pairs[2] = ["skip_connect", 1]
    return {"step": step, "phase": "search" if step >= 1 else "warm-up", "number": step,
            "train": {"loss": 2.5 - 0.1 * step, "adversarial_accuracy": 0.2 + 0.1 * step, "seconds": 3.0},
            "losses": {"natural": 1.5 - 0.1 * step, "eps_0.03": 2.5 - 0.1 * step},
            "accuracies": {"natural": 0.5 + 0.1 * step, "eps_0.03": 0.25 + 0.1 * step},
            "loss_estimator": {"predicted_objective": [1, 3, 2, 5, 4][step], "measured_objective": step + 1,
                               **({"ranked": step + 1, "kendall_tau": 0.2 * step - 0.2} if step >= 2 else {}),
                               **({"kendall_tau_detrended": -0.3} if step >= 4 else {})},
            "estimator": {"relative_error": 0.75},
            "estimator_check": {"images": 50, "mean_gap": 0.01 * step, "largest_gap": 0.03 * step,
                                "largest_gap_at": 0.1, "attacked": [0.03] if step < 3 else [0.03, 0.1],
                                **({"fallback": 0.1} if step == 2 else {})},
            "architecture": {"changed_choices": 3, "alpha_entropy": {"normal": 2 - 0.1 * step, "reduce": 1.5},
                             "shares": {"skips": 0.125 * step, "pools": 0.25},
                             "genotype": {"normal": pairs, "reduce": [list(pair) for pair in CELL.reduce]},
                             "alphas": {kind: alphas(step).tolist() for kind in ("normal", "reduce")}},
            "seconds": {"train": 3.0 + step, "validate": 1.0},
            **({"collapse": ["half of it are skips"]} if step == 4 else {}), **more}


def write_run(path, rows=(), evaluations=(), config=None, finished=False, **files):
    """A run directory by hand; ``files``: name with two underscores for the point -> text."""
    (path / "eval").mkdir(parents=True)
    config = {"epochs": 4, "learning_rate": 0.05} if config is None else config
    start = {"command": ["/somewhere/retrain/train_cifar.py", "--epochs", "4"], "torch": "2.15.0", "git": "0123abc",
             "host": "secret-host"}
    texts = {"config.json": json.dumps(config), "env.json": json.dumps([start]),
             "inputs.json": json.dumps({"data set": {"name": "digits", "hash": "beef"}, "genotype": CELL.to_json()}),
             "metrics.jsonl": "".join(json.dumps(row) + "\n" for row in rows)}
    texts |= {name.replace("__", "."): text for name, text in files.items()}
    texts |= {f"eval/{number}.json": json.dumps(result) for number, result in enumerate(evaluations)}
    for name, text in (texts | ({"FINISHED": "done"} if finished else {})).items():
        (path / name).write_text(text)
    return path


def write_search(path, **files):
    run = write_run(path, [search_row(step) for step in range(5)],
                    config={"warmup_architectures": 1, "iterations": 4, "epsilon": 0.03}, **files)
    CELL.save(run / "genotype.json")
    stream = np.random.default_rng(0)
    pgd = stream.uniform(-1, 1, (2, 2, 3, 8, 8)) * np.array([0.03, 0.1]).reshape(2, 1, 1, 1)
    np.savez(run / run_files.NOISE_SAMPLES, images=stream.integers(0, 256, (2, 3, 8, 8), dtype=np.uint8), pgd=pgd,
             epsilons=np.array([0.03, 0.1]), estimated=-2 * pgd, step=np.array(4))
    return run


EPOCHS = [{"step": step, "learning_rate": 0.1 / 2**step, "train": {"loss": 2.0 - 0.25 * step, "clean_accuracy": 0.4,
                                                                   "adversarial_accuracy": 0.25 + 0.05 * step,
                                                                   "seconds": 60.0, "images_per_second": 88.0},
           **({"held_out": {"clean_accuracy": 0.5, "robust_accuracy": [0.3, 0.35, 0.0][step]}} if step < 3 else {})}
          for step in range(4)]


def made(*paths, out=None):
    return Page(report.write_report([Path(p) for p in paths], out))


def numbers(folder, name):
    with open(folder / "figures" / f"{name}.csv") as file:
        return list(csv.reader(file))


def rows_of_differences(attacks, **change):
    """The rows of the table of differences between a network whose attacks these are and one that is whole."""
    seen = []
    with pytest.MonkeyPatch.context() as context:
        context.setattr("wsrnas.report.differences.table", lambda header, rows, *rest: seen.append(rows))
        damaged = Evaluation("b", "b", {**evaluation("b"), "attacks": attacks, **change})
        section = paired_differences(networks_of([Evaluation("a", "a", evaluation("a")), damaged]))
    assert bool(section) == bool(seen)
    return seen[0] if seen else None


AT_8 = {("PGD-20", "pgd", "linf", 8 / 255): "11000"}


def attack_row(**change):
    return {**evaluation(robust=AT_8)["attacks"][0], **change}


SMALL = ["--preset", "tiny", "--dataset", "digits", "--device", "cpu", "--init_channels", "2", "--layers", "3",
         "--batch_size", "15", "--save", "run"]
SEARCH = [*SMALL, "--num_steps", "1", "--max_train", "60", "--max_validation", "20", "--recalibration_batches", "1",
          "--loss_passes", "3", "--estimator_images", "2", "--warmup_architectures", "1", "--population", "1",
          "--iterations", "2"]
