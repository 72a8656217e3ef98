"""Notice that the folder of a run was deleted or moved while the program was running."""

from pathlib import Path

from wsrnas.runtime.errors import InputError
from wsrnas.runtime.reading import shown_path


class Place:
    """A folder that must stay the one that it is now.

    Args:
        folder: The folder. If it does not exist, it was deleted or moved since it was made.
        shown: What messages call it; None: the folder.
    """

    def __init__(self, folder: Path, shown: Path | None = None) -> None:
        self.folder, self.shown, self.found = folder, shown or folder, _identity(folder)
        self.absolute = folder.absolute()  # it is still there where the working directory has changed

    def require(self) -> None:
        """Refuse to go on where the folder is gone, or another one is in its place.

        Raises:
            InputError: It is so.
        """
        if problem := self.problem():
            raise InputError(problem)

    def problem(self) -> str:
        """Return a sentence where the folder is gone, or another one is in its place; else nothing."""
        if self.found is not None and self.found in (_identity(self.folder), _identity(self.absolute)):
            return ""
        return (f"the run directory {shown_path(self.shown)} was deleted or moved while the program was running; put "
                "it back and start the same command again, or choose another folder (--save or --out)")


_watched: list[Place] = []
_saving: list[Path] = []


def watch_none() -> None:
    """Forget the folders of an earlier program."""
    _watched.clear()
    _saving.clear()


def watch(folder: Path) -> Place:
    """Return the place of a run directory. If a file is missed later, ``reason`` tells whether this is why."""
    place = Place(folder)
    _watched[:] = [other for other in _watched if other.absolute != place.absolute] + [place]  # not one made anew
    return place


def saves_in(folder: Path) -> None:
    """Note that the program has saved something in a folder that it does not watch."""
    _saving.append(folder)


def can_go_on() -> bool:
    """Return whether the program has a run directory by now, or has saved something, so that it can be resumed."""
    return bool(_watched or _saving)


def watched_above(folder: Path) -> Place | None:
    """Return the innermost watched folder that a folder is inside of."""
    parents = folder.absolute().parents
    above = [place for place in _watched if place.absolute in parents]
    return max(above, key=lambda place: len(place.absolute.parts), default=None)


def reason() -> str:
    """Return a sentence where a watched folder is gone; else nothing."""
    return next(filter(None, (place.problem() for place in _watched)), "")


def _identity(folder: Path) -> tuple[int, int] | None:
    """Return what tells a folder from a later one of the same name; None where there is none."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
