"""NaN and infinity in losses, gradients, images, estimators: step and cause are named, and nothing of it is saved."""

import math

import pytest
import torch
from torch import nn

import search.wsr_nas_searcher
from tests.soak_programs import FOLDERS, PROGRAMS, main_of
from wsrnas.data.loader import BatchLoader
from wsrnas.runtime import checkpoint, run_files
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.finite import require_finite
from wsrnas.runtime.run_directory import RunDirectory

pytestmark = pytest.mark.usefixtures("quick_programs")
NAN = math.nan


def after(calls: int, function, broken):
    """A function that is another one after some calls."""
    left = [calls]

    def changed(*given, **named):
        left[0] -= 1
        return (function if left[0] >= 0 else broken)(*given, **named)
    return changed


def broken_images(loader, *given, **named):
    return ((images.where(images < 0.5, NAN), labels) for images, labels in BATCHES(loader, *given, **named))


BATCHES, MEASURE, CLIP = BatchLoader.batches, search.wsr_nas_searcher.measure, nn.utils.clip_grad_norm_
CASES = {  # program, what is replaced and how, the sentence
    "gradient of a training": (
        "retrain.train_cifar", "torch.nn.utils.clip_grad_norm_", after(3, CLIP, lambda *_: torch.tensor(NAN)),
        r"epoch 2/3: the gradient is not finite \(the training loss is [\d.]+\) at step 2; the last good checkpoint"),
    "images of a training": (
        "retrain.train_cifar", "wsrnas.data.loader.BatchLoader.batches", broken_images,
        "epoch 1/3: the training loss is nan at step 1; there is no checkpoint yet"),
    "gradient of a search": (
        "search.wsr_nas", "torch.nn.utils.clip_grad_norm_", lambda *_: torch.tensor(math.inf),
        r"warm-up .*the gradient is not finite \(the training loss is [\d.]+\) at step 1"),
    "loss on D_v": (
        "search.wsr_nas", "search.wsr_nas_searcher.measure", lambda *given: MEASURE(*given) * NAN,
        r"population .*: a loss on D_v is not finite \(nan without noise\); start .* --learning_rate"),
    "noise of the AN-Estimator": (
        "search.wsr_nas", "search.wsr_nas_searcher.Searcher._estimate",  # private: this is what the estimator makes
        lambda searcher, images, *_: images.new_full((len(images), len(searcher.estimated), *images.shape[1:]), NAN),
        r"a loss on D_v is not finite \(nan under noise of eps_.*, which the AN-Estimator has made\); .* "
        "--estimator_learning_rate"),
    "error of the AN-Estimator": (
        "search.wsr_nas", "search.wsr_nas_searcher.train_estimator", lambda *given, **named: (NAN, 1),
        "population .*: the error of the AN-Estimator is nan; .* --estimator_learning_rate"),
    "error of the loss estimator": (
        "search.wsr_nas", "search.wsr_nas_searcher.Searcher.strategy.learn", lambda *_: math.inf,
        r"(population|search) \d+: the error of the loss estimator is inf; .* --loss_learning_rate"),
    "upper loss": (
        "search.rnas", "search.rnas_searcher.RnasSearcher._descend",  # private: it returns the losses
        lambda *_: torch.tensor([1.0, NAN]),
        "epoch 2, step 1: the upper loss on D_v is nan; .* --architecture_learning_rate"),
    "estimator of the study": (
        "test_AN_estimator.benchmark", "test_AN_estimator.training.train_estimator", lambda *given, **named: (NAN, 1),
        "the error of the estimator in rotation 1 is nan; .* --estimator_learning_rate"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_not_finite_is_named_with_its_step_and_nothing_of_it_is_saved(case, tmp_path, monkeypatch):
    program, place, broken, words = CASES[case]
    monkeypatch.chdir(tmp_path)
    if place.endswith(".strategy.learn"):
        original = search.wsr_nas_searcher.build_networks

        def build(*given):
            supernet, estimator, strategy = original(*given)
            strategy.learn = learn
            return supernet, estimator, strategy
        place, learn, broken = "search.wsr_nas_searcher.build_networks", broken, build
    with monkeypatch.context() as context, pytest.raises(InputError, match=words):
        context.setattr(place, broken)
        main_of(program, [*PROGRAMS[program], "--grad_clip", "5"] if "gradient" in case else None)
    kept = list((tmp_path / "runs" / FOLDERS[program]).rglob(run_files.CHECKPOINT))
    for path in kept:
        require_finite(checkpoint.read(path), str(path), "")
    assert bool(kept) is (case not in ("images of a training", "gradient of a search"))


@pytest.mark.parametrize("broken", [NAN, math.inf, -math.inf])
def test_a_state_with_such_a_number_does_not_replace_the_last_one(broken, tmp_path, world):
    from tests.library.test_run import Settings
    run = RunDirectory(tmp_path / "run", Settings(), world)
    run.save({"step": 1, "model": {"a": torch.ones(2)}})
    with pytest.raises(InputError, match=rf"after step 2, a number of the state \(model/b/0\) is {broken}; it is not"):
        run.save({"step": 2, "model": {"a": torch.ones(2), "b": [torch.tensor([1.0, broken])]}})
    assert checkpoint.read(tmp_path / "run" / run_files.CHECKPOINT)["step"] == 1


def test_numbers_that_are_not_tensors_and_whole_numbers_may_stay():
    require_finite({"bound": math.inf, "steps": torch.tensor([3]), "none": None}, "", "")
    require_finite(2.0, "", "")
    with pytest.raises(InputError, match="the error is nan; wait"):
        require_finite(NAN, "the error", "wait")
