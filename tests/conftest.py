"""Fixtures of all tests: one thread each (the networks are tiny), and the main process' world."""

import dataclasses

import pytest
import torch
from hypothesis import settings

from wsrnas.data.datasets import DATASETS, Parts, Source
from wsrnas.data.image_set import ImageSet
from wsrnas.runtime.distributed import World

torch.set_num_threads(1)
# The same examples every time, whatever they take.
settings.register_profile("tests", derandomize=True, deadline=None, database=None, max_examples=50)
settings.load_profile("tests")


@pytest.fixture
def world() -> World:
    return World()


NO_DRAWING = ("wsrnas.report.figures.picture.svg_text", lambda *a: '<svg viewBox="0 0 1 1"></svg>')


@pytest.fixture
def words_only(monkeypatch) -> None:
    """Pages without drawings, for tests of what is said."""
    monkeypatch.setattr(*NO_DRAWING)


@pytest.fixture(scope="module")
def quick_programs():
    """Digits of their own 8x8 pixels, not enlarged, and pages without drawings: a program takes half of the time."""
    with pytest.MonkeyPatch.context() as context:
        context.setitem(DATASETS, "digits", dataclasses.replace(DATASETS["digits"], load=small(DATASETS["digits"])))
        context.setattr(*NO_DRAWING)
        yield


def small(source: Source):
    """The loader of this data set, each 4x4 pixels of which become one."""
    def shrunk(part: ImageSet) -> ImageSet:
        images = part.images[:, :, ::4, ::4]
        return ImageSet(images.contiguous(memory_format=torch.channels_last), part.labels)

    def load(request) -> Parts:
        parts = source.load(request)
        return parts._replace(train=shrunk(parts.train), test=shrunk(parts.test))
    return load


@pytest.fixture
def seed() -> None:
    """Torch's own generator begins anew."""
    torch.manual_seed(0)
