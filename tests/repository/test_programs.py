"""``python -m wsrnas`` and the version of the package."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import wsrnas
from wsrnas.__main__ import PROGRAMS, main

ROOT = Path(__file__).parents[2]


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
