"""``python -m wsrnas`` and the version of the package."""

import ast
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import wsrnas
from wsrnas.__main__ import PROGRAMS, main

ROOT = Path(__file__).parents[2]
LAUNCHER = "wsrnas.runtime.launcher"


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
    assert programs() - {"wsrnas"} == set(PROGRAMS)
    main([])
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[2] for line in lines] == list(PROGRAMS)
    assert max(map(len, lines)) <= 120


def test_the_list_needs_no_torch():
    code = "import sys, wsrnas.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_version_is_written_once():
    shown = subprocess.run([sys.executable, "-m", "wsrnas", "--version"], cwd=ROOT, check=True, capture_output=True,
                           text=True).stdout
    assert shown.strip() == wsrnas.__version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"] and "version" in project["project"]["dynamic"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "wsrnas.__version__"}


AGAIN = pytest.mark.filterwarnings("ignore:.*found in sys.modules after import:RuntimeWarning")


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
