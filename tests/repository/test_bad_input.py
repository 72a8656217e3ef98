"""Bad input through the programs: one sentence on stderr that names the thing and what was expected, exit code 2."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import genotypes
import retrain.evaluate
import retrain.train_cifar
import retrain.train_imagenet
import search.wsr_nas
from tests.processes import PATIENCE
from tests.quick import slow_after
from wsrnas.runtime.errors import fail
from wsrnas.runtime.program import run_program

pytestmark = pytest.mark.usefixtures("quick_programs")

ROOT = Path(__file__).parents[2]
PROGRAMS = {"search": search.wsr_nas.main, "retrain": retrain.train_cifar.main, "evaluate": retrain.evaluate.main,
            "imagenet": retrain.train_imagenet.main}
SMALL = {
    "search": ["--preset", "tiny", "--space", "nas-bench-201", "--device", "cpu", "--init_channels", "2", "--layers",
               "3", "--max_train", "60", "--max_validation", "20", "--num_steps", "1", "--batch_size", "15",
               "--warmup_architectures", "1", "--population", "1", "--iterations", "1", "--loss_passes", "1",
               "--estimator_images", "1", "--recalibration_batches", "1"],
    "retrain": ["--preset", "tiny", "--device", "cpu", "--init_channels", "2", "--layers", "3", "--max_train", "60",
                "--held_out", "20", "--num_steps", "1", "--batch_size", "20", "--epochs", "1"],
    "imagenet": ["--recipe", "tiny", "--device", "cpu", "--init_channels", "2", "--layers", "3", "--image_size", "32",
                 "--batch_size", "4", "--epochs", "1"],
    "evaluate": ["--device", "cpu", "--max_test", "10"],
}


ONLY_A_RUN_KNOWS = {  # refusals that a dry run does not have, and why
    "damaged picture": "ImageNet has 1.2 million pictures; each is read when it is needed",
    "pseudo file system": "whether /proc and its like take a folder is only known by making it",
    "full disk": "a dry run writes nothing",
}


@pytest.fixture
def refused(tmp_path, capsys):
    """Run a program on small settings, dry and in earnest, and return the one sentence that it left with.

    Both say the same, but for what ``only_a_run_knows``.
    """
    def run(program, *argv, runs=None, dry=True, only_a_run_knows=""):
        dry = dry and not ONLY_A_RUN_KNOWS.get(only_a_run_knows)
        small = SMALL[program] + (["--runs", str(runs or tmp_path / "runs")] if program != "evaluate" else [])
        expected = run(program, "--dry_run", *argv, runs=runs, dry=False) if dry else None
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            run_program(lambda: PROGRAMS[program]([*small, *map(str, argv)]))
        said = capsys.readouterr().err
        assert expected in (None, said)
        assert caught.value.code == 2
        assert said.startswith("error: ") and said.endswith("\n") and said.count("\n") == 1, said
        assert "Traceback" not in said
        return said
    return run


def pictures(root, classes=("cat", "dog"), count=12, size=(8, 8), parts=("train", "test")):
    stream = np.random.default_rng(0)
    for part in parts:
        for name in classes:
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(stream.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{number:02d}.png")
    return root


# -- architectures --------------------------------------------------------------------------------------------------

def test_an_unknown_architecture_says_what_may_be_meant_and_where_all_are(refused):
    said = refused("retrain", "--arch", "WsrNet_Basik")
    assert "unknown architecture 'WsrNet_Basik'; did you mean WsrNet_Basic" in said
    assert "python -m wsrnas.models --list" in said
    assert "did you mean resnet18" in refused("retrain", "--arch", "resnet_19")


def edited(**changes):
    document = json.loads(genotypes.load("WsrNet_Basic").to_json()) | changes
    return json.dumps(document)


def with_edge(edge):
    cell = json.loads(genotypes.load("WsrNet_Basic").to_json())["normal"]
    return edited(normal=[edge, *cell[1:]])


@pytest.mark.parametrize(("text", "words"), [
    ("{ 'normal'", "the genotype is not JSON text"),
    (edited()[:200], "the genotype is not JSON text"),
    ("[]", "the genotype is a list; expected an object"),
    (with_edge(["sep_conv_9x9", 0]), "unknown operation 'sep_conv_9x9' at edge 0 of node 2 in the normal cell; known"),
    (with_edge(["sep_conv_3x3", 5]), "edge 0 of node 2 in the normal cell refers forward, to 5; expected"),
    (with_edge(["sep_conv_3x3", -1]), "negative, -1; expected 0 to 1"),
    (with_edge(["sep_conv_3x3"]), "expected an (operation, input) pair"),
    (edited(normal=json.loads(edited())["normal"][:7]), "odd number of pairs, 7"),
    (edited(reduce=[]), "the reduce cell is empty"),
    (edited(normal_concat=[2, 3, 9]), "normal_concat names node 9, which does not exist"),
    (edited(format=7), "has format 7; expected format 1"),
    (edited(comment="mine"), "unknown keys: comment"),
])
def test_a_broken_genotype_is_named(text, words, refused, tmp_path):
    file = tmp_path / "genotype.json"
    file.write_text(text)
    said = refused("retrain", "--arch", file)
    assert words in said and str(file) in said
    assert file.read_text() == text


def test_a_missing_genotype_file_is_named(refused, tmp_path):
    assert "nowhere.json does not exist" in refused("retrain", "--arch", tmp_path / "nowhere.json")
    assert "holds no genotype.json" in refused("retrain", "--arch", tmp_path)


# -- data folders ---------------------------------------------------------------------------------------------------

def mixed_sizes(root):
    Image.new("RGB", (9, 8)).save(root / "train" / "dog" / "05.png")


def corrupted(root):
    file = root / "train" / "dog" / "05.png"
    file.write_bytes(file.read_bytes()[:60])


def no_image(root):
    (root / "test" / "cat" / "00.png").write_text("not a picture")


def without_class(root):
    (root / "test" / "dog").rename(root / "test" / "wolf")


def without_test(root):
    (root / "test").rename(root / "other")


def empty_class(root):
    for file in (root / "train" / "cat").iterdir():
        file.unlink()


@pytest.mark.parametrize("program", ["search", "retrain"])
@pytest.mark.parametrize(("damage", "words"), [
    (mixed_sizes, ["images of mixed size", "05.png is 8x9", "expected one size"]),
    (corrupted, ["cannot decode the image", "dog/05.png", "expected a whole file"]),
    (no_image, ["cannot decode the image", "cat/00.png"]),
    (without_class, ["class folders", "only in train: dog", "only in test: wolf", "expected the same names"]),
    (without_test, ["has neither a folder test nor val", "expected"]),
    (empty_class, ["train/cat has no images", "expected files ending in .png"]),
])
def test_a_damaged_folder_is_named(program, damage, words, refused, tmp_path):
    root = pictures(tmp_path / "pictures")
    damage(root)
    said = refused(program, "--dataset", "folder", "--data", root)
    assert all(word in said for word in words), said
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("damage", "words"), slow_after(2, [
    (corrupted, ["cannot decode the image", "dog/05.png", "expected a whole file"]),
    (without_class, ["class folders", "only in train: dog", "only in test: wolf", "expected the same names"]),
    (without_test, ["has neither a folder test nor val", "expected"]),
    (empty_class, ["train/cat has no images", "expected files ending in .png"]),
]))
@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_imagenet_is_named(damage, words, workers, refused, tmp_path):
    root = pictures(tmp_path / "pictures")
    damage(root)
    only = "damaged picture" if damage is corrupted else ""
    said = refused("imagenet", "--data", root, "--workers", workers, only_a_run_knows=only)
    assert bool(only) == (tmp_path / "runs").exists()  # a beginning of a run
    assert all(word in said for word in words), said


def test_a_missing_imagenet_is_named(refused, tmp_path):
    said = refused("imagenet", "--data", tmp_path / "none")
    assert f"the data folder {tmp_path}/none does not exist, expected" in said


@pytest.mark.parametrize("program", ["search", "retrain"])
def test_a_missing_or_empty_folder_is_named(program, refused, tmp_path):
    assert f"the data folder {tmp_path}/none does not exist, expected" in refused(
        program, "--dataset", "folder", "--data", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    said = refused(program, "--dataset", "folder", "--data", tmp_path / "empty")
    assert "empty has no folder train, expected" in said
    assert "cifar10 is missing, damaged or unreadable" in refused(program, "--dataset", "cifar10", "--data", tmp_path)


# -- numbers --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("program", "argv", "words"), [
    ("search", "--batch_size 31", "the training batch size is 31, expected at most 30, the number of images"),
    ("retrain", "--batch_size 41", "the training batch size is 41, expected at most 40, the number of images"),
    ("retrain", "--arch |none~0|+|skip_connect~0|none~1|+|none~0|nor_conv_3x3~1|none~2|",
     "so every image would get the same answer; expected a path without none"),
    ("retrain", "--held_out 60", "cannot split 60 of 60 images off, expected 10 to 50"),
    ("retrain", "--max_train 5", "max_train is 5, expected 0 (all) or at least 10"),
    ("search", "--max_validation 5", "D_v is 5, expected 0 (all) or at least 10"),
    ("search", "--strengths 0.05 0.1 0.1 0.2", "strengths contains 0.1 twice; expected each strength once"),
    ("search", "--strengths 0.05 0.2 0.1 0.15 --strength_weights 1 2 3 4",
     "strengths must increase, but 0.2 comes before 0.1"),
    ("search", "--strengths 0 0.1 0.15 0.2", "strengths contains 0; expected pixels of [0, 1], strictly inside (0, 1)"),
    ("search", "--strengths 0.1 0.2 0.3 8", "strengths contains 8; expected pixels of [0, 1], strictly inside (0, 1)"),
    ("search", "--strengths 0.1 0.2 0.3 nan", "strengths contains nan; expected pixels"),
    ("search", "--strengths 0.1 0.2 0.30001 0.30002", "contains 0.30001 and 0.30002, which agree in four digits"),
    ("search", "--num_pgd_strengths 0 --num_estimated_strengths 4", "num_pgd_strengths (N1) is 0; expected at least 1"),
    ("search", "--num_estimated_strengths -1", "num_estimated_strengths (N2) is -1; expected at least 0"),
    ("search", "--strengths 0.1 0.2 0.3", "strengths has 3 entries; expected N1 + N2 = 2 + 2 = 4"),
    ("search", "--num_estimated_strengths 3", "strengths has 4 entries; expected N1 + N2 = 2 + 3 = 5"),
    ("search", "--strength_weights 0.5 0.5", "strength_weights has 2 entries; expected one for each strength, 4"),
    ("search", "--strength_weights 0.5 0.6 -0.2 0.1", "strength_weights contains -0.2; expected every weight above 0"),
    ("search", "--strength_weights 0.1 0.2 0.3 0.3", "strength_weights sum to 0.9; expected 1 (Eq. 10)"),
    ("search", "--alpha 0.8 --beta 0.3", "alpha + beta is 1.1; expected 1 (Eq. 10)"),
    ("search", "--alpha 1.2 --beta -0.2", "alpha is 1.2 and beta is -0.2; expected both at least 0"),
    ("search", "--epsilon 8", "epsilon is 8; expected pixels of [0, 1], strictly inside (0, 1)"),
    ("search", "--estimator B-ANE", "argument --estimator: invalid choice: 'B-ANE' (choose from"),
    ("search", "--iterations 0", "iterations is 0; expected at least 1"),
    ("search", "--tau 0", "tau is 0; expected at least 1e-06"),
    ("search", "--learning_rate nan", "learning_rate is nan; expected a number above 0"),
    ("search", "--layers 0", "layers is 0; expected at least 1"),
    ("retrain", "--epsilon 0", "epsilon is 0; expected pixels of [0, 1], strictly inside (0, 1)"),
    ("retrain", "--epochs 0", "epochs is 0; expected at least 1"),
    ("retrain", "--milestones 5 3", "milestones are (5.0, 3.0); expected increasing epochs"),
    ("retrain", "--recipe strongest", "argument --recipe/--preset: invalid choice: 'strongest' (choose from"),
    ("imagenet", "--recipe rnas", "argument --recipe/--preset: invalid choice: 'rnas' (choose from"),
    ("retrain", "--adv_loss hinge", "argument --adv_loss: invalid choice: 'hinge' (choose from"),
    ("retrain", "--trades_beta 0", "trades_beta is 0; expected a number above 0"),
    ("retrain", "--beta much", "'much' is not a number"),
    ("retrain", "--schedule linear", "argument --schedule: invalid choice: 'linear'"),
    ("retrain", "--schedule cyclic --warmup_epochs 1", "warmup_epochs is 1; expected 0, the cyclic schedule"),
    ("retrain", "--schedule cosine --learning_rate_min 1", "the minimum of the schedule is 1; expected 0 to its peak"),
    ("retrain", "--schedule one-cycle --peak_share 1", "peak_share is 1; expected a number between 0 and 1"),
    ("retrain", "--ema_decay 1", "ema_decay is 1; expected 0 or more, below 1"),
    ("retrain", "--drop_path nan", "drop_path is nan; expected 0 or more, below 1"),
    ("retrain", "--label_smoothing 1.5", "label_smoothing is 1.5; expected 0 or more, below 1"),
    ("retrain", "--adv_loss mart --label_smoothing 0.1", "label_smoothing is 0.1, but the loss mart does not read it"),
    ("retrain", "--awp_gamma -1", "awp_gamma is -1; expected at least 0"),
    ("retrain", "--awp_gamma 0.01 --awp_warmup 1", "awp_warmup is 1 but there are 1 epochs, so that no weight"),
    ("retrain", "--step_size 2", "step_size is 2; expected 0 or more, below 1, in pixels of [0, 1]; was 2/255 meant?"),
    ("retrain", "--step_size nan", "step_size is nan; expected 0 or more, below 1"),
    ("search", "--step_size 2", "step_size is 2; expected 0 or more, below 1, in pixels of [0, 1]; was 2/255 meant?"),
    ("retrain", "--milestones -3", "milestones are (-3.0,); expected increasing epochs from 0 on"),
    ("retrain", "--strengths 0.1 0.1", "strengths contains 0.1 twice; expected each strength once"),
    ("retrain", "--dataset_name cifar10", "dataset_name is cifar10, but the images are digits"),
    ("retrain", "--strengths 0.1 2", "strengths contains 2; expected pixels of [0, 1], strictly inside (0, 1)"),
    ("retrain", "--probe_drop 1", "probe_drop is 1; expected a number between 0 and 1"),
    ("retrain", "--accumulation 3", "batch_size is 20, for all processes together; expected a multiple of 3 (1 process "
                                    "x 3 accumulated parts)"),
    ("retrain", "--amp fp8", "argument --amp: invalid choice: 'fp8'"),
    ("retrain", "--adv_loss multi --step_size 0.01", "step_size is 0.01, but the loss multi does not read it"),
    ("retrain", "--compile --drop_path 0.1", "compile and drop_path cannot be combined"),
    ("retrain", "--warmup_epochs 9", "warmup_epochs is 9; expected at most the 1 epochs of the training"),
    ("retrain", "--cutout -1", "cutout is -1; expected at least 0"),
    ("imagenet", "--image_size 8", "image_size is 8; expected at least 32"),
    ("imagenet", "--workers -1", "workers is -1; expected at least 0"),
    ("retrain", "--weight_decay -1", "weight_decay is -1; expected at least 0"),
    ("retrain", "--device cuda:7", "invalid choice: 'cuda:7'"),
    ("evaluate", "", "nothing to evaluate: pass --model"),
    ("evaluate", "--model x --strengths 0.2 0.2", "strengths contains 0.2 twice; expected each strength once"),
    ("evaluate", "--model x --strengths 2", "strengths contains 2; expected pixels"),
    ("evaluate", "--model x --attacks pgd-2 --strengths 0.031372 8/255", "both shown as PGD-2  eps 0.0314 (8/255)"),
    ("evaluate", "--model x --attacks pgd-l2-2 --l2_strengths 0.50001 0.50002", "both shown as PGD-2 L2"),
    ("evaluate", "--model x --names a b", "2 names for 1 networks; expected one each"),
    ("evaluate", "--model x --attacks pdg-20", "unknown attack 'pdg-20'"),
    ("evaluate", "--model x --attacks transfer", "transfer needs another network to make its images: pass --source"),
    ("evaluate", "--model x --protocol paper --strengths 0.1", "protocol paper has attacks of its own"),
    ("evaluate", "--model x --l2_strengths 0", "l2_strengths contains 0; expected a norm above 0"),
    ("evaluate", "--model x --check_images 3", "check_images is 3; expected at least 30"),
    ("evaluate", "--model RACL --state_dict a b", "2 files of weights (--state_dict) for 1 networks"),
    ("evaluate", "--model RACL --state_dict nowhere.pt --dataset digits", "nowhere.pt"),
    ("evaluate", "--model nowhere.py:build --dataset digits", "nowhere.py"),
    ("evaluate", "--model nowhere", "no checkpoint at nowhere; expected a file, or a run directory"),
    ("evaluate", "--modle x", "unknown argument '--modle'; did you mean --model"),
])
def test_a_number_that_cannot_be_used_is_named(program, argv, words, refused, tmp_path):
    assert words in refused(program, *argv.split())
    assert not any(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_named(refused):
    assert "no CUDA device is visible; use --device cpu or auto" in refused("retrain", "--device", "cuda")


# -- checkpoints and run directories --------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder of a finished search and of a finished retraining, both called "run"."""
    folder = tmp_path_factory.mktemp("trained")
    for program in ("search", "retrain"):
        PROGRAMS[program]([*SMALL[program], "--runs", str(folder), "--save", "run"])
    return folder


@pytest.fixture
def unfinished(trained, tmp_path):
    """Copies that were stopped right after their last checkpoint, in a folder of their own."""
    for program in ("search", "retrain"):
        for file in (trained / program / "run").rglob("*"):
            if file.is_file() and file.name != "FINISHED" and "tb" not in file.parts:
                copy = tmp_path / "copy" / file.relative_to(trained)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(file.read_bytes())
    return tmp_path / "copy"


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize(("program", "flag", "words"), [
    ("search", ["--tau", "0.5"], "holds a run of another configuration (tau: 0.1 -> 0.5)"),
    ("retrain", ["--weight_decay", "0.1"], "holds a run of another configuration (weight_decay: 0.0005 -> 0.1)"),
    ("retrain", ["--arch", "RACL"], "was made from other inputs (genotype)"),
])
def test_another_configuration_is_refused_and_nothing_is_lost(program, flag, words, refused, unfinished):
    before = contents(unfinished)
    said = refused(program, "--save", "run", *flag, runs=unfinished)
    assert words in said
    assert contents(unfinished) == before


@pytest.mark.slow
@pytest.mark.parametrize(("program", "other"), [("search", "retrain"), ("retrain", "search")])
def test_the_checkpoint_of_another_program_is_refused(program, other, refused, unfinished):
    checkpoint = unfinished / program / "run" / "checkpoint.pt"
    checkpoint.write_bytes((unfinished / other / "run" / "checkpoint.pt").read_bytes())
    assert "belongs to another configuration" in refused(program, "--save", "run", runs=unfinished)


@pytest.mark.slow
@pytest.mark.parametrize("program", ["search", "retrain"])
def test_truncated_checkpoints_fall_back_or_are_refused(program, refused, unfinished, capsys):
    run = unfinished / program / "run"
    data = (run / "checkpoint.pt").read_bytes()
    (run / "checkpoint.pt").write_bytes(data[:len(data) // 2])
    if program == "search":  # two steps of three are in the previous one
        PROGRAMS[program]([*SMALL[program], "--runs", str(unfinished), "--save", "run"])
        assert "falling back to the previous checkpoint" in capsys.readouterr().out
        assert (run / "FINISHED").exists()
        assert genotypes.load(run)
    else:  # a single epoch: there is no other
        assert "it is truncated or not a checkpoint; pass --overwrite to start again" in refused(
            program, "--save", "run", runs=unfinished)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [b"", bytes(300), b"[]"])
def test_a_damaged_cell_is_written_again_by_the_same_command(damage, unfinished):
    file = unfinished / "search" / "run" / "genotype.json"
    before = file.read_bytes()
    file.write_bytes(damage)
    PROGRAMS["search"]([*SMALL["search"], "--runs", str(unfinished), "--save", "run"])
    assert file.read_bytes() == before


@pytest.mark.slow
def test_evaluation_refuses_what_is_no_network(refused, trained, tmp_path):
    best = trained / "retrain" / "run" / "best.pt"
    (tmp_path / "half.pt").write_bytes(best.read_bytes()[:5000])
    assert "half.pt cannot be read" in refused("evaluate", "--model", tmp_path / "half.pt")
    assert "is not a checkpoint of retraining" in refused(
        "evaluate", "--model", trained / "search" / "run" / "checkpoint.pt")
    assert "no checkpoint at" in refused("evaluate", "--model", trained / "search" / "run")


@pytest.mark.slow
def test_evaluation_refuses_another_kind_of_images(refused, trained, tmp_path):
    run = trained / "retrain" / "run"
    root = pictures(tmp_path / "pictures", count=2, size=(12, 12))
    said = refused("evaluate", "--model", run, "--dataset", "folder", "--data", root)
    assert "was trained on 10 classes of images (3, 8, 8), but folder has 2 classes of images (3, 12, 12)" in said
    assert "invalid choice: 'mnist' (choose from" in refused("evaluate", "--model", run, "--dataset", "mnist")


@pytest.mark.parametrize("program", ["search", "retrain"])
def test_a_place_that_cannot_be_written_is_named(program, refused, tmp_path):
    (tmp_path / "file").write_text("mine")
    said = refused(program, runs=tmp_path / "file")
    assert f"cannot write the run directory {tmp_path}/file/{program}" in said and "not a directory" in said
    if Path("/proc/self").exists():
        assert "cannot write the run directory /proc/" in refused(
            program, runs="/proc/wsrnas", only_a_run_knows="pseudo file system")
    foreign = tmp_path / program / "thesis"
    foreign.mkdir(parents=True)
    (foreign / "thesis.tex").write_text("dear reader")
    assert "thesis exists and is not a run directory" in refused(program, "--save", "thesis", runs=tmp_path)
    assert contents(foreign) == {Path("thesis.tex"): b"dear reader"}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("name", ["log.txt", "metrics.jsonl", "checkpoint.pt.new.tmp"])
def test_a_disk_that_fills_up_loses_nothing(name, refused, unfinished):
    run = unfinished / "search" / "run"
    (run / "checkpoint.pt").write_bytes((run / "checkpoint.previous.pt").read_bytes())  # one step is left to do
    kept = {file: (run / file).read_bytes() for file in ("checkpoint.pt", "checkpoint.previous.pt")}
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to("/dev/full")
    if name == "metrics.jsonl":
        with pytest.MonkeyPatch.context() as context:  # dropping rows would replace the link by a file
            context.setattr("wsrnas.runtime.run_directory.RunDirectory.drop_metrics_from", lambda *a: None)
            said = refused("search", "--save", "run", runs=unfinished, only_a_run_knows="full disk")
    else:
        said = refused("search", "--save", "run", runs=unfinished, only_a_run_knows="full disk")
    assert "no space left; what was saved before is intact, and the same command resumes from it" in said
    assert {file: (run / file).read_bytes() for file in kept} == kept
    assert not list(run.glob("*.tmp")) and not list(run.glob("*.new"))
    (run / name).unlink(missing_ok=True)
    PROGRAMS["search"]([*SMALL["search"], "--runs", str(unfinished), "--save", "run"])
    assert (run / "FINISHED").exists()


@pytest.mark.slow
def test_a_real_process_leaves_with_two_and_no_traceback(tmp_path):
    command = [sys.executable, "-m", "retrain.train_cifar", "--arch", "Unknown", "--runs", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: unknown architecture 'Unknown'") and done.stderr.count("\n") == 1


def test_a_process_that_fails_alone_is_heard(monkeypatch, capsys):
    waited = []
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setattr("wsrnas.runtime.errors.time.sleep", waited.append)
    with pytest.raises(SystemExit) as caught:
        fail("cannot decode the image x.png")
    assert caught.value.code == 2 and waited == [5]  # what all have met, the main process says first
    assert capsys.readouterr().err == "error: process 3: cannot decode the image x.png\n"
