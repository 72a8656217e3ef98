"""``search.ranking``: rows against a measurement by hand, resuming, sharing, refusing, and what it writes."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import scipy
import torch
import torch.nn.functional as F

import search.ranking
import search.wsr_nas
from search.ranking import main
from search.rankings import inherited as inherited_module
from search.rankings import rows as rows_module
from search.rankings.scores import mean
from search.rankings.trained import open_trained
from search.spaces import SPACES
from search.training_free import TRAINING_FREE
from tests.processes import copies
from tests.search.small_ranking import GRAPHS, RUN, RUN_SEED, SEED, arguments, results, rows
from wsrnas.attacks import attack_mode, pgd
from wsrnas.data.loader import BatchLoader
from wsrnas.data.splits import balanced_subset
from wsrnas.evaluation.vulnerability import network_vulnerability
from wsrnas.report.html import escape
from wsrnas.report.ranking import SECTIONS
from wsrnas.report.reading.rankings import answers, meaning, questions, shown
from wsrnas.report.sections import Folded
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import Preempted
from wsrnas.runtime.program import run_program
from wsrnas.training.batch_norm import recalibrate_batch_norm

pytestmark = pytest.mark.usefixtures("quick_programs")

SPACE = SPACES["nas-bench-201"]


@pytest.fixture
def rank(trained, table, tmp_path):
    """Run the program and return the folder of its results."""
    def run(*argv, save="ranked") -> Path:
        main(arguments(trained, table, tmp_path, save, *argv))
        return tmp_path / "ranking" / save
    return run


# ---- what is measured ----------------------------------------------------------------------------------------


def test_a_row_is_what_the_path_of_that_architecture_loses(rank, trained, table):
    folder = rank("--measure", "supernet", "--recalibration_batches", "2")
    row = json.loads(rows(folder)["supernet-0000.jsonl"].splitlines()[0])
    run = open_trained(trained, "")
    choices = search.ranking.open_table(str(table)).choices[row["place"]]
    supernet = run.build(True, torch.device("cpu"))
    supernet.use(SPACE.gates(choices).view(SPACE.shape))
    train, validation = (run.data.train.subset(indices) for indices in run.split)
    loader = BatchLoader(train, 15, RUN_SEED, "recalibration", shuffle=True, augment=run.data.augmentation,
                         drop_last=True)
    recalibrate_batch_norm(supernet, list(loader.batches())[:2], World())
    chosen = validation.subset(balanced_subset(validation.labels, 20, SEED, "images", 10))
    (images, labels), = BatchLoader(chosen, 100, SEED, "ranking images", shuffle=True).batches()
    maps: list[list[torch.Tensor]] = [[], [], []]
    noisy = [images, *(pgd(supernet, images, labels, strength, steps=2) for strength in (0.05, 0.1))]
    with attack_mode(supernet), torch.no_grad():
        logits = [supernet(version, outputs) for version, outputs in zip(noisy, maps, strict=True)]
        losses = [float(F.cross_entropy(found, labels)) for found in logits]
        distorted = [float(network_vulnerability(maps[0], other)) for other in maps[1:]]
    assert row["losses"] == pytest.approx(losses, rel=1e-4)
    assert row["accuracies"] == pytest.approx([float((found.argmax(1) == labels).float().mean()) for found in logits])
    assert row["vulnerabilities"] == pytest.approx(distorted, rel=1e-3)


def test_results_name_every_score_and_every_column(rank):
    values = results(rank("--strengths", "0.05", "0.1", "0.15", "0.2"))  # those of the run
    assert values["columns"] == ["clean", "pgd_3", "pgd_8", "mean"] and values["architectures"] == GRAPHS
    names = [(entry["group"], entry["score"]) for entry in values["scores"]]
    assert ("supernet", "objective") in names and ("untrained", "loss, clean") in names
    assert ("supernet", "vulnerability F, at 0.05") in names and ("size", "parameters") in names
    assert {name for group, name in names if group == "training-free"} == set(TRAINING_FREE)
    assert len(values["values"]["scores"]) == len(names) and len(values["values"]["scores"][0]) == GRAPHS
    losses = next(entry for entry in values["scores"] if entry["score"] == "loss, mean")
    tau, low, high = losses["tau"]["all"]["mean"]
    assert -1 <= low <= tau <= high <= 1 and list(losses["rho"]) == ["all", "best fifth", "fixed size"]
    assert values["scores"][names.index(("size", "parameters"))]["tau"]["fixed size"]["clean"] is None


def test_sums_of_ranks_count_low_losses_high_vulnerabilities_and_parameters(rank):
    values = results(rank("--measure", "supernet"))
    found = {(entry["group"], entry["score"]): scores
             for entry, scores in zip(values["scores"], values["values"]["scores"], strict=True)}
    ranks = {name: scipy.stats.rankdata(scores) for name, scores in {
        "loss, clean": found["supernet", "loss, clean"], "parameters": found["size", "parameters"],
        "high F": [-value for value in found["supernet", f"vulnerability F, at {values['strengths'][-1]:g}"]]}.items()}
    sums = {name: scores for (group, name), scores in found.items() if group == "sum of ranks"}
    assert set(sums) == {"loss, clean + high F", "loss, clean + parameters", "high F + parameters",
                         "loss, clean + high F + parameters"}
    for name, scores in sums.items():
        assert scores == list(sum(ranks[part] for part in name.split(" + ")))


def test_trained_and_untrained_weights_differ(rank):
    both = rows(rank("--measure", "supernet", "untrained"))
    assert both["supernet-0000.jsonl"] != both["untrained-0000.jsonl"]
    assert len(both) == 4 and both["supernet-0001.jsonl"].count("\n") == GRAPHS - rows_module.PART


def test_a_search_on_a_trained_supernet_ranks_as_that_supernet_does(rank, trained, tmp_path):
    search.wsr_nas.main([*RUN, "--supernet", str(trained), "--seed", "7", "--runs", str(tmp_path)])
    few = "--sample", "10", "--measure", "supernet", "untrained"
    found = rank("--run", str(tmp_path / "search" / "run"), *few, save="searched")
    assert rows(found) == rows(rank(*few))


def test_a_good_score_has_a_positive_correlation(rank, monkeypatch, table):
    known = search.ranking.open_table(str(table))

    def truth(bench, trained=True):
        def measured(choices, stop):
            loss = float(known.lookup(choices[None]).mean())
            return {"losses": [loss] * 3, "accuracies": [1 - loss / 100] * 3, "vulnerabilities": [loss] * 2}
        return measured

    entry = search.ranking.MEASUREMENTS["supernet"]
    monkeypatch.setitem(search.ranking.MEASUREMENTS, "supernet", dataclasses.replace(entry, build=truth))
    for score in results(rank("--measure", "supernet"))["scores"]:
        if score["group"] == "supernet":
            assert score["tau"]["all"]["mean"][0] == pytest.approx(1), score["score"]


# ---- what is said --------------------------------------------------------------------------------------------


def test_the_page_and_the_table_show_what_the_file_holds(rank, capsys):
    folder = rank("--measure", "supernet")
    said, values = capsys.readouterr().out, results(folder)
    head = (folder / "report.html").read_text()
    assert f"{GRAPHS} architectures of few ranked by" in head
    started, ended = (folder / "log.txt").read_text().splitlines()
    assert f"supernet of {GRAPHS} architectures" in started and str(folder / "report.html") in ended
    assert (folder / "FINISHED").read_text().strip() in ended
    parts = {section.title: section.content(values) for section in SECTIONS}
    drawn = parts["Rank correlations"][0]
    assert len(drawn.rows) == 3 * len(values["scores"])
    entry = next(entry for entry in values["scores"] if entry["score"] == "loss, clean")
    assert drawn.rows[0] == ["supernet", "loss, clean", "all", *entry["tau"]["all"]["mean"]]
    scatter, = parts["Scores and true accuracies"]
    assert len(scatter.rows) == GRAPHS and scatter.header[-1] == "size: parameters"
    value = shown(entry["tau"]["fixed size"]["pgd_8"])
    texts = [part.parts[0] for part in parts["Rank correlations"][2:] if isinstance(part, Folded)]
    assert any(value in text and "fixed size" in text for text in texts)
    assert f"| supernet: loss, clean | {shown(entry['tau']['all']['mean'])} |" in said
    for sentence in answers(values):
        assert sentence in said and sentence in (folder / "ranking.md").read_text()
    table = parts["Does a low vulnerability predict robustness?"][1]
    for strength, column, two in questions(values):
        assert all(word in table for word in (strength, column, *map(shown, two), *map(escape, map(meaning, two))))


def test_the_answer_about_the_vulnerability_follows_the_interval():
    def answer(*value):
        tau = {"all": {"clean": None, "pgd": list(value), "mean": None}, "fixed size": {"pgd": None}}
        return answers({"columns": ["clean", "pgd", "mean"],
                        "scores": [{"group": "supernet", "score": "vulnerability F, at 0.03", "tau": tau}]})

    sentence, = answer(0.3, 0.1, 0.4)
    assert sentence == ("Does a low F at 0.03 predict the accuracy pgd? Among all architectures: yes (τ +0.30 [+0.10, "
                        "+0.40]); at fixed size: nothing can be said, because all values are equal (τ –).")
    assert "a high F goes with a high accuracy" in answer(-0.3, -0.4, -0.1)[0]
    assert "not that it could be told apart from chance" in answer(0.3, -0.1, 0.5)[0]


# ---- resuming and sharing ------------------------------------------------------------------------------------


class Killed(BaseException):
    """As sudden as a kill."""


def test_an_interrupted_ranking_ends_with_the_same_rows(rank, monkeypatch, capsys):
    whole = rank("--measure", "supernet", save="whole")

    def dying(*arguments, calls=[0], original=inherited_module.measure):  # noqa: B006 - a counter
        calls[0] += 1
        if calls[0] in (5, 9):
            raise Killed if calls[0] == 5 else Preempted("asked")
        return original(*arguments)

    with monkeypatch.context() as context:
        context.setattr(inherited_module, "measure", dying)
        with pytest.raises(Killed):
            rank("--measure", "supernet")
        part = whole.parent / "ranked" / "rows" / "supernet-0000.jsonl"
        assert part.read_text().count("\n") == 4
        part.write_text(part.read_text() + '{"place": 3, "los')  # the write was cut off
        with pytest.raises(Preempted):
            rank("--measure", "supernet")
        assert part.read_text().count("\n") == 7
    resumed = rank("--measure", "supernet")
    assert rows(resumed) == rows(whole)
    assert results(resumed)["scores"] == results(whole)["scores"]
    capsys.readouterr()
    monkeypatch.setattr(inherited_module, "measure", dying)
    rank("--measure", "supernet")
    assert "finished before" in capsys.readouterr().out


def test_a_larger_sample_has_the_smaller_one(rank):
    few = rank("--measure", "supernet", "--sample", "10")
    assert results(few)["architectures"] == 10
    before = rows(few)
    every = rank("--measure", "supernet")
    assert results(every)["architectures"] == GRAPHS
    assert rows(every)["supernet-0000.jsonl"] == before["supernet-0000.jsonl"]


def test_another_truth_is_correlated_anew_and_a_page_that_is_gone_is_written(rank, trained, table, tmp_path, capsys):
    folder = rank("--measure", "supernet")
    measured, before = rows(folder), results(folder)
    (folder / "report.html").unlink()
    rank("--measure", "supernet")
    assert "finished before" in capsys.readouterr().out and (folder / "report.html").is_file()
    corrected = json.loads(table.read_text())
    corrected["results"] = [[1 - accuracy for accuracy in row] for row in corrected["results"]]
    (tmp_path / "few.json").write_text(json.dumps(corrected))  # the same name, other accuracies
    main(arguments(trained, tmp_path / "few.json", tmp_path, "ranked", "--measure", "supernet"))
    after = results(folder)
    assert "finished before" not in capsys.readouterr().out and rows(folder) == measured
    assert after["values"]["truth"]["clean"] == pytest.approx([100 - v for v in before["values"]["truth"]["clean"]])
    (tmp_path / "other.json").write_text(table.read_text())  # the same accuracies, another name
    main(arguments(trained, tmp_path / "other.json", tmp_path, "ranked", "--measure", "supernet"))
    assert results(folder)["table"] == "other"


@pytest.mark.parametrize("line", ['{"place": 0, "losses": "abc"}', '{"place": 0, "losses": [1.0, "x"]}'])
def test_a_row_of_anything_but_numbers_is_damaged(line, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"place": 1, "losses": [1.0, null]}\n' + line + "\n")
    assert list(rows_module.read_rows(tmp_path / "rows.jsonl")) == [1]


def test_equal_means_stay_equal():
    hits = np.array([[3, 1, 7], [7, 3, 1], [1, 7, 3], [3, 7, 1]]) / 40
    assert len({float(value) for value in mean(hits)}) == 1


def test_a_budget_leaves_the_architectures_of_about_one_cost(rank, table):
    every = results(rank("--measure", "untrained"))
    sizes = every["values"]["parameters"]
    near = sorted(abs(size / sizes[0] - 1) for size in sizes)
    last = next(place for place in range(9, GRAPHS - 1) if near[place] < near[place + 1])
    tolerance = (near[last] + near[last + 1]) / 2
    few = results(rank("--measure", "untrained", "--budget", f"params={sizes[0]}", "--budget_tolerance",
                       str(tolerance), save="few"))
    assert few["architectures"] == few["available"] == last + 1
    there = few["values"]["place"]
    assert few["values"]["in_file"] == there  # graphs keep the order of the file
    assert set(there) == {place for place, size in zip(every["values"]["place"], sizes, strict=True)
                          if abs(size / sizes[0] - 1) <= tolerance}


@pytest.mark.slow
def test_two_processes_share_the_architectures(rank, trained, table, tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module, "PART", 2)
    what = "--measure", "supernet", "untrained"
    processes = [copies().Process(target=main, args=(arguments(trained, table, tmp_path, "both", *what),))
                 for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
    assert [process.exitcode for process in processes] == [0, 0]
    alone = rank(*what)
    assert rows(tmp_path / "ranking" / "both") == rows(alone)
    assert results(tmp_path / "ranking" / "both")["scores"] == results(alone)["scores"]


# ---- refusing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("argv", "words"), [
    (["--run", "nowhere"], ["--run is nowhere; expected the run directory of a search"]),
    (["--run", ""], ["pass --run"]),
    (["--table", ""], ["pass --table"]),
    (["--table", "nowhere.json"], ["nowhere.json"]),
    (["--sample", "5"], ["sample is 5", "at least 10"]),
    (["--sample", "15"], ["sample is 15", "14 different"]),
    (["--images", "5"], ["images is 5", "at least 10"]),
    (["--strengths", "0.1", "0.1"], ["strengths contains 0.1 twice"]), (["--seed", "-1"], ["seed is -1; expected"]),
    (["--columns", "autoattack"], ["no column 'autoattack'"]),
    (["--measure", "luck"], ["luck", "supernet"]),
    (["--measure", "short", "--short_images", "12"], ["batch size is 15", "at most 12"]),
    (["--measure", "short", "--short_images", "5"], ["short_images is 5", "at least 10"]),
    (["--short_learning_rate", "-1"], ["short_learning_rate is -1"]),
    (["--budget", "params=lots"], ["budget is 'params=lots'"]),
    (["--budget", "params=1"], ["budget is params=1", "no such architecture", "params go from ", "nearest to it is "]),
    (["--budget", "params=1", "--budget_tolerance", "2"], ["budget_tolerance is 2"]),
])
def test_bad_input_is_one_sentence(argv, words, trained, table, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        run_program(lambda: main([*arguments(trained, table, tmp_path, "ranked"), *argv]))
    said = capsys.readouterr().err
    assert caught.value.code == 2 and said.startswith("error: ") and said.count("\n") == 1
    assert all(word in said for word in words), said
    assert not (tmp_path / "ranking").exists()


def test_another_space_and_another_measurement_are_refused(rank, trained, table, tmp_path, capsys):
    cells = tmp_path / "cells.json"
    cells.write_text(json.dumps({"cells": [{"genotype": json.loads(SPACES["darts"].decode(
        torch.arange(28) % 7 + 1).to_json()), "clean": 80.0, "pgd": 40.0}]}))
    for argv, words in ((["--table", str(cells)], "table of darts"), (["--num_steps", "1"], "num_steps: 2 -> 1")):
        if "--num_steps" in argv:
            rank("--measure", "supernet")
        with pytest.raises(SystemExit) as caught:
            run_program(lambda argv=argv: main([*arguments(trained, table, tmp_path, "ranked"), *argv]))
        assert caught.value.code == 2 and words in capsys.readouterr().err


def test_a_dry_run_says_what_it_costs_and_writes_nothing(rank, capsys, tmp_path):
    rank("--dry_run")  # 20 images; two strengths of PGD-2 share the first of their passes
    out = capsys.readouterr().out
    assert "supernet: 60 images forward and backward and 75 forward for each architecture" in out
    assert not (tmp_path / "ranking").exists()
