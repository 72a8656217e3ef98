"""The smallest rankings: a tiny search whose supernet is asked, and a table of a few graphs."""

import json
from pathlib import Path

import torch

import search.wsr_nas
from search.spaces import SPACES

GRAPHS = 14
RUN_SEED, SEED = 3, 5  # of the search, of the ranking; none is 0, so that a forgotten one is noticed
RUN = ["--preset", "tiny", "--space", "nas-bench-201", "--dataset", "digits", "--device", "cpu", "--init_channels", "2",
       "--layers", "3", "--num_steps", "1", "--max_train", "80", "--max_validation", "20", "--batch_size", "15",
       "--recalibration_batches", "1", "--loss_passes", "1", "--estimator_images", "1", "--check_images", "0",
       "--warmup_architectures", "1", "--population", "1", "--iterations", "1",
       "--seed", str(RUN_SEED), "--save", "run"]


def search_run(folder: Path) -> Path:
    """Make a tiny search, and return its run directory."""
    search.wsr_nas.main([*RUN, "--runs", str(folder)])
    return folder / "search" / "run"


def table_file(folder: Path) -> Path:
    """Write a table of a few graphs, two of which share their results."""
    random = torch.Generator().manual_seed(3)
    graphs = torch.randint(1, 5, (GRAPHS + 1, 6), generator=random)
    results = torch.rand(GRAPHS, 3, generator=random, dtype=torch.float64)
    path = folder / "few.json"
    path.write_text(json.dumps({
        "source": "a test", "ops": list(SPACES["nas-bench-201"].operations),
        "edges": ["in->1", "in->2", "1->2", "in->out", "1->out", "2->out"], "columns": ["clean", "pgd_3", "pgd_8"],
        "arch": ["".join(map(str, row)) for row in graphs.tolist()], "row_of": [*range(GRAPHS), 0],
        "results": results.tolist()}))
    return path


def arguments(trained: Path, table: Path, runs: Path, save: str, *argv: str) -> list[str]:
    """Return the flags of a small ranking."""
    return ["--run", str(trained), "--table", str(table), "--images", "20", "--strengths", "0.05", "0.1", "--num_steps",
            "2", "--resamples", "20", "--seed", str(SEED), "--device", "cpu", "--runs", str(runs), "--save", save,
            *argv]


def results(folder: Path) -> dict:
    """Return what a ranking has found."""
    return json.loads((folder / "ranking.json").read_text())


def rows(folder: Path) -> dict[str, str]:
    """Return the text of every file of rows."""
    return {path.name: path.read_text() for path in sorted((folder / "rows").glob("*.jsonl"))}
