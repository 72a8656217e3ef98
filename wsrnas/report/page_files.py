"""Write a page and the files of its figures."""

from collections.abc import Mapping
from pathlib import Path

from wsrnas.report.figures.picture import Numbers, Picture
from wsrnas.runtime import run_files
from wsrnas.runtime.checkpoint import write_atomic
from wsrnas.runtime.errors import InputError


def write_files(folder: Path, text: str, numbers: Mapping[str, Numbers]) -> Path:
    """Write a page and its figures, each file wholly or not at all.

    Args:
        folder: Folder of the page.
        text: The page.
        numbers: Figures and tables by the names of their files.

    Returns:
        The path of the page.

    Raises:
        InputError: The folder cannot be made or written.
    """
    files = {f"{run_files.FIGURES}/{name}.csv": found.table for name, found in numbers.items()}
    files |= {f"{run_files.FIGURES}/{name}.svg": found.svg for name, found in numbers.items()
              if isinstance(found, Picture)}
    try:
        (folder / run_files.FIGURES if files else folder).mkdir(parents=True, exist_ok=True)
        for name, content in (files | {run_files.REPORT: text}).items():  # the page last: its figures are there
            write_atomic(folder / name, content.encode(errors="replace"))
    except OSError as error:
        raise InputError(f"the report cannot be written to {folder}: {(error.strerror or str(error)).lower()}; "
                         "expected a folder that can be made and written") from None
    return folder / run_files.REPORT
