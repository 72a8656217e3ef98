"""Deaths of programs in tests: after a step of a search, and in the middle of an evaluation."""

from contextlib import contextmanager

import pytest

from wsrnas.evaluation.journal import Journal
from wsrnas.runtime.run_directory import RunDirectory


class Killed(BaseException):
    """As sudden as a kill: nothing in the program may catch it."""


@contextmanager
def killed_before_saving(step):
    """Let a program die after the row of a step, before the step's checkpoint; None: it lives."""
    def save(self, payload, name="checkpoint.pt", original=RunDirectory.save):
        if payload["step"] == step:
            raise Killed
        original(self, payload, name)

    with pytest.MonkeyPatch.context() as context:
        context.setattr(RunDirectory, "save", save)
        yield


class Mortal(Journal):
    """A journal that dies before the chunk of that number."""

    def __init__(self, *arguments, chunks: int) -> None:
        super().__init__(*arguments)
        self.left = chunks

    def append(self, *arguments) -> None:
        if not self.left:
            raise Killed
        self.left -= 1
        super().append(*arguments)
