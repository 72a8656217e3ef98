"""Stopped at any step and started again = never stopped, bit for bit, for both programs of retraining."""

import json
import os
import random
import signal

import numpy as np
import pytest
import torch
from PIL import Image

import retrain.retraining as retraining
from retrain import evaluate, small_images, train_cifar, train_imagenet
from wsrnas.attacks import pgd
from wsrnas.data.datasets import load_dataset
from wsrnas.runtime.config import parse_config
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import InputError, Preempted
from wsrnas.runtime.run_directory import RunDirectory
from wsrnas.subjects.checkpoints import load_model
from wsrnas.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("quick_programs")

COMMON = ["--device", "cpu", "--init_channels", "2", "--layers", "2", "--epochs", "2", "--select_steps", "1",
          "--num_steps", "1", "--batch_size", "8", "--learning_rate", "0.05", "--save", "run"]
PLAIN = ["--epsilon", "0.03", "--random_start"]
REFINED = ["--ema_decay", "0.9", "--awp_gamma", "0.01", "--awp_warmup", "1", "--drop_path", "0.2", "--accumulation",
           "2", "--schedule", "cosine", "--warmup_epochs", "0.5", "--grad_clip", "1", "--label_smoothing", "0.1"]
FREE = {"seconds", "images_per_second", "peak_memory_gib", "runs", "save_every", "on_overfitting"}
STEPS = 5  # an epoch, in all programs below


class Killed(BaseException):
    """As sudden as a kill: nothing in the program may catch it."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """An image folder of two classes: 24 pictures each to train, 1 to validate."""
    root = tmp_path_factory.mktemp("pictures")
    noise = np.random.default_rng(0)
    for part, count in (("train", 24), ("val", 1)):
        for label, name in enumerate(("dark", "light")):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = noise.integers(100 * label, 150 + 100 * label, (40, 36 + number, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{number:02d}.png")
    return root


def arguments(program, pictures, *flags):
    if program is train_cifar:
        milestones = [] if "--schedule" in flags else ["--milestones", "1"]
        return [*COMMON, "--recipe", "tiny", "--max_train", "61", "--held_out", "21", *milestones,
                "--select_every", "1", *flags]
    return [*COMMON, "--recipe", "tiny", "--data", str(pictures), "--image_size", "32", "--held_out", "8", *flags]


def run(program, folder, argv, seed=[0]):  # noqa: B006 - a counter over all starts
    """Start the program; torch's global generator differs every time, for nothing may depend on it."""
    seed[0] += 1
    torch.manual_seed(seed[0])
    program.main([*argv, "--runs", str(folder)])
    return folder / "retrain" / "run"


def leaves(value, place=""):
    """Every leaf of nested containers with its place, but for clocks and what may change; tensors as bytes."""
    if isinstance(value, dict):
        return {k: v for key in value if key not in FREE for k, v in leaves(value[key], f"{place}/{key}").items()}
    if isinstance(value, list | tuple):
        return {k: v for n, item in enumerate(value) for k, v in leaves(item, f"{place}/{n}").items()}
    return {place: (str(value.dtype), value.numpy().tobytes()) if isinstance(value, torch.Tensor) else value}


def everything(folder):
    """What a finished run holds: its checkpoints, its metrics, its last words."""
    files = {name: leaves(torch.load(folder / name, weights_only=True)) for name in ("checkpoint.pt", "best.pt")}
    rows = [leaves(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return files, rows, (folder / "FINISHED").read_text()


# Losses keep nothing between two steps; TRADES draws a random start. The refined cases have all else that is kept.
CASES = {
    "cifar pgd": (train_cifar, PLAIN),
    "cifar trades refined": (train_cifar, [*REFINED, "--adv_loss", "trades", "--cutout", "8"]),
    "imagenet fast refined bf16": (train_imagenet, [*REFINED, "--amp", "bf16"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_stopped_anywhere_equals_never_stopped(case, pictures, tmp_path):
    program, flags = CASES[case]
    argv = arguments(program, pictures, *flags)
    expected = everything(run(program, tmp_path / "whole", argv))

    stopped = tmp_path / "stopped"
    moments = random.Random(case).sample(range(1, 2 * STEPS), 3)
    after, made = dict.fromkeys(moments, "signal"), 0
    after[sorted(moments)[1]] = "kill"
    original = Trainer.step

    def step(trainer, images, labels):
        nonlocal made
        made += 1
        metrics = original(trainer, images, labels)
        event = after.pop(made, None)
        if event == "signal":  # as Slurm and torchrun send it
            os.kill(os.getpid(), random.choice([signal.SIGTERM, signal.SIGUSR1]))
        elif event == "kill":
            raise Killed
        return metrics

    starts = 0
    with pytest.MonkeyPatch.context() as context:
        context.setattr(Trainer, "step", step)
        while True:
            starts += 1
            try:
                folder = run(program, stopped, [*argv, "--save_every", str(starts)])
                break
            except (Killed, Preempted):
                assert not (stopped / "retrain" / "run" / "FINISHED").exists()
    assert starts == 4 and not after
    files, rows, said = everything(folder)
    assert rows == expected[1] and said == expected[2]
    for name, content in files.items():
        assert content == expected[0][name], name


@pytest.mark.slow
def test_a_signal_names_the_step_and_the_checkpoint_holds_it(pictures, tmp_path):
    argv = arguments(train_cifar, pictures, *PLAIN)

    def step(trainer, images, labels, original=Trainer.step):
        if trainer.steps == STEPS + 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(trainer, images, labels)

    with pytest.MonkeyPatch.context() as context, pytest.raises(Preempted, match="stopped after step 2/5 of epoch 2/2"):
        context.setattr(Trainer, "step", step)
        run(train_cifar, tmp_path, argv)
    state = torch.load(tmp_path / "retrain" / "run" / "checkpoint.pt", weights_only=True)
    assert (state["step"], state["trainer"]["steps"], state["epoch"]["batches"]) == (1, STEPS + 2, 2)
    assert state["epoch"]["sums"]["loss"][1] == 16


@pytest.mark.slow
def test_a_loss_that_is_not_finite_names_step_and_checkpoint(pictures, tmp_path):
    argv = arguments(train_cifar, pictures, *PLAIN, "--save_every", "1")

    def step(trainer, images, labels, original=Trainer.step):
        if trainer.steps == STEPS + 2:
            with torch.no_grad():
                trainer.parameters[0].fill_(float("nan"))
        return original(trainer, images, labels)

    folder = tmp_path / "retrain" / "run"
    with pytest.MonkeyPatch.context() as context, pytest.raises(InputError) as caught:
        context.setattr(Trainer, "step", step)
        run(train_cifar, tmp_path, argv)
    assert str(caught.value).startswith("epoch 2/2: the training loss is nan at step 3; the last good checkpoint is "
                                        f"{folder / 'checkpoint.pt'} (complete epochs: 1), before it "
                                        "checkpoint.previous.pt")
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert (state["trainer"]["steps"], state["epoch"]["batches"]) == (STEPS + 2, 2)
    assert all(value.isfinite().all() for value in state["model"].values())
    run(train_cifar, tmp_path, argv)  # nothing is lost


@pytest.mark.slow
def test_a_checkpoint_of_another_architecture_is_refused(pictures, tmp_path):
    argv = arguments(train_cifar, pictures, *PLAIN)
    ours = run(train_cifar, tmp_path / "ours", argv)
    other = run(train_cifar, tmp_path / "other", [*argv, "--init_channels", "3"])
    (ours / "FINISHED").unlink()
    state = torch.load(other / "checkpoint.pt", weights_only=True)
    state["config"] = torch.load(ours / "checkpoint.pt", weights_only=True)["config"]
    torch.save(state, ours / "checkpoint.pt")
    with pytest.raises(InputError, match="is of another architecture: init_channels is 3, expected 2"):
        run(train_cifar, tmp_path / "ours", argv)


@pytest.mark.slow
def test_an_imagenet_network_is_evaluated_on_the_val_folder(pictures, tmp_path):
    folder = run(train_imagenet, tmp_path, arguments(train_imagenet, pictures, "--epochs", "1"))
    evaluate.main(["--model", str(folder), "--data", str(pictures), "--device", "cpu", "--workers", "0",
                   "--strengths", "4/255", "--attacks", "pgd-1"])
    stored, = (folder / "eval").glob("pgd-0.01569-*-imagenet-best.json")
    result = json.loads(stored.read_text())
    assert (result["images"], result["dataset"]) == (2, "imagenet")
    model, network = load_model(folder / "best.pt")
    assert network["image_shape"] == [3, 32, 32]
    images = torch.stack([center(pictures / "val" / name / "00.png") for name in ("dark", "light")])
    assert result["clean"]["accuracy"] == (model(images).argmax(1) == torch.arange(2)).float().mean().item()


def center(path):
    """A picture as evaluation sees it: the shorter side resized to 37 pixels, the central 32 x 32."""
    picture = Image.open(path)
    width, height = picture.size
    scale = 37 / min(width, height)
    picture = picture.resize((int(width * scale), int(height * scale)), Image.Resampling.BILINEAR)
    left, top = (round((side - 32) / 2) for side in picture.size)
    pixels = np.asarray(picture.crop((left, top, left + 32, top + 32)))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


@pytest.mark.slow
@pytest.mark.parametrize("program", [train_cifar, train_imagenet])
def test_without_held_out_images_the_last_network_is_kept(program, pictures, tmp_path):
    folder = run(program, tmp_path, arguments(program, pictures, "--held_out", "0", "--epochs", "1"))
    assert not (folder / "best.pt").exists()
    assert "no image was held out, no best.pt" in (folder / "FINISHED").read_text()
    assert "held_out" not in json.loads((folder / "metrics.jsonl").read_text())


@pytest.mark.slow
def test_an_average_of_the_weights_is_what_is_selected_and_kept(pictures, tmp_path):
    folder = run(train_cifar, tmp_path, arguments(train_cifar, pictures, *PLAIN, "--ema_decay", "0.9"))
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    average = state["trainer"]["average"]
    assert all(torch.equal(value, average[key]) for key, value in state["model"].items())
    assert not torch.equal(state["model"]["classifier.weight"], state["trainer"]["network"]["classifier.weight"])


# -- catastrophic overfitting ---------------------------------------------------------------------------------------

FAST = ["--adv_loss", "fast", "--epsilon", "0.03", "--epochs", "3"]


def overfitting(folder, pictures, accuracies, *flags, one_step=0.4):
    """Run Fast-AT with these probe accuracies, one an attempt at an epoch; the folder and the attack steps used.

    ``one_step`` is the accuracy under the training attack.
    """
    found, steps = iter(accuracies), []

    def probe(network, loader, epoch, *more):
        return next(found), 400

    def step(trainer, images, labels, original=Trainer.step):
        steps.append((trainer.steps, trainer.settings.step_size))
        return original(trainer, images, labels)

    def epoch(*given, original=retraining.train_epoch, **more):
        return original(*given, **more) | {"adversarial_accuracy": one_step}

    with pytest.MonkeyPatch.context() as context:
        context.setattr(retraining, "probe_accuracy", probe)
        context.setattr(retraining, "train_epoch", epoch)
        context.setattr(Trainer, "step", step)
        run(train_cifar, folder, arguments(train_cifar, pictures, *FAST, *flags))
    return folder / "retrain" / "run", steps


@pytest.mark.slow
def test_an_overfitted_epoch_is_repeated_from_the_last_good_state_with_a_smaller_step(pictures, tmp_path):
    folder, steps = overfitting(tmp_path, pictures, [0.4, 0.05, 0.41, 0.1, 0.05, 0.39])
    first = [(n, None) for n in range(10)]
    attempts = ((5, 1), (10, 1), (10, 2), (10, 3))  # first step of the epoch, roll-backs before it
    again = [(n, 0.0375 * 0.75 ** k) for start, k in attempts for n in range(start, start + 5)]
    assert steps[:10] == first and [n for n, _ in steps[10:]] == [n for n, _ in again]
    assert [size for _, size in steps[10:]] == pytest.approx([size for _, size in again])
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["probe"]["accuracy"] for row in rows] == [0.4, 0.41, 0.39]
    assert [row["probe"]["attack_step"] for row in rows] == pytest.approx(
        [0.0375, 0.0375 * 0.75, 0.0375 * 0.75 ** 3])
    log = (folder / "log.txt").read_text()
    assert ("catastrophic overfitting in epoch 2: PGD-10 accuracy on a training batch is 5.0%, 40.0% before, 40.0% "
            "under the training attack (step 0.0375") in log
    assert "rolled back to the end of epoch 1; the attack step is now 0.0281" in log
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert [entry["epoch"] for entry in state["standing"]["rollbacks"]] == [2, 3, 3]


@pytest.fixture(scope="module")
def rolled_back(pictures, tmp_path_factory):
    """What a run holds that was never stopped and that rolled its second epoch back."""
    folder, _ = overfitting(tmp_path_factory.mktemp("rolled-back"), pictures, [0.4, 0.05, 0.41, 0.4])
    return everything(folder)


@pytest.mark.slow
def test_told_to_stop_on_overfitting_it_leaves_the_last_good_state_and_can_go_on(rolled_back, pictures, tmp_path):
    with pytest.raises(InputError, match=r"stopped because of catastrophic overfitting in epoch 2, as "
                                         r"--on_overfitting stop asks; .*checkpoint\.pt is the last good state "
                                         r"\(epoch 1\); --on_overfitting"):
        overfitting(tmp_path / "stop", pictures, [0.4, 0.05], "--on_overfitting", "stop")
    state = torch.load(tmp_path / "stop" / "retrain" / "run" / "checkpoint.pt", weights_only=True)
    assert state["step"] == 1 and state["trainer"]["steps"] == STEPS
    stopped, _ = overfitting(tmp_path / "stop", pictures, [0.05, 0.41, 0.4])
    assert everything(stopped) == rolled_back


@pytest.mark.slow
def test_told_to_ignore_overfitting_it_only_reports(pictures, tmp_path):
    folder, steps = overfitting(tmp_path, pictures, [0.4, 0.05, 0.05], "--on_overfitting", "ignore")
    assert len(steps) == 3 * STEPS and {step for _, step in steps} == {None}
    assert (folder / "log.txt").read_text().count("catastrophic overfitting") == 2


@pytest.mark.slow
def test_after_eight_roll_backs_it_gives_up(pictures, tmp_path):
    with pytest.raises(InputError, match="catastrophic overfitting in epoch 2, after 8 smaller attack steps"):
        overfitting(tmp_path, pictures, [0.4, *[0.01] * 9])


@pytest.mark.parametrize(("accuracy", "before", "one_step", "images", "collapsed"), [
    (0.4, None, 0.4, 256, False),
    (0.05, 0.4, 0.4, 256, True),
    (0.19, 0.4, 0.4, 256, True),
    (0.21, 0.4, 0.4, 256, False),    # half is left
    (0.0, 0.02, 0.02, 256, False),   # five images of 256 are no evidence
    (0.0, 0.02, 0.02, 25600, True),
    (0.05, None, 0.6, 256, True),    # in the first epoch already: one step is resisted, ten are not
    (0.07, None, 0.6, 256, False),
    (0.0, 0.0, 0.02, 256, False),
])
def test_a_collapse_is_half_the_accuracy_lost_beyond_chance(accuracy, before, one_step, images, collapsed):
    assert retraining.has_collapsed(accuracy, before, one_step, images, 0.5) == collapsed


@pytest.mark.slow
def test_an_overfitted_first_epoch_is_undone_too(pictures, tmp_path):
    folder, steps = overfitting(tmp_path, pictures, [0.0, 0.4], "--epochs", "1", one_step=0.9)
    assert [n for n, _ in steps] == [*range(5), *range(5)] and steps[-1][1] == pytest.approx(0.0375 * 0.75)
    assert "rolled back to the end of epoch 0" in (folder / "log.txt").read_text()
    row = json.loads((folder / "metrics.jsonl").read_text())
    assert row["probe"]["undone"] == [{"epoch": 1, "accuracy": 0.0, "attack_step": pytest.approx(0.0375)}]


@pytest.mark.slow
@pytest.mark.parametrize("file", ["good.pt", "checkpoint.pt"])
def test_killed_between_the_two_saves_of_an_epoch_it_rolls_back_alike(file, rolled_back, pictures, tmp_path):
    """The state to roll back to is never older than the one that the run resumes from."""

    def save(self, payload, name="checkpoint.pt", original=RunDirectory.save):
        if name == file and payload["step"] == 1:
            raise Killed
        original(self, payload, name)

    with pytest.MonkeyPatch.context() as context, pytest.raises(Killed):
        context.setattr(RunDirectory, "save", save)
        overfitting(tmp_path / "killed", pictures, [0.4])
    killed, _ = overfitting(tmp_path / "killed", pictures, [0.4, 0.05, 0.41, 0.4])
    assert everything(killed) == rolled_back


@pytest.mark.slow
def test_an_ignored_collapse_is_no_good_state(pictures, tmp_path):
    def save(self, payload, name="checkpoint.pt", original=RunDirectory.save):
        original(self, payload, name)
        if name == "checkpoint.pt" and payload["step"] == 2:
            raise Killed

    with pytest.MonkeyPatch.context() as context, pytest.raises(Killed):
        context.setattr(RunDirectory, "save", save)
        overfitting(tmp_path, pictures, [0.4, 0.05], "--on_overfitting", "ignore")
    folder, steps = overfitting(tmp_path, pictures, [0.05, 0.41, 0.4])
    assert [n for n, _ in steps] == [*range(10, 15), *range(5, 15)]  # back to the end of epoch 1
    assert [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()] == [0, 1, 2]


@pytest.mark.slow
def test_the_probe_is_pgd_on_the_first_training_batch(pictures, tmp_path):
    folder = run(train_cifar, tmp_path, arguments(train_cifar, pictures, *FAST, "--epochs", "1", "--probe_steps", "2"))
    config, _ = parse_config(train_cifar.RetrainConfig, train_cifar.RECIPES, arguments(train_cifar, pictures, *FAST))
    loader, _ = small_images.make_loaders(config, load_dataset("digits", max_train=61), World())
    model, _ = load_model(folder / "checkpoint.pt")
    images, labels = next(loader.batches(0))
    right = (model(pgd(model, images, labels, 0.03, 2)).argmax(1) == labels).float().mean().item()
    row = json.loads((folder / "metrics.jsonl").read_text())
    assert row["probe"] == {"accuracy": right, "images": 8, "attack_step": pytest.approx(0.0375), "rollbacks": 0,
                            "undone": []}
