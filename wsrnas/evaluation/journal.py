"""The store of what an evaluation has measured so far: one line of JSON per chunk, so that it can resume."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wsrnas.runtime.checkpoint import write_atomic

UNKNOWN = -1


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
        self._opened: set[str] = set()

    def read(self, attack: str, stage: str, images: int) -> tuple[Tensor, float, list[str]]:
        """Return what is known about one stage of an attack.

        Args:
            attack: name under which the attack is stored.
            stage: name of the stage.
            images: number of test images.

        Returns:
            (images,) int8: 1 where the image withstood, 0 where it did not, -1 where it was not measured; the seconds
            over all processes; the warnings.
        """
        found, seconds, warnings = torch.full((images,), UNKNOWN, dtype=torch.int8), 0.0, []
        for path in sorted(self.folder.glob(f"{attack}.*.jsonl")):
            for row in self._rows(path):
                if row["stage"] == stage:
                    found[row["images"]] = torch.tensor([int(flag) for flag in row["robust"]], dtype=torch.int8)
                    seconds += row["seconds"]
                    warnings += row["warnings"]
        return found, seconds, sorted(set(warnings))

    def append(self, attack: str, stage: str, images: Sequence[int], robust: Sequence[bool], seconds: float,
               warnings: Sequence[str] = ()) -> None:
        """Store one chunk.

        Args:
            attack: name under which the attack is stored.
            stage: name of the stage.
            images: indices of the chunk's images.
            robust: for each image whether it withstood.
            seconds: duration in this process.
            warnings: warnings of the attack.
        """
        path = self.folder / f"{attack}.{self.rank}.jsonl"
        if attack not in self._opened:
            self._open(path)
            self._opened.add(attack)
        row = {"stage": stage, "images": list(images), "robust": "".join(str(int(flag)) for flag in robust),
               "seconds": round(seconds, 3), "warnings": list(warnings)}
        with open(path, "a") as file:
            file.write(json.dumps(row) + "\n")

    def forget(self) -> None:
        """Delete everything that was measured."""
        for path in self.folder.glob("*.jsonl"):
            path.unlink()

    def _rows(self, path: Path) -> list[dict[str, Any]]:
        """Return the complete lines after the header; none where the header is another one."""
        lines = []
        for line in path.read_text().splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:  # the last write was cut off
                break
        return lines[1:] if lines and lines[0] == self.header else []

    def _open(self, path: Path) -> None:
        """Keep the readable lines of the file, after the header."""
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = self._rows(path) if path.exists() else []
        write_atomic(path, "".join(json.dumps(row) + "\n" for row in [self.header, *rows]).encode())
