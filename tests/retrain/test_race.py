"""The race as a program at the smallest size: its settings, its jobs, and stopping, sharing and growing it."""

import functools
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import statistics
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

import genotypes
import retrain.evaluate_network
import retrain.retraining
from retrain import compare, small_images, train_cifar
from retrain.race import jobs as jobs_module
from retrain.race.entrants import load_entrants, widen
from retrain.race.jobs import kept_weights, race_jobs
from retrain.race.register import enter, entered
from retrain.race.settings import RACE_RECIPES, CompareConfig, parse_race
from retrain.recipes import RECIPES, parse_recipe
from retrain.settings import RetrainConfig, SmallImagesRecipe
from tests.processes import PATIENCE, wait_for
from tests.quick import slow_after
from tests.run_files import read, without_time
from wsrnas.complexity import count_parameters, multiply_adds
from wsrnas.data.datasets import load_dataset
from wsrnas.data.image_set import ImageSet
from wsrnas.evaluation import attack_table
from wsrnas.evaluation.measurement import Evaluation
from wsrnas.evaluation.power import Noise, planned, power
from wsrnas.models import build_model
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import STOPPED, InputError
from wsrnas.runtime.program import run_program
from wsrnas.runtime.run_directory import RunDirectory
from wsrnas.subjects.checkpoints import load_model
from wsrnas.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("quick_programs")

ARCHS = ("random:1,", "squeezenet")
NAMES = ("random_1", "squeezenet")
SEED = 3  # not 0: no part of a race may forget it
SMALL = ["--recipe", "tiny", "--budget", "params=1.2k", "--tolerance", "0.9", "--layers", "1", "--epochs", "2",
         "--max_train", "120", "--held_out", "20", "--batch_size", "50", "--num_steps", "1", "--select_steps", "1",
         "--select_every", "1", "--milestones", "1", "--seed", str(SEED), "--protocol", "custom", "--attacks", "pgd-1",
         "--test_strengths", "0.1", "--max_test", "40", "--test_batch_size", "20", "--check_images", "30",
         "--device", "cpu", "--save", "race"]


widen_once = functools.cache(widen)  # the widths of the same entrants are the same in every start


def start(place, *more, archs=ARCHS, seeds=2, pages=False):
    """The race's folder after the program has run in the folder ``place``; without pages, whose figures take seconds.

    The folder of runs is a relative one, so that a copy of the place is a race, too.
    """
    torch.manual_seed(time.perf_counter_ns() % 1000)  # nothing may depend on torch's own generator
    with pytest.MonkeyPatch.context() as context:
        context.chdir(place)
        context.setattr(compare, "widen", lambda entrants, *more: list(widen_once(tuple(entrants), *more)))
        if not pages:
            for module in (retrain.retraining, retrain.evaluate_network, jobs_module, compare):
                context.setattr(module, "refresh", lambda *_, **__: None)
            context.setattr("retrain.construction.mend", lambda *_: None)
            context.setattr(compare, "write_report", lambda folders: folders[0] / "report.html")
        compare.main([*SMALL, "--archs", *archs, "--seeds", str(seeds), *more])
    return place / "runs" / "compare" / "race"


def fails(place, *more, **keywords):
    """The one sentence that a start ends with; it leaves every file as it was."""
    before = contents(place)
    said = []
    with pytest.MonkeyPatch.context() as context, pytest.raises(SystemExit) as end:
        context.setattr("wsrnas.runtime.errors.say", said.append)
        run_program(lambda: start(place, *more, **keywords))
    assert end.value.code == 2 and len(said) == 1 and "\n" not in said[0]
    assert contents(place) == before
    return said[0]


def files(folder):
    """Bytes and time of every file, but for locks."""
    return {path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
            for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def contents(folder):
    """Bytes of every file, but for locks."""
    return {name: data for name, (data, _) in files(folder).items()}


def stored(race):
    return json.loads((race / "race.json").read_text())


def outcome(race):
    """What must not depend on how a race came to its end: race.json without clocks and command, and every job's
    weights, metrics, test images withstood and honesty checks."""
    values = stored(race)
    assert values.pop("command") and all(entrant.pop("latency") for entrant in values["entrants"])
    work = {}
    for job in sorted((race / "retrain").iterdir()):
        results = [json.loads(path.read_text()) for path in sorted((job / "eval").glob("*.json"))]
        work[job.name] = (without_time(read(job)), [
            (result["model"]["fingerprint"], result["clean"]["robust"], [row["robust"] for row in result["attacks"]],
             result["checks"]) for result in results])
    return values, work


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """Places of a race of one seed, and of the same one that a second seed was added to."""
    early, late = (tmp_path_factory.mktemp(name) for name in ("early", "late"))
    start(early, seeds=1)
    shutil.copytree(early, late, dirs_exist_ok=True)
    start(late)
    return early, late


@pytest.fixture
def early(grown, tmp_path):
    """A copy of the place of a finished race of one seed."""
    shutil.copytree(grown[0], tmp_path / "early")
    return tmp_path / "early"


@pytest.fixture
def late(grown, tmp_path):
    """A copy of the place of a finished race of two seeds."""
    shutil.copytree(grown[1], tmp_path / "late")
    return tmp_path / "late"


# -- settings ---------------------------------------------------------------------------------------------------------

def test_every_recipe_is_one_of_a_race():
    assert list(RACE_RECIPES) == list(RECIPES)
    for name, recipe in RECIPES.items():
        race, _ = parse_race(["--recipe", name, "--archs", "RACL"])
        for field in fields(SmallImagesRecipe):
            assert getattr(race, field.name) == getattr(recipe, field.name)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_job_is_what_retraining_would_be_told(recipe, tmp_path, monkeypatch):
    """Cells and networks with a design of their own, with the width of their budget, seed by seed."""
    config, _ = parse_race(["--recipe", recipe, "--archs", "RACL,resnet18", "--seed", "5", "--seeds", "2", "--data",
                            "D"])
    entrants = [replace(entrant, init_channels=width)
                for entrant, width in zip(load_entrants(config.archs, config.layers, 5), (7, 8), strict=True)]
    monkeypatch.chdir(tmp_path)
    Path("R").mkdir()
    enter(Path("R"), entrants, config.seeds)
    jobs = race_jobs(config, Path("R"), *entered(Path("R")))
    assert [job.name for job in jobs] == ["RACL-seed5", "resnet18-seed5", "RACL-seed6", "resnet18-seed6"]
    for job in jobs:
        own = {"RACL": ["--arch", "R/genotypes/RACL.json", "--init_channels", "7"],
               "resnet18": ["--arch", "resnet18", "--init_channels", "8"]}[job.entrant.name]
        told, _ = parse_recipe(RetrainConfig, RECIPES, [
            "--recipe", recipe, *own, "--seed", str(job.seed), "--split_seed", "5", "--runs", "R", "--save", job.name,
            "--data", "D"])
        assert job.config == told and job.folder == Path("R/retrain") / job.name


def other(field, value):
    """Another value of a recipe's field that is allowed, too."""
    special = {"adv_loss": "trades", "schedule": "constant", "amp": "bf16", "on_overfitting": "stop", "device": "cpu",
               "dataset": "svhn", "strengths": (0.1, 0.2), "milestones": (1.0, 2.0), "data": "D",
               "learning_rate_min": 0.01, "cuda_graphs": "off",
               "dataset_name": "cifar100", "track": "mlflow"}
    if field in special:
        return special[field]
    return not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else 0.5 * value + 0.125


@pytest.mark.parametrize("field", [field.name for field in fields(SmallImagesRecipe)
                                   if field.name not in ("preset", "save", "runs", "seed", "split_seed", "layers")])
def test_every_field_of_a_recipe_reaches_the_training(field):
    race = RACE_RECIPES["wsrnet-basic"]
    value = other(field, getattr(race, field))
    assert value != getattr(race, field)
    if field == "dataset_name":
        race = replace(race, dataset="folder", data="D")
    training = replace(race, **{field: value}).training("RACL", 7, 3, 9, "R", "name")
    plain = race.training("RACL", 7, 3, 9, "R", "name")
    assert getattr(training, field) == value and replace(training, **{field: getattr(race, field)}) == plain
    assert (plain.layers, plain.seed, plain.split_seed, plain.runs, plain.save) == (3, 9, 0, "R", "name")


def test_an_evaluation_follows_the_races_protocol():
    config, _ = parse_race([*SMALL, "--archs", "RACL", "--attacks", "pgd-5", "mim-3"])
    evaluation = config.evaluation(weights="last")
    assert (evaluation.protocol, evaluation.attacks, evaluation.strengths, evaluation.dataset, evaluation.max_test,
            evaluation.batch_size, evaluation.check_images, evaluation.seed, evaluation.device, evaluation.weights) == (
                "custom", ("pgd-5", "mim-3"), (0.1,), "digits", 40, 20, 30, SEED, "cpu", "last")


@pytest.mark.parametrize(("flags", "words"), [
    (["--archs", "RACL", "--attacks", "pgd-1"], "protocol paper has attacks of its own"),
    (["--archs", "RACL", "--test_strengths", "0.1"], "protocol paper has attacks of its own"),
    (["--archs", "RACL", "--protocol", "rnas", "--attacks", "pgd-1"], "protocol rnas has attacks of its own"),
    (["--archs", "RACL", "--protocol", "custom", "--attacks", "pdg-1"], "pdg-1"),
    (["--archs", "RACL", "--protocol", "custom", "--attacks", "transfer"], "attacks contains transfer"),
    (["--archs", "RACL", "--protocol", "custom", "--test_strengths", "8"], "test_strengths are [8.0]; expected"),
    (["--archs", "RACL", "--split_seed", "4"], "split_seed is 4; a race splits by --seed"),
    (["--archs", "RACL", "--seeds", "0"], "seeds is 0; expected at least 1"),
    (["--archs", "RACL", "--layers", "0"], "layers is 0; expected at least 1"),
    (["--archs", "RACL", "--tolerance", "0"], "tolerance is 0; expected a share between 0 and 1"),
    (["--archs", "RACL", "--tolerance", "1"], "tolerance is 1; expected a share between 0 and 1"),
    (["--archs", "RACL", "--budget", "4.5M"], "budget is '4.5M'; expected params=NUMBER or macs=NUMBER"),
    (["--archs", "RACL", "--check_images", "5"], "check_images is 5; expected at least 30"),
    (["--archs", "RACL", "--epochs", "0"], "epochs is 0; expected at least 1"),
    (["--archs", "RACL", "--arch", "RACL"], "unknown argument '--arch'"),
])
def test_settings_that_make_no_race_are_told(flags, words):
    with pytest.raises(InputError) as caught:
        parse_race(flags)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_race_is_named_by_what_it_is():
    names = {parse_race(["--archs", "RACL", *flags])[0].name for flags in (
        [], ["--recipe", "strong"], ["--budget", "macs=700M"], ["--seed", "1"], ["--dataset", "digits"])}
    assert len(names) == 5 and "wsrnet-basic-cifar10-params4.5M-seed0" in names
    assert parse_race(["--archs", "RACL,PNAS", "--seeds", "5", "--tolerance", "0.1"])[0].name in names
    assert parse_race(["--archs", "RACL", "--save", "mine"])[0].name == "mine"


def test_without_held_out_images_there_are_only_last_weights():
    assert kept_weights(CompareConfig()) == ["best", "last"] and kept_weights(CompareConfig(held_out=0)) == ["last"]


# -- what is the same for all -----------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def loaders(tmp_path_factory):
    """By job, its training and its held-out batches, as training makes them."""
    config, _ = parse_race([*SMALL, "--archs", *ARCHS, "--seeds", "2"])
    data = load_dataset("digits", max_train=config.max_train, max_test=config.max_test, seed=config.seed)
    entrants = [replace(entrant, init_channels=2) for entrant in load_entrants(config.archs, 1, config.seed)]
    race = tmp_path_factory.mktemp("race")
    enter(race, entrants, config.seeds)
    return {(job.entrant.name, job.seed): small_images.make_loaders(job.config, data, World())
            for job in race_jobs(config, race, *entered(race))}


def test_all_trainings_have_the_same_images_and_hold_the_same_ones_out(loaders):
    assert set(loaders) == set(itertools.product(NAMES, (3, 4)))
    for part, count in ((0, 100), (1, 20)):
        sets = [loader[part].image_set for loader in loaders.values()]
        assert all(len(images) == count and images.fingerprint() == sets[0].fingerprint() for images in sets)


def test_entrants_of_one_seed_see_the_same_batches_and_other_seeds_others(loaders):
    def seen(name, seed):
        return [batch for epoch in range(2) for batch in loaders[name, seed][0].batches(epoch)]

    first, second, later = seen(NAMES[0], 3), seen(NAMES[1], 3), seen(NAMES[0], 4)
    assert len(first) == 4
    for (a, labels), (b, same), (c, _) in zip(first, second, later, strict=True):
        assert torch.equal(a, b) and torch.equal(labels, same) and not torch.equal(a, c)


# -- the whole program ------------------------------------------------------------------------------------------------

@pytest.mark.slow
def test_a_race_ends_with_everything_in_its_document(grown):
    """Against the jobs' own files, and networks built and counted here."""
    race = grown[1] / "runs" / "compare" / "race"
    values = stored(race)
    assert values["format"] == "wsrnas race 2" and values["name"] == "race" and values["complete"] is True
    assert (values["done"], values["jobs"], values["seeds"], values["images"]) == (4, 4, [3, 4], 40)
    assert values["budget"] == {"quantity": "params", "value": 1200.0, "tolerance": 0.9}
    assert (values["dataset"], values["recipe"], values["protocol"]) == ("digits", "tiny", "custom")
    assert values["config"]["epochs"] == 2 and values["config"]["seeds"] == 2 and values["command"]
    clean, attack = values["measures"]
    assert clean == {"name": "clean", "attack": None, "norm": None, "epsilon": 0.0}
    assert (attack["attack"], attack["norm"], attack["epsilon"]) == ("PGD-1", "linf", 0.1)
    assert [entrant["name"] for entrant in values["entrants"]] == list(NAMES)
    withstood = {}
    for entrant, layers in zip(values["entrants"], (1, None), strict=True):
        assert entrant["jobs"] == [f"retrain/{entrant['name']}-seed{seed}" for seed in (3, 4)]
        assert entrant["layers"] == layers and (entrant["genotype"] is None) == (layers is None)
        arch = race / "genotypes" / "random_1.json" if layers else "squeezenet"
        network = build_model(arch, 10, entrant["init_channels"], layers, "digits", 3)
        assert entrant["parameters"] == count_parameters(network)
        assert entrant["multiply_adds"] == multiply_adds(network, (3, 8, 8))
        assert entrant["activation_bytes"] > 0 and entrant["latency"]["seconds_one"] > 0
        for weights, name in (("best", "best"), ("last", "checkpoint")):
            results = [json.loads(next((race / job / "eval").glob(f"*-{name}.json")).read_text())
                       for job in entrant["jobs"]]
            for measure, rows in (("clean", [result["clean"] for result in results]),
                                  (attack["name"], [result["attacks"][0] for result in results])):
                flags = [[letter == "1" for letter in row["robust"]] for row in rows]
                withstood[entrant["name"], weights, measure] = flags
                accuracies = [statistics.fmean(row) for row in flags]
                assert entrant[weights][measure] == {
                    "values": accuracies, "mean": pytest.approx(statistics.fmean(accuracies)),
                    "deviation": pytest.approx(statistics.stdev(accuracies))}
    assert [(row["first"], row["second"], row["weights"], row["measure"]) for row in values["differences"]] == [
        (*NAMES, weights, measure) for weights in ("best", "last") for measure in ("clean", attack["name"])]
    for row in values["differences"]:
        one, another = (withstood[name, row["weights"], row["measure"]] for name in NAMES)
        assert row["values"] == pytest.approx([statistics.fmean(a) - statistics.fmean(b)
                                               for a, b in zip(one, another, strict=True)])


@pytest.mark.slow
def test_a_table_and_a_page_are_written_beside_it(late, capsys):
    race = start(late, pages=True)
    said = capsys.readouterr().out
    table = (race / "race.md").read_text()
    assert table in said and "report: runs/compare/race/report.html" in said
    assert "random_1 − squeezenet" in table and "Last weights" in table and "mean ± standard deviation over 2" in table
    page = (race / "report.html").read_text()
    assert all(name in page for name in NAMES)
    power = stored(race)["power"]
    assert (power["seeds"], power["images"], power["measured"]) == (2, 40, False)  # at chance, which tells nothing
    assert power["summary"] in table
    (chance,) = stored(race)["against_random"]
    assert (chance["entrant"], chance["random"]) == ("squeezenet", 1) and chance["summary"] in table


@pytest.mark.slow
def test_every_job_is_an_ordinary_run(grown, monkeypatch, capsys):
    monkeypatch.chdir(grown[1])
    monkeypatch.setattr("retrain.construction.mend", lambda *_: None)  # these runs have no pages
    race = Path("runs/compare/race")
    before = files(race)
    for entrant in stored(race)["entrants"]:
        for job in entrant["jobs"]:
            train_cifar.main(["--config", f"{race}/{job}/config.json"])
            assert capsys.readouterr().out.startswith(f"{race}/{job} is finished (--overwrite starts again")
            network, description = load_model(race / job / "best.pt")
            assert count_parameters(network) == entrant["parameters"] and description["dataset"] == "digits"
    assert files(race) == before


@pytest.mark.slow
def test_a_second_seed_leaves_the_first_as_it_was(grown):
    early, late = (files(place / "runs" / "compare" / "race") for place in grown)
    kept = {name for name in early if name.split("/")[0] in ("retrain", "inputs.json")}
    assert any(name.endswith("random_1-seed3/checkpoint.pt") for name in kept)
    assert {name for name in kept if early[name] != late[name]} == set()
    assert {name.split("/")[1] for name in set(late) - set(early)} == {f"{name}-seed4" for name in NAMES}
    one, two = (stored(place / "runs" / "compare" / "race") for place in grown)
    assert one["complete"] and (one["jobs"], one["seeds"]) == (2, [3])
    for before, after in zip(one["entrants"], two["entrants"], strict=True):
        assert before["latency"] == after["latency"]  # measured once
        for weights in ("best", "last"):
            assert all(row["values"] == after[weights][measure]["values"][:1] and row["deviation"] is None
                       for measure, row in before[weights].items())


@pytest.mark.slow
def test_an_entrant_added_later_is_the_only_one_trained(grown, tmp_path, monkeypatch):
    """It comes from a file; the others' results and costs stay in the document, also while it is trained."""
    shutil.copytree(grown[0], tmp_path, dirs_exist_ok=True)
    genotypes.load("cna_m").save(tmp_path / "my cell.json")
    race = tmp_path / "runs" / "compare" / "race"
    before, first = files(race), stored(race)
    keep, documents = compare.keep_document, []
    monkeypatch.setattr(compare, "keep_document", lambda race, values: (documents.append(values), keep(race, values)))
    start(tmp_path, archs=("my cell.json", *ARCHS), seeds=1)
    after, values = files(race), stored(race)
    assert all(after[name] == before[name] for name in before if name.startswith("retrain/"))
    assert all(after[name][0] == before[name][0] for name in before if name.startswith("genotypes/"))
    assert {name.split("/")[1] for name in set(after) - set(before)} == {"my-cell.json", "my-cell-seed3"}
    assert values["complete"] and [entrant["name"] for entrant in values["entrants"]] == [*NAMES, "my-cell"]
    assert [(document["complete"], document["done"]) for document in documents] == [(False, 2), (True, 3), (True, 3)]
    assert documents[0]["entrants"][:2] == first["entrants"] == documents[1]["entrants"][:2]
    for entrant, known in zip(values["entrants"], first["entrants"], strict=False):
        assert entrant.pop("latency") and known.pop("latency") and entrant == known  # times are taken in turns, anew
    assert [row for row in values["differences"] if row["second"] != "my-cell"] == first["differences"]
    assert {(row["first"], row["second"]) for row in values["differences"]} == set(
        itertools.combinations((*NAMES, "my-cell"), 2))
    assert values["entrants"][2]["latency"] and values["entrants"][2]["source"] == "my cell.json"
    genotypes.load("cna_n").save(tmp_path / "my cell.json")
    said = fails(tmp_path, archs=("my cell.json", *ARCHS), seeds=1)
    assert "my-cell (my cell.json) has changed since it entered the race in runs/compare/race" in said


@pytest.mark.slow
def test_the_same_command_again_only_reports(late, monkeypatch, capsys):
    for module, name in ((jobs_module, "train"), (jobs_module, "evaluate")):
        monkeypatch.setattr(module, name, None)
    before = contents(late)
    race = start(late)
    after = contents(late)
    written = {"race.json", "race.md", "costs.json"}
    assert set(after) == set(before)
    assert {name.rsplit("/")[-1] for name in after if after[name] != before[name]} <= written
    assert outcome(race) == outcome(race) and (race / "race.md").read_text() in capsys.readouterr().out


@pytest.mark.slow
def test_without_selection_a_race_has_last_weights_alone(tmp_path):
    race = start(tmp_path, "--held_out", "0", "--epochs", "1", archs=("squeezenet",), seeds=1)
    values = stored(race)
    entrant, = values["entrants"]
    assert values["complete"] and entrant["best"] is None and entrant["last"]["clean"]["values"]
    assert values["differences"] == [] and "Best weights" not in (race / "race.md").read_text()


# -- stopped, killed and shared ---------------------------------------------------------------------------------------

@pytest.mark.slow
def test_weights_that_are_best_and_last_are_attacked_once(tmp_path, monkeypatch):
    attacked = []

    def noted(config, subject, *arguments, **keywords):
        attacked.append(subject.name)
        return retrain.evaluate_network.evaluate(config, subject, *arguments, **keywords)
    monkeypatch.setattr(jobs_module, "evaluate", noted)
    race = start(tmp_path, "--epochs", "1", seeds=1)  # the first epoch is both
    values = stored(race)
    assert attacked == [f"{name}-seed{SEED} best" for name in NAMES] and values["complete"]
    for entrant in values["entrants"]:
        assert entrant["best"] == entrant["last"] is not None
    before = files(race / "retrain")
    start(tmp_path, "--epochs", "1", seeds=1)
    assert len(attacked) == 2 and files(race / "retrain") == before


@pytest.mark.parametrize("more", [(), ("--dry_run",), ("--overwrite",)])
def test_a_race_without_entrants_is_refused(more, tmp_path):
    assert "the race has no entrants; pass --archs" in fails(tmp_path, *more, archs=(",",))


@pytest.mark.slow
def test_who_has_entered_need_not_be_named_again(late, monkeypatch):
    before = files(late / "runs" / "compare" / "race" / "retrain")
    race = start(late, archs=(",",))
    values = stored(race)
    assert [entrant["name"] for entrant in values["entrants"]] == list(NAMES) and values["complete"]
    assert files(race / "retrain") == before
    assert "the race has no entrants" in fails(late, "--overwrite", archs=(",",))


@pytest.mark.slow
def test_a_job_that_fails_is_named_and_the_others_are_told(tmp_path, monkeypatch, capsys):
    def failing(config, data, world):
        if config.save.startswith("squeezenet"):
            raise InputError("the training loss is nan")
        small_images.train(config, data, world)
    monkeypatch.setattr(jobs_module, "train", failing)
    with pytest.raises(InputError, match=r"1 of 2 jobs failed; .*: squeezenet-seed3: the training loss is nan"):
        start(tmp_path, seeds=1)
    race = tmp_path / "runs" / "compare" / "race"
    values, table = stored(race), (race / "race.md").read_text()
    assert not values["complete"] and (values["done"], values["jobs"]) == (1, 2)
    assert values["failed"] == {"squeezenet-seed3": "the training loss is nan"}
    assert table.startswith("**1 of 2 jobs are done.** squeezenet-seed3 failed: the training loss is nan.\n\n"
                            "**No leader:** random_1 ranks first, but its clean accuracy is not above chance.")
    assert "one seed" in table and "| random_1 |" in table and "| squeezenet |" not in table.split("**Cost**")[0]
    monkeypatch.setattr(jobs_module, "train", small_images.train)
    values = stored(start(tmp_path, seeds=1))
    assert values["complete"] and values["failed"] == {}


class Killed(BaseException):
    """As sudden as a kill: nothing in the program may catch it."""


def signalled():
    os.kill(os.getpid(), signal.SIGTERM)


def killed():
    raise Killed


# Where a start ends: in which call of what, how, before or after it, and what is said then.
ENDS = [
    (retrain.retraining, "train_epoch", 2, killed, "before", ""),
    (Trainer, "step", 1, signalled, "before", "stopped after step 1/2 of epoch 2/2"),
    (jobs_module, "evaluate", 2, killed, "before", ""),
    (Evaluation, "clean", 1, signalled, "before", "random_1-seed3 last: stopped during clean"),
    (attack_table, "pgd", 1, signalled, "before", "stopped before squeezenet-seed3"),
    (RunDirectory, "finish", 1, killed, "after", ""),
    (attack_table, "pgd", 1, killed, "before", ""),
    (retrain.evaluate_network, "store", 1, killed, "after", ""),  # before the honesty checks
    (compare, "keep_document", 1, killed, "before", ""),
    (jobs_module, "train", 1, signalled, "after", "random_1-seed4 best: stopped during clean"),
    (jobs_module, "make_subjects", 2, signalled, "after", "random_1-seed4 last: stopped during clean"),
    (compare, "keep_document", 1, signalled, "before", "stopped before squeezenet-seed4"),
    (compare, "write_costs", 1, killed, "before", ""),
    (compare, "write_costs", 1, killed, "after", ""),
]


@pytest.mark.slow
def test_ended_again_and_again_equals_never_ended(grown, tmp_path):
    """The same race in another folder, ended by signals and kills within each kind of work."""
    document, standings = tmp_path / "runs" / "compare" / "race" / "race.json", set()
    for module, name, call, end, when, words in ENDS:
        original, calls = getattr(module, name), []

        def ending(*arguments, original=original, calls=calls, call=call, end=end, when=when, **keywords):
            calls.append(name)  # noqa: B023 - called here
            now = len(calls) == call
            if now and when == "before":
                end()
            result = original(*arguments, **keywords)
            if now and when == "after":
                end()
            return result

        said, left = [], []

        def leave(code, left=left):  # at once, where no step was complete yet
            left.append(code)
            raise SystemExit(code)

        with pytest.MonkeyPatch.context() as context, pytest.raises((Killed, SystemExit)) as caught:
            context.setattr(module, name, ending)
            context.setattr("wsrnas.runtime.preemption.os._exit", leave)  # private: it would end the tests
            context.setattr("wsrnas.runtime.program.say", said.append)
            run_program(lambda: start(tmp_path))
        assert len(calls) >= call
        assert caught.type is Killed if end is killed else caught.value.code == STOPPED
        assert said == ([f"{words}; the same command resumes"] if end is signalled and not left else [])
        if document.exists():
            values = json.loads(document.read_text())
            standings.add((values["done"], values["jobs"], values["complete"]))
    assert standings == {(1, 4, False), (3, 4, False), (4, 4, True)}
    assert outcome(start(tmp_path)) == outcome(grown[1] / "runs" / "compare" / "race")


@pytest.mark.slow
def test_two_processes_at_once_share_the_jobs(grown, tmp_path, monkeypatch):
    train, context = jobs_module.train, multiprocessing.get_context("fork")

    def noted(config, *arguments):
        with open(tmp_path / "trained", "a") as file:
            file.write(f"{config.save} {os.getpid()}\n")
        wait_for(lambda: len(set(lines(1))) == 2)  # nobody does all before the other has begun
        train(config, *arguments)

    def lines(column):
        return [line.split()[column] for line in (tmp_path / "trained").read_text().splitlines()]

    monkeypatch.setattr(jobs_module, "train", noted)
    processes = [context.Process(target=start, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert sorted(lines(0)) == sorted(f"{name}-seed{seed}" for name in NAMES for seed in (3, 4))
    assert outcome(tmp_path / "runs" / "compare" / "race") == outcome(grown[1] / "runs" / "compare" / "race")


@pytest.mark.slow
def test_a_process_leaves_what_another_holds_to_it(late, capsys):
    """The other one concludes: this one writes nothing."""
    race = late / "runs" / "compare" / "race"
    for path in (race / "retrain" / "squeezenet-seed4" / "eval").glob("*-best.json"):
        path.unlink()
    before = contents(late)
    context = multiprocessing.get_context("fork")
    held, done = context.Event(), context.Event()

    def hold():
        with compare.alone(race / "claims", "squeezenet-seed4"):
            held.set()
            done.wait(PATIENCE)

    process = context.Process(target=hold)
    process.start()
    try:
        assert held.wait(PATIENCE)
        start(late)
    finally:
        done.set()
        process.join()
    assert "jobs: 1 with other processes (squeezenet-seed4)" in capsys.readouterr().out and contents(late) == before


# -- refused ----------------------------------------------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.parametrize(("more", "words"), [
    (["--epochs", "3"], "(epochs: 2 -> 3)"),
    (["--num_steps", "2", "--max_train", "130"], "(max_train: 120 -> 130; num_steps: 1 -> 2)"),
    (["--seed", "4"], "seed: 3 -> 4"), (["--budget", "params=1.3k"], "budget: params=1.2k -> params=1.3k"),
    (["--layers", "2"], "layers: 1 -> 2"),
])
def test_another_race_in_the_same_folder_is_refused_by_what_differs(more, words, grown):
    said = fails(grown[1], *more)
    assert "runs/compare/race holds a run of another configuration" in said and words in said and "--overwrite" in said


def changed(part):
    """``load_dataset_once`` with another pixel in a part of the data."""
    def other(*arguments, load=compare.load_dataset_once, **keywords):
        data = load(*arguments, **keywords)
        images = getattr(data, part).images.clone()
        images[0, 0, 0, 0] ^= 1
        return replace(data, **{part: ImageSet(images, getattr(data, part).labels)})
    return other


@pytest.mark.slow
def test_other_training_images_are_refused(grown, monkeypatch):
    monkeypatch.setattr(compare, "load_dataset_once", changed("train"))
    assert "runs/compare/race was made from other inputs (data set)" in fails(grown[1])


@pytest.mark.slow
def test_what_changes_no_result_may_differ(late, monkeypatch):
    monkeypatch.setattr(jobs_module, "train", None)
    expected = outcome(late / "runs" / "compare" / "race")[1]
    race = start(late, "--tolerance", "0.8", "--report_freq", "7", archs=("squeezenet",), seeds=1)
    assert outcome(race)[1] == expected
    assert [entrant["name"] for entrant in stored(race)["entrants"]] == list(NAMES)  # who has entered stays
    assert stored(race)["seeds"] == [3, 4] and stored(race)["complete"]


@pytest.mark.slow
def test_another_protocol_measures_the_same_trainings(early, monkeypatch):
    monkeypatch.setattr(jobs_module, "train", None)
    before = files(early)
    race = start(early, "--attacks", "fgsm", "--test_strengths", "0.05", seeds=1)
    values, after = stored(race), files(early)
    assert values["complete"] and [measure["epsilon"] for measure in values["measures"]] == [0.0, 0.05]
    assert all(len(entrant[weights]["clean"]["values"]) == 1 for entrant in values["entrants"]
               for weights in ("best", "last"))
    assert all(after[name] == before[name] for name in before if "/retrain/" in name and "chunks" not in name)


@pytest.mark.slow
def test_other_test_images_are_measured_anew(early, monkeypatch):
    def image_sets(race):
        return {json.loads(path.read_text())["image_set"] for path in race.glob("retrain/*/eval/*.json")}

    monkeypatch.setattr(jobs_module, "train", None)
    own = image_sets(early / "runs" / "compare" / "race")
    with monkeypatch.context() as context:
        context.setattr(compare, "load_dataset_once", changed("test"))
        race = start(early, seeds=1)
        assert stored(race)["complete"] and len(image_sets(race) - own) == 1
    both = image_sets(race)
    start(early, seeds=1)
    assert stored(race)["complete"] and own < both == image_sets(race)  # neither replaces the other


@pytest.mark.slow
def test_a_training_that_is_there_with_another_configuration_is_refused(late):
    path = late / "runs" / "compare" / "race" / "retrain" / "squeezenet-seed4" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"weight_decay": 0.25}))
    said = fails(late)
    assert "squeezenet-seed4 holds a run of another configuration (weight_decay: 0.25 -> 0.0005)" in said


@pytest.mark.slow
def test_overwriting_moves_the_old_race_aside(late, monkeypatch):
    monkeypatch.setattr(compare, "share", lambda *_, **__: False)
    before = files(late / "runs" / "compare" / "race")
    race = start(late, "--epochs", "3", "--overwrite")
    assert files(race.with_name("race.old1")) == before
    assert json.loads((race / "config.json").read_text())["epochs"] == 3 and not (race / "retrain").exists()


@pytest.mark.slow
def test_costs_are_those_of_the_entrant_and_not_of_another_network_of_its_name(late):
    race = late / "runs" / "compare" / "race"
    costs = json.loads((race / "costs.json").read_text())
    costs[NAMES[0]] |= {"network": [1, 2, 3, 4], "activation_bytes": 5}
    (race / "costs.json").write_text(json.dumps(costs))
    assert stored(start(late))["entrants"][0]["activation_bytes"] != 5


@pytest.mark.parametrize("damage", [{"init_channels": "3"}, {"arch": "nonesuch"}, {"layers": 2.5}])
def test_a_list_of_entrants_with_what_is_none_is_one_sentence(damage, late):
    path = late / "runs" / "compare" / "race" / "entrants.json"
    values = json.loads(path.read_text())
    values["entrants"][0] |= damage
    path.write_text(json.dumps(values))
    assert "entrants.json is damaged; remove it, and name all entrants again" in fails(late)


def test_damaged_costs_are_measured_again(late):
    race = late / "runs" / "compare" / "race"
    expected = outcome(race)
    (race / "costs.json").write_text("{")
    assert outcome(start(late)) == expected and set(json.loads((race / "costs.json").read_text())) == set(NAMES)


@pytest.mark.slow
def test_a_dry_run_writes_nothing_and_counts(tmp_path, capsys):
    start(tmp_path, "--dry_run")
    said = capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    # A batch of 50 twice an epoch, two epochs; one step of the attack and one of the training.
    assert "data: 100 training images (3, 8, 8), 20 held out, 40 test images" in said
    assert "jobs: 4, each of 2 epochs of 2 batches: 400 images forward and backward, 0 forward" in said
    assert "entrant random_1    init_channels 2, 1 layers" in said
    assert "entrant squeezenet  init_channels 3, own depth, 1.331k parameters" in said
    assert f"power: {power(planned(2, 2, 40), Noise())['summary']}" in said


@pytest.mark.parametrize("dry", slow_after(1, [[], ["--dry_run"]]), ids=["run", "dry run"])
@pytest.mark.parametrize(("more", "archs", "words"), [
    ((), (",",), "the race has no entrants"),
    ((), ("RACL", "squeezent"), "unknown architecture 'squeezent'; did you mean squeezenet?"),
    ((), ("DSRNA",), "DSRNA cannot be built"),
    (("--budget", "params=1.2"), ("squeezenet",), "squeezenet comes nearest with 371"),
    (("--budget", "1.2k"), ("squeezenet",), "budget is '1.2k'"),
    (("--batch_size", "101"), ARCHS, "the training batch size is 101, expected at most 100"),
    (("--held_out", "5"), ARCHS, "cannot split 5 of 120 images off"),
    (("--max_train", "5"), ARCHS, "5"),
    (("--accumulation", "3"), ARCHS, "batch_size is 50"),
    (("--drop_path", "0.1"), ARCHS, "drop_path is 0.1, but squeezenet has none"),
])
def test_bad_input_is_told_before_anything_is_made(more, archs, words, dry, tmp_path):
    assert words in fails(tmp_path, *more, *dry, archs=archs)
    assert not list(tmp_path.iterdir())
