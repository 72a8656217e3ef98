"""Write the numbers of a benchmark as JSON, with the machine that they are from."""

import argparse
from pathlib import Path
from typing import Any

from wsrnas.runtime.checkpoint import write_json
from wsrnas.runtime.distributed import World
from wsrnas.runtime.environment import environment

MOST_THREADS = 4096  # torch counts them in 32 bits, and no machine has as many cores


def new_file(text: str) -> Path:
    """Return the path of a file to write, as argparse reads it; refused before anything is measured.

    Raises:
        ArgumentTypeError: its folder does not exist, or it is a folder itself.
    """
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder; expected the name of a file")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: there is no folder {path.parent}")
    return path


def write_numbers(path: Path, numbers: dict[str, Any], world: World) -> None:
    """Write numbers, and the machine, versions and command that gave them as ``environment``."""
    write_json(path, numbers | {"environment": environment(world)})
