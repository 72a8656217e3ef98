"""Notice that the folder of a run was deleted or moved while the program was running."""

from pathlib import Path

from wsrnas.runtime.errors import InputError
from wsrnas.runtime.reading import shown_path


class Place:
    """A folder that must stay the one that it is now.

    Args:
        folder: The folder, which exists.
        shown: What messages call it; None: the folder.
    """

    def __init__(self, folder: Path, shown: Path | None = None) -> None:
        self.folder, self.shown, self.found = folder, shown or folder, _identity(folder)

    def require(self) -> None:
        """Refuse to go on where the folder is gone, or another one is in its place.

        Raises:
            InputError: It is so.
        """
        if _identity(self.folder) != self.found:
            raise InputError(f"the run directory {shown_path(self.shown)} was deleted or moved while the program was "
                             "running; put it back and start the same command again, or choose another --save")


def _identity(folder: Path) -> tuple[int, int] | None:
    """Return what tells a folder from a later one of the same name; None where there is none."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
