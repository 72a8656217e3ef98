"""What makes programs quick in tests: small images, pages without drawings, short honesty checks."""

import dataclasses
from collections.abc import Iterable
from contextlib import contextmanager

import pytest
import torch

from wsrnas.data.datasets import DATASETS, Parts, Source
from wsrnas.data.image_set import ImageSet
from wsrnas.evaluation.attack_spec import Attack, parse_attack
from wsrnas.report.figures.axes import blank

DIGITS = DATASETS["digits"]  # enlarged; what is small already must not be made smaller


@contextmanager
def small_digits():
    """The digits of their own 8x8 pixels, not enlarged."""
    with pytest.MonkeyPatch.context() as context:
        context.setitem(DATASETS, "digits", dataclasses.replace(DIGITS, load=_small(DIGITS)))
        yield


@contextmanager
def short_checks():
    """Honesty checks whose attacks have two steps at most, for tests that do not look at what they find."""
    def short(text: str) -> Attack:
        attack = parse_attack(text)
        return dataclasses.replace(attack, steps=min(attack.steps, 2))
    with pytest.MonkeyPatch.context() as context:
        context.setattr("wsrnas.evaluation.honesty.parse_attack", short)
        yield


@contextmanager
def undrawn_pages():
    """Pages without drawings."""
    with pytest.MonkeyPatch.context() as context:
        context.setattr("wsrnas.report.figures.picture.svg_text", lambda *a: '<svg viewBox="0 0 1 1"></svg>')
        context.setattr("wsrnas.report.figures.cells.cell_figure", lambda *a, **more: blank(1, 1))  # the slowest one
        yield


@contextmanager
def pages_without_sections():
    """Pages of runs and races that have a head alone."""
    with undrawn_pages(), pytest.MonkeyPatch.context() as context:
        for pages in ("pages", "race", "ranking"):
            context.setattr(f"wsrnas.report.{pages}.drawn_sections", lambda *sections, **subjects: [])
        yield


def _small(source: Source):
    """The loader of this data set, each 4x4 pixels of which become one."""
    def shrunk(part: ImageSet) -> ImageSet:
        images = part.images[:, :, ::4, ::4]
        return ImageSet(images.contiguous(memory_format=torch.channels_last), part.labels)

    def load(request) -> Parts:
        parts = source.load(request)
        return parts._replace(train=shrunk(parts.train), test=shrunk(parts.test))
    return load


def slow_after(count: int, cases: Iterable) -> list:
    """The same cases of ``parametrize``, of which all but the first ``count`` are slow tests.

    A tuple of several is one value for each name; a tuple of one is itself the value.
    """
    first, rest = list(cases)[:count], list(cases)[count:]
    return first + [pytest.param(*(case if isinstance(case, tuple) and len(case) > 1 else [case]),
                                 marks=pytest.mark.slow) for case in rest]
