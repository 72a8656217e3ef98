"""The programs that are stopped again and again by ``tests.soak``: their arguments, and what they need to begin."""

import contextlib
import json
import os
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from search.spaces import SPACES

TRAINING = ["--preset", "tiny", "--device", "cpu", "--held_out", "20", "--num_steps", "1", "--batch_size", "20",
            "--init_channels", "2", "--layers", "3", "--select_steps", "1", "--select_every", "1", "--save_every", "1",
            "--epochs", "3", "--save", "run"]
EVALUATION = ["--model", "runs/retrain/run", "--device", "cpu", "--dataset", "digits"]
PROGRAMS = {  # arguments; every program writes below runs/
    "search.wsr_nas": ["--preset", "tiny", "--space", "nas-bench-201", "--device", "cpu", "--init_channels", "2",
                       "--layers", "3", "--max_train", "60", "--max_validation", "20", "--num_steps", "1",
                       "--batch_size", "14", "--warmup_architectures", "1", "--population", "1", "--iterations", "2",
                       "--loss_passes", "1", "--estimator_images", "1", "--recalibration_batches", "1", "--save",
                       "run"],
    "search.rnas": ["--preset", "tiny", "--device", "cpu", "--init_channels", "1", "--layers", "1", "--max_train",
                    "60", "--batch_size", "10", "--num_steps", "1", "--bound_batches", "1", "--watched_batches", "1",
                    "--recalibration_batches", "1", "--solver_iterations", "2", "--epochs", "3", "--warmup_epochs", "1",
                    "--vulnerability_bound", "rel:0.5", "--save", "run"],
    "search.tabular": ["--table", "demo", "--strategy", "random", "--queries", "4", "--seeds", "4", "--out",
                       "runs/tabular"],
    "search.ranking": ["--run", "runs/search/run", "--table", "table.json", "--images", "20", "--strengths", "0.05",
                       "0.1", "--num_steps", "1", "--resamples", "20", "--device", "cpu", "--save", "ranked"],
    "retrain.train_cifar": [*TRAINING, "--max_train", "60"],
    "retrain.train_imagenet": [*TRAINING, "--data", "pictures", "--image_size", "32", "--workers", "0"],
    "retrain.evaluate": [*EVALUATION, "--max_test", "40", "--attacks", "pgd-2", "--strengths", "0.1", "--batch_size",
                         "10", "--check_images", "30"],
    "retrain.compare": ["--recipe", "tiny", "--archs", "RACL", "--budget", "params=1.2k", "--tolerance", "0.9",
                        "--layers", "1", "--epochs", "2", "--max_train", "120", "--held_out", "20", "--batch_size",
                        "50", "--num_steps", "1", "--select_steps", "1", "--select_every", "1", "--milestones", "1",
                        "--seeds", "2", "--protocol", "custom", "--attacks", "pgd-1", "--test_strengths", "0.1",
                        "--max_test", "40", "--test_batch_size", "20", "--check_images", "30", "--device", "cpu",
                        "--save", "race"],
    "retrain.vulnerability": [*EVALUATION, "--max_test", "20", "--batch_size", "10", "--num_steps", "2", "--save",
                              "moved"],
    "retrain.export": ["--model", "runs/retrain/run", "--name", "Soaked"],
    "test_AN_estimator.benchmark": [
        "--preset", "tiny", "--device", "cpu", "--layers", "1", "--max_train", "40", "--max_test", "10",
        "--train_steps", "1", "--network_batch_size", "20", "--num_steps", "1", "--max_estimator_train", "16",
        "--batch_size", "4", "--rotation", "2", "--eval_batch_size", "6", "--sources", "0.1", "0.2", "--single_source",
        "0.1", "--spectrum", "0.05", "0.1", "0.25", "--networks", "cna_r:1:1", "--estimators", "A-ANE", "--save",
        "study"],
}
MODULES = {"retrain.vulnerability": "retrain.vulnerability.__main__"}
NEEDS = {"retrain.evaluate": "retrain.train_cifar", "retrain.vulnerability": "retrain.train_cifar",
         "retrain.export": "retrain.train_cifar", "search.ranking": "search.wsr_nas"}
FOLDERS = {"search.wsr_nas": "search/run", "search.rnas": "search/run", "search.tabular": "tabular",  # below runs/
           "search.ranking": "ranking/ranked", "retrain.train_cifar": "retrain/run", "retrain.train_imagenet":
           "retrain/run", "retrain.evaluate": "retrain/run", "retrain.compare": "compare/race", "retrain.vulnerability":
           "vulnerability/moved", "retrain.export": "export/Soaked", "test_AN_estimator.benchmark":
           "test_AN_estimator/study"}
RANKED = ("retrain.train_cifar", "search.wsr_nas", "search.rnas", "retrain.evaluate")  # torchrun starts two processes
SHARED = ("search.tabular", "search.ranking", "retrain.compare",  # whoever starts them twice shares the work
          "test_AN_estimator.benchmark")


def main_of(program: str, argv: list[str] | None = None) -> None:
    """Run a program in this process."""
    import_module(MODULES.get(program, program)).main(PROGRAMS[program] if argv is None else argv)


def in_peace(program: str, place: Path) -> None:
    """Run a program in this process, so that its copies have imported all that it needs."""
    with contextlib.chdir(place), open(place / "said0.txt", "w") as file, contextlib.redirect_stdout(file):
        main_of(program)


def prepare(program: str, place: Path, folder: Path) -> None:
    """Make the place of a life, with what the program needs: a trained network, a supernet, a table, pictures.

    Args:
        program: Name of the program.
        place: The new folder.
        folder: Where it is kept what several lives need.
    """
    place.mkdir(parents=True)
    if needed := NEEDS.get(program):
        made = folder / f"made-{needed}"
        if not (made / "ended").exists():
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir()
            in_peace(needed, made)
            (made / "ended").touch()
        shutil.copytree(made / "runs", place / "runs")
    if program == "search.ranking":
        _write_table(place / "table.json")
    if program == "retrain.train_imagenet":
        if not (folder / "pictures").exists():
            _write_pictures(folder / "pictures")
        os.symlink(folder / "pictures", place / "pictures")


def _write_table(path: Path) -> None:
    """Write a table of twelve graphs with invented results."""
    random = torch.Generator().manual_seed(3)
    graphs = torch.randint(1, 5, (12, 6), generator=random)
    path.write_text(json.dumps({
        "source": "the soak", "ops": list(SPACES["nas-bench-201"].operations),
        "edges": ["in->1", "in->2", "1->2", "in->out", "1->out", "2->out"], "columns": ["clean", "pgd_3", "pgd_8"],
        "arch": ["".join(map(str, row)) for row in graphs.tolist()], "row_of": list(range(12)),
        "results": torch.rand(12, 3, generator=random, dtype=torch.float64).tolist()}))


def _write_pictures(root: Path) -> None:
    """Write two classes of noise, 40 pictures each to train and one to validate."""
    noise = np.random.default_rng(0)
    for part, count in (("train", 40), ("val", 1)):
        for label, name in enumerate(("dark", "light")):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = noise.integers(100 * label, 150 + 100 * label, (40, 36, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{number:02d}.png")
