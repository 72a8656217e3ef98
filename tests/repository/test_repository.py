"""The repository as a whole: who imports whom, the scripts and their published command lines, no path of a machine."""

import ast
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import torch

import genotypes
import retrain.evaluate
import retrain.export
import retrain.race.settings
import retrain.recipes
import retrain.train_cifar
import search.rnas
import search.wsr_nas
import test_AN_estimator.settings
from retrain.recipes import RetrainConfig
from retrain.vulnerability.settings import VulnerabilityConfig
from search.rankings.settings import RankingConfig
from search.rnas_settings import RnasConfig
from search.tabular_settings import TabularConfig
from search.wsr_nas_settings import SearchConfig
from test_AN_estimator.settings import BenchmarkConfig
from tests.processes import PATIENCE
from tests.quick import slow_after
from wsrnas.complexity import count_parameters
from wsrnas.models import build_model
from wsrnas.runtime.config import parse_config

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "scripts").rglob("*.sh"))
LAUNCHERS = [path.name for path in SCRIPTS if path.name.startswith(("search_", "train_", "test_", "compare",
                                                                              "evaluate", "vulnerability"))]
PARSERS = {"search.wsr_nas": (SearchConfig, search.wsr_nas.PRESETS),
           "search.rnas": (RnasConfig, search.rnas.PRESETS),
           "search.tabular": (TabularConfig, None),
           "search.ranking": (RankingConfig, None),
           "retrain.vulnerability": (VulnerabilityConfig, None),
           "retrain.train_cifar": (RetrainConfig, retrain.recipes.RECIPES),
           "retrain.train_imagenet": (retrain.recipes.ImageNetConfig, retrain.recipes.IMAGENET_RECIPES),
           "retrain.evaluate": (retrain.evaluate.EvaluateConfig, None),
           "retrain.compare": (retrain.race.settings.CompareConfig, retrain.race.settings.RACE_RECIPES),
           "test_AN_estimator.benchmark": (BenchmarkConfig, test_AN_estimator.settings.PRESETS),
           "retrain.export": (retrain.export.ExportConfig, None)}


# -- imports --------------------------------------------------------------------------------------------------------

def imported(path):
    """Top-level names that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield node.module.split(".")[0]


def test_only_the_data_module_reads_torchvisions_data_sets():
    for path in [p for folder in ("wsrnas", "search", "retrain") for p in (ROOT / folder).rglob("*.py")]:
        if "torchvision" in set(imported(path)):
            # stored_program.py imports it for its operations.
            assert path.name in ("datasets.py", "imagenet.py", "stored_program.py"), path


# -- scripts --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_the_shell_accepts_the_script(path):
    done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""


def test_every_promised_script_is_there():
    names = {path.name for path in SCRIPTS}
    assert {"setup.sh", "quickstart.sh", "test.sh", "search_pgd.sh", "search_trades.sh", "search_plus.sh",
            "search_naive.sh", "search_wide.sh", "search_rnas.sh", "train_rnas.sh", "vulnerability.sh", "compare.sh",
            *(f"train_ImgNet_{n}.sh" for n in ("WsrNet_basic", "RACL", "AdvRush")),
            *(f"train_wsrnet_{n}.sh" for n in ("basic", "robust", "m", "m_1", "n", "plus")),
            *(f"test_{n}_ANE.sh" for n in ("A", "E", "E_minus", "WA", "plus", "C", "all"))} <= names


@pytest.fixture
def launch(tmp_path):
    """Run a script with an interpreter that only notes its command lines; returns them as lists of words."""
    stub, commands = tmp_path / "python", tmp_path / "commands"
    for name in ("digits", "folder"):
        cells = tmp_path / "runs" / "search" / f"quickstart-{name}" / "genotypes"
        cells.mkdir(parents=True)
        (cells / "initial.json").touch()
    stub.write_text(f"""#!/usr/bin/env bash
case "$1" in
    -m) printf "%s\\n" "$@" > {commands}/$(date +%s%N).$$ ;;  # one file each: two may run at the same time
    -c) echo {tmp_path} ;;         # setup.sh asks for the environment's folder
    -) cat > /dev/null ;;          # and whether the packages are there
esac
""")
    stub.chmod(0o755)

    def run(name, *argv, **environment):
        shutil.rmtree(commands, ignore_errors=True)
        commands.mkdir()
        clean = {k: v for k, v in os.environ.items()
                 if k not in ("DATA", "RUNS", "NGPU", "NNODES", "DATASET", "STRENGTHS")}
        clean |= {"WSRNAS_PYTHON": str(stub), "RUNS": str(tmp_path / "runs")} | environment
        done = subprocess.run(["bash", str(ROOT / "scripts" / name), *argv], capture_output=True, text=True,
                              cwd=tmp_path, env=clean, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        return [path.read_text().splitlines() for path in sorted(commands.iterdir())]
    return run


def parsed(command):
    """The configuration that a command line ``-m MODULE ...`` means."""
    assert command[0] == "-m"
    config, presets = PARSERS[command[1]]
    return parse_config(config, presets, command[2:])


@pytest.mark.parametrize("name", slow_after(8, LAUNCHERS))
def test_a_launcher_is_one_command_that_parses_and_passes_flags_on(name, launch, tmp_path):
    large = name.startswith("train_ImgNet")
    command, = launch(name, *(() if large else ("--dataset", "digits")), "--seed", "5", "--dry_run", DATA="pictures")
    config, invocation = parsed(command)
    assert invocation.dry_run and config.seed == 5 and config.dataset == ("imagenet" if large else "digits")
    assert config.data == str(tmp_path / "pictures") and config.runs == str(tmp_path / "runs")  # from where one stands
    programs = {"search_rnas": "search.rnas", "search": "search.wsr_nas", "evaluate": "retrain.evaluate",
                "compare": "retrain.compare", "vulnerability": "retrain.vulnerability",
                "test": "test_AN_estimator.benchmark", "train_ImgNet": "retrain.train_imagenet",
                "train": "retrain.train_cifar"}
    assert command[1] == next(program for start, program in programs.items() if name.startswith(start))


@pytest.mark.parametrize("name", slow_after(1, ["search_pgd.sh", "search_rnas.sh", "train_wsrnet_basic.sh"]))
def test_a_launched_command_runs(name, launch, capsys, tmp_path):
    command, = launch(name, "--dataset", "digits", "--init_channels", "2", "--layers", "3", "--batch_size", "16",
                      "--dry_run")
    programs = {"search.wsr_nas": search.wsr_nas, "search.rnas": search.rnas,
                "retrain.train_cifar": retrain.train_cifar}
    programs[command[1]].main(command[2:])
    assert "multiply-adds" in capsys.readouterr().out


def test_several_processes_are_started_by_torchrun(launch):
    alone, = launch("search_pgd.sh")
    checked, several = launch("search_pgd.sh", NGPU="4")
    assert checked == [*alone, "--dry_run"]  # bad input is told before several processes start
    assert several == ["-m", "wsrnas.runtime.launcher", "--standalone", "--nproc_per_node=4", *alone]


def test_the_searches_of_the_paper(launch):
    searches = {name: parsed(launch(f"search_{name}.sh")[0])[0] for name in ("pgd", "trades", "plus", "naive",
                                                                                         "wide")}
    assert {name: (c.preset, c.adv_loss) for name, c in searches.items()} == {
        "pgd": ("paper", "pgd"), "trades": ("paper", "trades"), "plus": ("plus", "pgd"), "naive": ("naive-6", "pgd"),
        "wide": ("wide", "pgd")}
    assert parsed(launch("search_naive.sh", STRENGTHS="11")[0])[0].preset == "naive-11"
    assert len({c.name for c in searches.values()}) == 5


def test_the_searches_of_rnas_differ_in_the_bound(launch):
    bounds = {preset: parsed(launch("search_rnas.sh", "--preset", preset)[0])[0].bound().value
              for preset in ("rnas-l", "paper", "rnas-h")}
    assert bounds == {"rnas-l": 0.8, "paper": 0.6, "rnas-h": 0.5}


@pytest.mark.parametrize(("script", "estimators"), [
    ("A", ("A-ANE", "WA-ANE")), ("E", ("E-ANE", "WA-ANE")), ("E_minus", ("E-ANE-minus", "WA-ANE")),
    ("plus", ("A-ANE-plus", "WA-ANE")), ("C", ("C-ANE", "WA-ANE")), ("WA", ("WA-ANE", "WA-ANE-paper")),
    ("all", BenchmarkConfig().estimators)])
def test_the_studies_of_the_estimators(script, estimators, launch):
    config, _ = parsed(launch(f"test_{script}_ANE.sh")[0])
    assert config.estimators == estimators and config.name == BenchmarkConfig().name  # all fill one study


@pytest.mark.parametrize(("script", "cell", "channels", "batch_size", "weight_decay"), [
    ("basic", "WsrNet_Basic", 45, 400, 0.0005),
    ("robust", "WsrNet_Basic", 45, 64, 0.0001),
    ("plus", "WsrNet_Plus", 46, 400, 0.0005),
    ("m", "WsrNet_M", 45, 400, 0.0007),
    ("m_1", "WsrNet_M_1", 45, 400, 0.0007),
    ("n", "WsrNet_N", 50, 400, 0.0007),
])
def test_the_published_hyper_parameters(script, cell, channels, batch_size, weight_decay, launch):
    config, _ = parsed(launch(f"train_wsrnet_{script}.sh")[0])
    assert genotypes.load(config.arch) == genotypes.load(cell)
    assert (config.init_channels, config.layers, config.batch_size, config.weight_decay) == (
        channels, 20, batch_size, weight_decay)
    assert (config.num_steps, config.epsilon, config.step_size, config.adv_loss) == (7, 0.031, 0.0, "pgd")
    assert (config.learning_rate, config.momentum, config.milestones, config.grad_clip) == (0.1, 0.9, (99, 149), 5.0)
    assert config.epochs == 176 and config.save == f"wsrnet_{script}" and config.dataset == "cifar10"


def test_the_recipe_of_rnas(launch):
    config, _ = parsed(launch("train_rnas.sh")[0])
    assert (config.arch, config.init_channels, config.layers) == ("RNAS_repo_H", 36, 20)
    assert (config.epochs, config.batch_size, config.learning_rate, config.weight_decay) == (300, 128, 0.01, 3e-4)
    assert (config.adv_loss, config.num_steps, config.epsilon, config.step_size) == ("pgd", 7, 8 / 255, 2 / 255)
    assert (config.schedule, config.learning_rate_min) == ("cosine", 0.0)


@pytest.mark.parametrize(("script", "cell", "channels", "parameters"), slow_after(1, [
    ("WsrNet_basic", "WsrNet_Basic", 74, 13_161_567), ("RACL", "RACL", 64, 11_950_472),
    ("AdvRush", "AdvRush", 60, 12_179_710)]))
def test_the_published_hyper_parameters_of_imagenet(script, cell, channels, parameters, launch):
    config, _ = parsed(launch(f"train_ImgNet_{script}.sh")[0])
    assert genotypes.load(config.arch) == genotypes.load(cell)
    assert (config.init_channels, config.layers) == (channels, 20)
    assert (config.adv_loss, config.label_smoothing) == ("fast", 0.1)
    assert config.epsilon == config.step_size == 4 / 255
    assert (config.batch_size, config.epochs, config.learning_rate, config.weight_decay) == (256, 51, 0.1, 2e-4)
    assert (config.momentum, config.grad_clip, config.image_size, config.color_jitter) == (0.9, 5.0, 224, True)
    schedule = config.schedule_of(5004)
    assert max(map(schedule, range(schedule.total_steps))) == 0.1  # the published code exceeds it
    with torch.device("meta"):
        network = build_model(genotypes.load(cell), 1000, channels, 20, "imagenet")
    assert count_parameters(network) == parameters


@pytest.mark.parametrize("dataset", ["digits", "folder"])
def test_the_quickstart_is_the_whole_job(dataset, launch, tmp_path):
    commands = launch("quickstart.sh", DATASET=dataset, DATA="pictures")
    by_module = {module: [command for command in commands if command[1] == module] for module in
                 ("search.tabular", "search.wsr_nas", "retrain.train_cifar", "retrain.evaluate")}
    assert [len(found) for found in by_module.values()] == [1, 1, 2, 3] and len(commands) == 8
    runs = tmp_path / "runs"
    table = parsed(by_module["search.tabular"][0])[0]
    assert (table.table, table.size_class) == ("demo", "18:20")
    assert table.out == str(runs / "tabular" / f"quickstart-{dataset}")
    searched, = (parsed(command)[0] for command in by_module["search.wsr_nas"])
    assert searched.preset == "tiny" and searched.name == f"quickstart-{dataset}"
    found = runs / "search" / f"quickstart-{dataset}"
    retrained = [parsed(command)[0] for command in by_module["retrain.train_cifar"]]
    folders = {config.arch: str(runs / "retrain" / config.name) for config in retrained}
    assert set(folders) == {str(found / "genotype.json"), str(found / "genotypes" / "initial.json")}
    evaluated = [parsed(command)[0] for command in by_module["retrain.evaluate"]]
    both = tuple(folders[str(found / name)] for name in ("genotype.json", "genotypes/initial.json"))
    assert {config.model for config in evaluated} == {both, both[:1], both[1:]}
    assert (evaluated[-1].model, evaluated[-1].names) == (both, ("searched", "initial"))
    assert len({(config.attacks, config.strengths, config.max_test, config.checks, config.check_images,
                 config.batch_size) for config in evaluated}) == 1  # so that the last one measures nothing again
    configs = [searched, *retrained, *evaluated]
    assert {config.dataset for config in configs} == {dataset} and {config.runs for config in configs} == {str(runs)}
    assert commands[-1][1:] == ["wsrnas.report.last_screen", str(runs), found.name]


@pytest.mark.parametrize(("python", "words"), [
    ("/no/such/python", "WSRNAS_PYTHON=/no/such/python is not an executable"),
    ("true", "true is not an interpreter of Python 3.11 or newer"),
    ("false", "false is not an interpreter of Python 3.11 or newer"),
])
def test_setup_says_what_is_wrong_with_an_interpreter(python, words):
    done = subprocess.run(["bash", str(ROOT / "scripts" / "setup.sh")], capture_output=True, text=True,
                          env=os.environ | {"WSRNAS_PYTHON": python})
    assert done.returncode == 2 and words in done.stderr and not done.stdout


@pytest.mark.skipif(not shutil.which("flock"), reason="needs flock")
def test_setups_that_start_together_make_one_environment(tmp_path):
    """The interpreter is a stand-in that needs a while for its pip, as ensurepip does."""
    checkout, log = tmp_path / "checkout", tmp_path / "log"
    (checkout / "scripts").mkdir(parents=True)
    for name in ("scripts/setup.sh", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, checkout / name)
    inside = f"""#!/bin/sh
case "$*" in
    *"pip --version"*) [ -e "$(dirname "$0")/pip" ] ;;
    *"pip install"*) echo install >> {log}; sleep 0.3 ;;
    -c*) echo {checkout}/.venv ;;
esac
"""
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python3"
    python.write_text(f"""#!/bin/sh
if [ "$2" = venv ]; then
    mkdir -p "$3/bin"
    cat > "$3/bin/python" <<'EOF'
{inside}EOF
    chmod +x "$3/bin/python"
    sleep 0.5
    touch "$3/bin/pip"
fi
""")
    python.chmod(0o755)
    environment = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}", "WSRNAS_PYTHON": ""}
    starts = []
    for _ in range(3):
        starts.append(subprocess.Popen(["bash", str(checkout / "scripts/setup.sh")], env=environment,
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        time.sleep(0.1)
    ends = [start.communicate() for start in starts]
    assert [start.returncode for start in starts] == [0, 0, 0], ends
    assert log.read_text() == "install\n" and {said for said, _ in ends} == {f"{checkout}/.venv/bin/python\n"}


# -- files ----------------------------------------------------------------------------------------------------------

def tracked():
    """The repository's files; those that git tracks where there is a git."""
    if shutil.which("git") and (ROOT / ".git").exists():
        listed = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True)
        if listed.returncode == 0:
            return [path for name in listed.stdout.splitlines() if (path := ROOT / name).is_file()]
    skipped = {"runs", "data", "build"}
    return [path for path in ROOT.rglob("*") if path.is_file()
            and not any(part.startswith(".") or part in skipped for part in path.relative_to(ROOT).parts)]


def test_no_file_names_a_path_of_the_machine_it_was_written_on():
    files = tracked()
    assert len(files) > 40
    for path in files:
        if path.parts[len(ROOT.parts)] == "tests" or path.suffix in (".npz", ".png", ".pyc"):
            continue
        text = path.read_text(encoding="utf-8")
        for place in ("/work/", "/root/", "/tmp/", "/home/"):
            assert place not in text, f"{path} contains {place}"
