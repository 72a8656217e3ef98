"""``python -m wsrnas`` and the version of the package."""

import ast
import os
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import wsrnas
from wsrnas.__main__ import COMMANDS, PROGRAMS, listing, main, run
from wsrnas.runtime.config import Parser
from wsrnas.runtime.errors import InputError

ROOT = Path(__file__).parents[2]
LAUNCHER = "wsrnas.runtime.launcher"
QUICKSTARTS = "wsrnas.report.last_screen"  # a part of scripts/quickstart.sh
AGAIN = pytest.mark.filterwarnings("ignore:.*found in sys.modules after import:RuntimeWarning")


def programs() -> set[str]:
    """Modules that end with a call of their own under ``if __name__ == "__main__"``."""
    found = set()
    for folder in ("wsrnas", "search", "retrain", "test_AN_estimator", "benchmarks", "studies"):
        for file in (ROOT / folder).rglob("*.py"):
            tests = [ast.unparse(node.test) for node in ast.parse(file.read_text()).body if isinstance(node, ast.If)]
            if "__name__ == '__main__'" in tests:
                found.add(".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__"))
    return found


def test_the_list_names_every_program_and_nothing_else(capsys):
    assert programs() - {"wsrnas", QUICKSTARTS} == set(PROGRAMS)
    main([])
    lines = capsys.readouterr().out.splitlines()
    assert [name for line in lines for name in line.split()[:2] if name in PROGRAMS] == list(PROGRAMS)
    assert max(map(len, lines)) <= 120
    assert dict(line.split()[:2] for line in lines if line.split()[:1] and line.split()[0] in COMMANDS) == COMMANDS


def test_every_program_outside_the_measurements_has_a_command():
    assert {name for name in PROGRAMS if name.split(".")[0] not in ("benchmarks", "studies")} == set(COMMANDS.values())


@pytest.fixture
def own_path(monkeypatch):
    """What the command changes for the programs that it starts, put back."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PYTHONPATH", "/of/the/user")
    monkeypatch.setattr(sys, "argv", ["wsrnas"])
    monkeypatch.setattr(Parser, "command", "")


@AGAIN
@pytest.mark.usefixtures("own_path")
def test_a_command_starts_its_program_under_its_own_name(capsys):
    with pytest.raises(SystemExit) as end:
        main(["plot", "--help"])
    assert end.value.code == 0 and capsys.readouterr().out.startswith("usage: wsrnas plot ")
    assert os.environ["PYTHONPATH"] == f"{ROOT}{os.pathsep}/of/the/user" and sys.path[0] == str(ROOT)
    with pytest.raises(SystemExit) as end:
        main(["retrain.export", "--modle", "x"])
    assert end.value.code == 2 and "retrain.export: unknown argument '--modle'" in capsys.readouterr().err


@pytest.mark.usefixtures("own_path")
def test_a_program_runs_in_a_user_s_process(tmp_path, capsys):
    run("plot", "WsrNet_Basic", str(tmp_path / "cell"))
    assert (tmp_path / "cell.svg").is_file() and "normal" in capsys.readouterr().out
    with pytest.raises(InputError, match="nothing to export"):
        run("export")
    for command, module in COMMANDS.items():
        if command != "launch":
            with pytest.raises(SystemExit):
                run(command, "--help")
            assert f"usage: {module} " in capsys.readouterr().out


@pytest.mark.usefixtures("own_path")
def test_what_a_user_s_process_cannot_run_is_said():
    with pytest.raises(InputError, match="launch starts processes, which a notebook cannot"):
        run("launch", "--help")


@pytest.mark.usefixtures("own_path")
def test_programs_that_read_the_command_line_themselves_run_in_a_user_s_process(capsys):
    for name in ("studies.found_graphs", "benchmarks.strategy"):
        with pytest.raises(SystemExit) as end:
            run(name, "--help")
        assert end.value.code == 0 and f"usage: {name} " in capsys.readouterr().out


def test_an_installed_package_has_no_measurements_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("wsrnas.__main__.program_root", lambda: tmp_path)
    for name in ("studies.noise_paths", "benchmarks.strategy"):
        with pytest.raises(InputError, match=f"{name} measures a checkout, and is no part of an installed package"):
            main([name])
    assert "benchmarks." not in listing() and "retrain.export" in listing()


def test_an_unknown_command_names_the_closest():
    with pytest.raises(InputError, match="unknown command 'evalute'; did you mean evaluate"):
        main(["evalute"])


def test_the_list_needs_no_torch():
    code = "import sys, wsrnas.__main__; dir(wsrnas); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_version_is_written_once():
    shown = subprocess.run([sys.executable, "-m", "wsrnas", "--version"], cwd=ROOT, check=True, capture_output=True,
                           text=True).stdout
    assert shown.strip() == wsrnas.__version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"] and "version" in project["project"]["dynamic"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "wsrnas.__version__"}


@AGAIN
@pytest.mark.parametrize("name", [name for name in PROGRAMS if name != LAUNCHER])
def test_every_program_answers_help(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: {name} ")


@AGAIN
@pytest.mark.filterwarnings("ignore:Unable to enable fault handler:UserWarning")
def test_the_launchers_help_is_that_of_torchrun(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [LAUNCHER, "--help"])
    runpy.run_module(LAUNCHER, run_name="__main__", alter_sys=True)
    printed = capsys.readouterr().out
    assert printed.startswith("usage: ") and "--nproc" in printed


@pytest.mark.parametrize("script", ["gpu_check", "quickstart", "setup", "test", "typecheck"])
def test_scripts_without_flags_of_a_program_print_their_header(script, tmp_path):
    path = ROOT / "scripts" / f"{script}.sh"
    header = path.read_text().partition("\nset ")[0].splitlines()[1:]
    for flag in ("-h", "--help"):
        done = subprocess.run(["bash", str(path), flag], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines() == [line.removeprefix("#").removeprefix(" ") for line in header]
