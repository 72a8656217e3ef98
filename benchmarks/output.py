"""Write the numbers of a benchmark as JSON, with the machine that they are from."""

import argparse
from pathlib import Path
from typing import Any

from wsrnas.runtime.checkpoint import write_json
from wsrnas.runtime.distributed import World
from wsrnas.runtime.environment import environment


def new_file(text: str) -> Path:
    """Return the path of a file to write, as argparse reads it; refused before anything is measured.

    Raises:
        ArgumentTypeError: its folder does not exist.
    """
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: there is no folder {path.parent}")
    return path


def write_numbers(path: Path, numbers: dict[str, Any], world: World) -> None:
    """Write numbers, and the machine, versions and command that gave them as ``environment``."""
    write_json(path, numbers | {"environment": environment(world)})
