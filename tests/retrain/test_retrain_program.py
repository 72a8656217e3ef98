"""Retraining from its command line: interrupted = uninterrupted, selection, results on disk."""

import json
import math
from dataclasses import replace

import pytest
import torch

import genotypes
import retrain.retraining as retraining
import retrain.train_cifar as program
import search.wsr_nas
from retrain.cost import training_passes
from retrain.publishing.training_record import selection
from retrain.recipes import RECIPES, RetrainConfig
from tests.pages import Page
from wsrnas.data.datasets import load_dataset
from wsrnas.evaluation import robust_accuracy
from wsrnas.genotype import Genotype
from wsrnas.runtime.config import parse_config
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.run_directory import RunDirectory
from wsrnas.subjects.checkpoints import load_model
from wsrnas.training.losses import LossSettings
from wsrnas.training.strengths import SIX_STRENGTHS
from wsrnas.training.trainer import Refinements

pytestmark = pytest.mark.usefixtures("quick_programs")

SMALL = ["--preset", "tiny", "--device", "cpu", "--init_channels", "2", "--layers", "3", "--max_train", "80",
         "--held_out", "30", "--batch_size", "16", "--num_steps", "1", "--select_steps", "2", "--save", "run"]
TINY = [*SMALL, "--epochs", "4", "--milestones", "2", "3", "--select_every", "1", "--random_start",
        "--learning_rate", "0.05", "--epsilon", "0.03"]


def start(folder, argv, seed=[100]):  # noqa: B006 - a counter over all starts
    """Run the program; torch's global generator differs every time, for nothing may depend on it."""
    seed[0] += 1
    torch.manual_seed(seed[0])
    program.main([*argv, "--runs", str(folder)])
    return folder / "retrain" / "run"


def read(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def without_time(rows):
    return [{k: {n: v for n, v in row[k].items() if n not in ("seconds", "images_per_second")} if k == "train" else v
             for k, v in row.items() if k != "peak_memory_gib"} for row in rows]


def tensors(value, place=""):
    """Every leaf of nested containers with its place; tensors as bytes."""
    if isinstance(value, dict):
        return {k: v for key in value for k, v in tensors(value[key], f"{place}/{key}").items()}
    if isinstance(value, list | tuple):
        return {k: v for n, item in enumerate(value) for k, v in tensors(item, f"{place}/{n}").items()}
    return {place: (str(value.dtype), value.numpy().tobytes()) if isinstance(value, torch.Tensor) else value}


def stored(path):
    state = torch.load(path, weights_only=True)
    assert state.pop("config").pop("runs")
    return tensors(state)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted retraining."""
    return start(tmp_path_factory.mktemp("whole"), TINY)


class Killed(BaseException):
    """As sudden as a kill: nothing in the program may catch it."""


@pytest.mark.slow
def test_interrupted_equals_uninterrupted_bit_for_bit(whole, tmp_path):
    def epoch_dying(after):
        left = iter(range(after, -1, -1))

        def dying(trainer, loader, number, *, after_step, original=retraining.train_epoch, **more):
            def killing(epoch):
                if epoch.batches == 2 and next(left) == 0:
                    raise Killed
                after_step(epoch)
            return original(trainer, loader, number, after_step=killing, **more)
        return dying

    def dying_save(self, payload, name="checkpoint.pt", original=RunDirectory.save):
        if name == "checkpoint.pt":
            raise Killed  # best.pt and the metrics of the epoch are written, the checkpoint is not
        original(self, payload, name)

    run = tmp_path / "retrain" / "run"
    for owner, name, dying in ((retraining, "train_epoch", epoch_dying(1)), (RunDirectory, "save", dying_save),
                               (retraining, "train_epoch", epoch_dying(2))):
        with pytest.MonkeyPatch.context() as context, pytest.raises(Killed):
            context.setattr(owner, name, dying)
            start(tmp_path, TINY)
    assert torch.load(run / "checkpoint.pt", weights_only=True)["step"] == 3
    start(tmp_path, TINY)
    for name in ("checkpoint.pt", "checkpoint.previous.pt", "best.pt"):
        assert stored(run / name) == stored(whole / name), name
    assert without_time(read(run)) == without_time(read(whole))
    assert (run / "FINISHED").read_text() == (whole / "FINISHED").read_text()


@pytest.mark.slow
def test_a_finished_retraining_says_so_and_stops(whole, capsys):
    before = {p: p.stat().st_mtime_ns for p in whole.rglob("*")}
    start(whole.parent.parent, TINY)
    assert "is finished (--overwrite starts again, --extend" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in whole.rglob("*")} == before


@pytest.mark.slow
def test_the_report_of_an_epoch(whole):
    rows = read(whole)
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert [row["learning_rate"] for row in rows] == pytest.approx([0.05, 0.05, 0.005, 0.0005])
    for row in rows:
        assert row["train"]["images"] == 48 and math.isfinite(row["train"]["loss"])
        assert 0 <= row["held_out"]["robust_accuracy"] <= row["held_out"]["clean_accuracy"] <= 1


def test_the_names_of_the_curves(whole):
    """TensorBoard's: people's dashboards hang on them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator(str(whole / "tb"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {
        "learning_rate", "train/loss", "train/clean_accuracy", "train/adversarial_accuracy", "train/images",
        "train/seconds", "train/images_per_second", "held_out/clean_accuracy", "held_out/robust_accuracy",
        "peak_memory_gib"}


def test_the_learning_rate_of_every_step():
    config = RetrainConfig()
    schedule = config.schedule_of(3)
    rates = [schedule(step) for step in range(3 * config.epochs)]
    assert rates == pytest.approx([0.1] * 297 + [0.01] * 150 + [0.001] * 81, rel=1e-12)


@pytest.mark.slow
def test_the_flags_reach_the_training(tmp_path):
    seen = []

    def epoch(trainer, loader, number, **more):
        for images, labels in loader.batches(number):
            trainer.step(images, labels)
            seen.append((trainer.learning_rate, trainer.settings, trainer.refinements, len(images)))
        return {"loss": 1.0, "adversarial_accuracy": 0.5, "images_per_second": 1.0, "seconds": 1.0}

    flags = ["--step_size", "2/255", "--label_smoothing", "0.2", "--batch_statistics", "--grad_clip",
             "2", "--accumulation", "2", "--amp", "bf16", "--awp_gamma", "0.01", "--awp_warmup", "1", "--ema_decay",
             "0.9", "--drop_path", "0.1"]
    with pytest.MonkeyPatch.context() as context:
        context.setattr(retraining, "train_epoch", epoch)
        context.setattr(retraining, "robust_accuracy", lambda *a, **k: {"clean_accuracy": 0.5,
                                                                  "average_robust_accuracy": 0.5})
        start(tmp_path, [*TINY, *flags])
    assert [rate for rate, *_ in seen] == pytest.approx([0.05] * 6 + [0.005] * 3 + [0.0005] * 3)
    assert seen[0][1] == LossSettings(0.03, 1, 2 / 255, True, True, 1.0, 0.2, SIX_STRENGTHS)
    assert seen[0][2] == Refinements(2.0, 2, True, 0.01, 3, 0.9, 0.1, True)
    assert {count for *_, count in seen} == {16}


@pytest.mark.slow
def test_the_best_epoch_is_the_most_robust_on_held_out_images(tmp_path):
    accuracies = iter([0.2, 0.5, 0.5, 0.4])
    with pytest.MonkeyPatch.context() as context:
        context.setattr(retraining, "robust_accuracy", lambda *a, **k: {"clean_accuracy": 0.9,
                                                                  "average_robust_accuracy": next(accuracies)})
        run = start(tmp_path, TINY)
    best, last = (torch.load(run / name, weights_only=True) for name in ("best.pt", "checkpoint.pt"))
    assert best["step"] == 2 and last["step"] == 4
    assert best["best"] == last["standing"]["best"] == {"epoch": 2, "clean_accuracy": 0.9, "robust_accuracy": 0.5}
    said = (run / "FINISHED").read_text()  # both are reported
    assert "best.pt, epoch 2, clean 90.0% PGD-2 at 0.0300 (7.65/255) 50.0%" in said
    assert "checkpoint.pt, epoch 4, clean 90.0% PGD-2 at 0.0300 (7.65/255) 40.0%" in said


def test_without_an_attack_the_best_epoch_has_the_highest_clean_accuracy(tmp_path):
    """PGD breaks every image of such a network after a few epochs, and would select its worst one."""
    accuracies = iter([(0.2, 0.2), (0.6, 0.0), (0.7, 0.0), (0.5, 0.1)])

    def measured(*args, **more):
        return dict(zip(("clean_accuracy", "average_robust_accuracy"), next(accuracies), strict=True))

    with pytest.MonkeyPatch.context() as context:
        context.setattr(retraining, "robust_accuracy", measured)
        run = start(tmp_path, [*TINY, "--adv_loss", "standard"])
    best, last = (torch.load(run / name, weights_only=True) for name in ("best.pt", "checkpoint.pt"))
    assert best["best"] == last["standing"]["best"] == {"epoch": 3, "clean_accuracy": 0.7, "robust_accuracy": 0.0}
    assert best["selection"] == last["selection"] == "clean accuracy on the held-out images"
    assert "best.pt has the highest clean accuracy on the held-out images" in (run / "log.txt").read_text()
    page = Page(run / "report.html").text
    assert "held-out clean 70.0 % best: epoch 3, robust 0.0 %, chosen by clean accuracy" in page
    assert "highest clean accuracy on the held-out images: 70.0% (PGD: 0.0%)" in selection({}, best, "best.pt")


def test_best_is_what_the_metrics_say(whole):
    robust = [row["held_out"]["robust_accuracy"] for row in read(whole)]
    best = torch.load(whole / "best.pt", weights_only=True)
    assert best["step"] == robust.index(max(robust)) + 1
    assert best["best"]["robust_accuracy"] == max(robust)


def test_the_reported_selection_is_that_of_the_stored_network(whole, world):
    config, _ = parse_config(RetrainConfig, RECIPES, TINY)
    data = load_dataset("digits", max_train=80)
    _, held_out = program.make_loaders(config, data, world)
    model, _ = load_model(whole / "checkpoint.pt")
    result = robust_accuracy(model, held_out, (0.03,), 2)
    assert result["clean_accuracy"] == read(whole)[-1]["held_out"]["clean_accuracy"]
    assert result["average_robust_accuracy"] == read(whole)[-1]["held_out"]["robust_accuracy"]


def test_held_out_and_training_images_are_disjoint(world):
    config, _ = parse_config(RetrainConfig, RECIPES, TINY)
    data = load_dataset("digits", max_train=80)
    train, held_out = program.make_loaders(config, data, world)
    sets = [{image.numpy().tobytes() for image in loader.image_set.images} for loader in (train, held_out)]
    every = {image.numpy().tobytes() for image in data.train.images}
    assert len(every) == 80 and len(sets[0]) == 50 and len(sets[1]) == 30
    assert not sets[0] & sets[1] and sets[0] | sets[1] == every
    assert not every & {image.numpy().tobytes() for image in data.test.images}
    plain = torch.cat([images for images, _ in held_out.batches()])
    assert torch.equal(plain, held_out.image_set.images.float() / 255)


@pytest.mark.slow
def test_selection_takes_place_as_often_as_asked_and_at_the_end(tmp_path):
    run = start(tmp_path, [*TINY, "--epochs", "3", "--select_every", "2"])
    assert ["held_out" in row for row in read(run)] == [False, True, True]


@pytest.mark.slow
def test_trades_trains_too(tmp_path):
    run = start(tmp_path, [*SMALL, "--adv_loss", "trades", "--epochs", "1", "--arch", "cna_r"])
    assert "clean_accuracy" in read(run)[0]["train"]
    network = torch.load(run / "best.pt", weights_only=True)["network"]
    assert Genotype.from_json(network["genotype"]) == genotypes.load("WsrNet_Basic")


@pytest.mark.slow
def test_a_changed_architecture_file_is_refused_on_resume(tmp_path):
    file = tmp_path / "genotype.json"
    genotypes.load("WsrNet_Basic").save(file)
    with pytest.MonkeyPatch.context() as context, pytest.raises(Killed):
        context.setattr(RunDirectory, "log", kill_after_an_epoch)
        start(tmp_path, [*TINY, "--arch", str(file)])
    genotypes.load("WsrNet_Plus").save(file)
    with pytest.raises(InputError, match=r"was made from other inputs \(genotype\)"):
        start(tmp_path, [*TINY, "--arch", str(file)])


@pytest.mark.slow
def test_another_architecture_is_refused_after_the_end_too(tmp_path):
    file = tmp_path / "genotype.json"
    genotypes.load("WsrNet_Basic").save(file)
    start(tmp_path, [*TINY, "--epochs", "1", "--arch", str(file)])
    genotypes.load("WsrNet_Plus").save(file)
    with pytest.raises(InputError, match=r"was made from other inputs \(genotype\)"):
        start(tmp_path, [*TINY, "--epochs", "1", "--arch", str(file)])



def kill_after_an_epoch(self, message):
    if message.startswith("[1/"):
        raise Killed


def test_a_dry_run_writes_nothing(tmp_path, capsys):
    start(tmp_path, [*TINY, "--dry_run"])
    assert list(tmp_path.iterdir()) == []
    said = capsys.readouterr().out
    for words in ("50 training images", "30 held out", "parameters", "multiply-adds per image",
                  "4 epochs of 3 batches (16 = 1 x 16)", "passes: 384 images forward and backward", "memory: about"):
        assert words in said, words


def test_a_dry_run_counts_weight_perturbations_after_their_warm_up_alone():
    recipe = replace(RECIPES["strong"], awp_gamma=0.01, awp_warmup=0, epochs=10)
    without, whole, half, one = (training_passes(replace(recipe, **fields), 5) for fields in (
        {"awp_gamma": 0.0}, {"awp_warmup": 0}, {"awp_warmup": 5}, {"awp_warmup": 9}))
    assert one[0] > without[0] and half[0] == (whole[0] + without[0]) / 2 == without[0] + 5 * (one[0] - without[0])


# -- from search to evaluation --------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A search of one iteration, the retraining of its cell, and the folder of both."""
    folder = tmp_path_factory.mktemp("searched")
    search.wsr_nas.main(["--preset", "naive-1", "--dataset", "digits", "--device", "cpu", "--runs", str(folder),
                         "--save", "cells", "--init_channels", "2", "--layers", "3", "--num_steps", "1",
                         "--max_train", "60", "--max_validation", "10", "--batch_size", "15",
                         "--warmup_architectures", "1", "--iterations", "1", "--loss_passes", "1"])
    run = start(folder, [*SMALL, "--epochs", "1", "--arch", str(folder / "search" / "cells" / "genotype.json")])
    return folder, run


@pytest.mark.slow
def test_the_genotype_of_a_search_is_retrained(searched, tmp_path):
    folder, run = searched
    expected = Genotype.load(folder / "search" / "cells" / "genotype.json")
    network = torch.load(run / "checkpoint.pt", weights_only=True)["network"]
    assert Genotype.from_json(network["genotype"]) == expected
    again = start(tmp_path, [*SMALL, "--epochs", "1", "--arch", str(folder / "search" / "cells")])  # the run directory
    assert tensors(torch.load(again / "best.pt", weights_only=True)["model"]) == tensors(
        torch.load(run / "best.pt", weights_only=True)["model"])
