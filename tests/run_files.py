"""What tests read from a run directory, and how two runs are compared."""

import json

import torch


def read(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def without_time(rows):
    """Rows without what a clock or the machine measured."""
    return [{k: {n: v for n, v in row[k].items() if n not in ("seconds", "images_per_second")} if k == "train" else v
             for k, v in row.items() if k not in ("seconds", "peak_memory_gib")} for row in rows]


def assert_equal(a, b, place=""):
    """Nested containers are the same, tensors bit for bit."""
    assert type(a) is type(b), place
    if isinstance(a, dict):
        assert list(a) == list(b), place
        for key in a:
            assert_equal(a[key], b[key], f"{place}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), place
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{place}/{index}")
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and torch.equal(a, b), place
    else:
        assert a == b, place
