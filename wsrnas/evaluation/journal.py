"""The store of what an evaluation has measured so far: one line of JSON per chunk, so that it can resume."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wsrnas.runtime.checkpoint import write_atomic
from wsrnas.runtime.errors import say
from wsrnas.runtime.folders import make
from wsrnas.runtime.place import Place, saves_in
from wsrnas.runtime.reading import parse_json

UNKNOWN = -1


@dataclass(frozen=True)
class Stored:
    """What a journal holds of one stage of an attack.

    Args:
        values: (N,) float64: what was found about each image (1: it withstood, 0: it did not; or a number of its own),
            ``UNKNOWN`` where it was not measured.
        passes: (N, 2) float64: passes of each image, forward with backward and forward alone; a chunk's are shared
            evenly between its images. NaN where the chunk does not say.
        seconds: seconds over all processes.
        warnings: warnings, each once.
    """

    values: Tensor
    passes: Tensor
    seconds: float
    warnings: list[str]


class Journal:
    """Files ``<attack>.<rank>.jsonl`` in one folder; each process appends to its own file and reads all of them.

    The first line of a file says what was measured: network, images, seed. A file with another first line (for
    example, because the network was trained further) is not read, and is replaced at the next ``append``.

    Args:
        folder: folder of the files, made at the first ``append``.
        header: plain values that distinguish this evaluation from any other in the same folder.
        rank: rank of this process.
    """

    def __init__(self, folder: Path, header: dict[str, Any], rank: int = 0) -> None:
        self.folder, self.header, self.rank = folder, header, rank
        self.place: Place | None = None
        self._opened: set[str] = set()

    def read(self, attack: str, stage: str, images: int, chunks: Sequence[Sequence[int]] | None = None) -> Stored:
        """Return what is known about one stage of an attack.

        Args:
            attack: name under which the attack is stored.
            stage: name of the stage.
            images: number of test images.
            chunks: the only chunks that count, for an attack whose random numbers are those of a batch; None: any.
        """
        wanted = None if chunks is None else {tuple(chunk) for chunk in chunks}
        values = torch.full((images,), UNKNOWN, dtype=torch.float64)
        passes, seconds, warnings = torch.zeros(images, 2, dtype=torch.float64), 0.0, []
        for path in sorted(self.folder.glob(f"{attack}.*.jsonl")):
            for row in self._rows(path):
                counts = wanted is None or tuple(row["images"]) in wanted
                if counts and row["stage"] == stage and max(row["images"], default=-1) < images:
                    numbers = row["robust"] if "robust" in row else row["values"]
                    found = [math.inf if value is None else float(value) for value in numbers]
                    values[row["images"]] = torch.tensor(found, dtype=torch.float64)
                    spent = torch.tensor(row.get("passes", (math.nan, math.nan)), dtype=torch.float64)
                    passes[row["images"]] = spent / max(len(row["images"]), 1)
                    seconds += row["seconds"]
                    warnings += row["warnings"]
        return Stored(values, passes, seconds, sorted(set(warnings)))

    def append(self, attack: str, stage: str, images: Sequence[int], values: Sequence[float], seconds: float,
               warnings: Sequence[str] = (), passes: Sequence[int] | None = None) -> None:
        """Store one chunk.

        Args:
            attack: name under which the attack is stored.
            stage: name of the stage.
            images: indices of the chunk's images.
            values: for each image whether it withstood, or a number of at least 0, which may be infinite.
            seconds: duration in this process.
            warnings: warnings of the attack.
            passes: passes of all images together, forward with backward and forward alone; None: not known.
        """
        self.stay()
        path = self.folder / f"{attack}.{self.rank}.jsonl"
        if attack not in self._opened:
            self._open(path)
            self._opened.add(attack)
        flags = all(isinstance(value, bool) for value in values)
        found = {"robust": "".join(str(int(flag)) for flag in values)} if flags else {
            "values": [value if math.isfinite(value) else None for value in values]}
        row = {"stage": stage, "images": list(images), **found,
               "seconds": round(seconds, 3), "warnings": list(warnings)}
        if passes is not None:
            row["passes"] = list(passes)
        with open(path, "a") as file:
            file.write(json.dumps(row) + "\n")

    def stay(self) -> None:
        """Make the folder; at a later call, refuse to go on where it was deleted or moved.

        Raises:
            InputError: It was.
        """
        if self.place is None:
            make(self.folder)
            self.place = Place(self.folder)
            saves_in(self.folder)
        self.place.require()

    def _rows(self, path: Path) -> list[dict[str, Any]]:
        """Return the complete lines after the header; none where the header is another one.

        A damaged line is left out, and its images are measured again.
        """
        lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last end of a line was cut off
        rows = [row for row in map(_parsed, lines) if row is not None]
        if not rows or rows[0] != self.header:
            return []
        whole = [row for row in rows[1:] if _is_whole(row)]
        if left_out := len(lines) - 1 - len(whole):
            say(f"note: {left_out} damaged lines of {path} are left out, and their images are measured again")
        return whole

    def _open(self, path: Path) -> None:
        """Keep the readable lines of the file, after the header."""
        rows = self._rows(path) if path.exists() else []
        write_atomic(path, "".join(json.dumps(row) + "\n" for row in [self.header, *rows]).encode())


def _parsed(line: bytes) -> Any:
    """Return the JSON value of a line; None where it is damaged."""
    try:
        return parse_json(line.decode())
    except ValueError:
        return None


def _is_number(value: Any) -> bool:
    """Return whether a JSON value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _has_values(row: dict[str, Any], images: int) -> bool:
    """Return whether a row has one flag or one number for each image."""
    robust, values = row.get("robust"), row.get("values")
    if robust is None:
        return isinstance(values, list) and len(values) == images and all(
            value is None or (_is_number(value) and value >= 0) for value in values)
    return isinstance(robust, str) and len(robust) == images and set(robust) <= {"0", "1"}


def _is_whole(row: Any) -> bool:
    """Return whether a row has everything that a chunk has."""
    if not isinstance(row, dict) or not isinstance(row.get("stage"), str) or not _is_number(row.get("seconds")):
        return False
    images, passes = row.get("images"), row.get("passes", [0, 0])
    return (isinstance(images, list) and all(type(image) is int and image >= 0 for image in images)
            and _has_values(row, len(images))
            and isinstance(row.get("warnings"), list) and all(isinstance(text, str) for text in row["warnings"])
            and isinstance(passes, list) and len(passes) == 2 and all(map(_is_number, passes)))
