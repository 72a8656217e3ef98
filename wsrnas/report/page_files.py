"""Write a page and the files of its figures."""

import os
from collections.abc import Mapping
from pathlib import Path

from wsrnas.report.figures.picture import Numbers, Picture
from wsrnas.runtime import run_files
from wsrnas.runtime.checkpoint import write_atomic
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.folders import make
from wsrnas.runtime.reading import shown_path


def write_files(folder: Path, text: str, numbers: Mapping[str, Numbers], new: bool = False) -> Path:
    """Write a page and its figures, each file wholly or not at all.

    Args:
        folder: Folder of the page.
        text: The page.
        numbers: Figures and tables by the names of their files.
        new: Whether to make the folder. That of a run exists, or was deleted or moved while its page was drawn.

    Returns:
        The path of the page.

    Raises:
        InputError: The folder cannot be made or written, or is gone.
    """
    files = {f"{run_files.FIGURES}/{name}.csv": found.table for name, found in numbers.items()}
    files |= {f"{run_files.FIGURES}/{name}.svg": found.svg for name, found in numbers.items()
              if isinstance(found, Picture)}
    try:
        if new:
            make(folder)
        if files:
            (folder / run_files.FIGURES).mkdir(exist_ok=True)
        for name, content in (files | {run_files.REPORT: text}).items():  # the page last: its figures are there
            write_atomic(folder / name, content.encode(errors="replace"), writers=True)
    except OSError as error:
        if not new and not os.path.exists(folder):
            raise InputError(f"{shown_path(folder)} is gone; its page is not written") from None
        figures = folder / run_files.FIGURES
        where = figures if figures.exists() and not figures.is_dir() else folder
        raise InputError(f"the report cannot be written to {shown_path(where)}: "
                         f"{(error.strerror or str(error)).lower()}; expected a folder that can be made and "
                         "written") from None
    return folder / run_files.REPORT
