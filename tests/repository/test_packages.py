"""The wheel and the source archive: what they hold, and that the programs run outside a checkout."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import wsrnas
from wsrnas.__main__ import COMMANDS

ROOT = Path(__file__).parents[2]
pytest.importorskip("setuptools", minversion="77")
NOT_COPIED = (".git", ".venv", ".venv-oldest", ".hypothesis", ".pytest_cache", ".ruff_cache", ".mypy_cache", "runs",
              "data", "build")
TINY = ["--preset", "tiny", "--device", "cpu", "--runs", "runs", "--save", "tiny"]
DRIVER = f"""
import sys
from wsrnas.__main__ import main
tiny = {TINY!r}
main(["search", *tiny, "--init_channels", "2", "--layers", "2", "--max_train", "40", "--max_validation", "20",
      "--batch_size", "10", "--warmup_architectures", "1", "--iterations", "1", "--num_steps", "1",
      "--check_images", "0"])
main(["train", *tiny, "--arch", "runs/search/tiny", "--init_channels", "2", "--layers", "2", "--max_train", "60",
      "--held_out", "10", "--epochs", "1", "--schedule", "constant", "--num_steps", "1", "--select_steps", "1"])
main(["evaluate", "--model", "runs/retrain/tiny", "--max_test", "20", "--attacks", "pgd-2", "--strengths", "0.1",
      "--checks", "none", "--device", "cpu"])
"""


def run(*command, **settings):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **settings)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The source archive, unpacked, and the names of the files that a checkout has."""
    folder = tmp_path_factory.mktemp("archive")
    copied = folder / "checkout"

    def left_out(place, names):
        caches = {name for name in names if name == "__pycache__" or name.endswith(".egg-info")}
        return caches | (set(NOT_COPIED) & set(names) if Path(place) == ROOT else set())

    shutil.copytree(ROOT, copied, ignore=left_out)
    own = {str(path.relative_to(copied)) for path in copied.rglob("*") if path.is_file()}
    run(sys.executable, "-c", f"import setuptools.build_meta as b; b.build_sdist({str(folder)!r})", cwd=copied)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as packed:
        packed.extractall(folder, filter="data")
    return folder / f"wsrnas-{wsrnas.__version__}", own


@pytest.fixture(scope="module")
def installed(archive, tmp_path_factory):
    """A folder with the wheel of the source archive, installed there alone."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    run(*pip, "wheel", "-q", "--no-index", "--no-deps", "--no-build-isolation", "-w", folder, archive[0])
    run(*pip, "install", "-q", "--no-index", "--no-deps", "--target", folder / "site",
        next(folder.glob("*.whl")))
    return folder / "site"


@pytest.mark.slow
def test_the_source_archive_has_every_file_of_a_checkout(archive):
    unpacked, own = archive
    packed = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    assert own - packed == set()


@pytest.mark.slow
def test_the_wheel_hides_no_module_of_others(installed):
    tops = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")} - {"__pycache__"}
    assert tops == {"wsrnas", "genotypes.py", "bin"}
    assert (installed / "wsrnas" / "programs" / "LICENSE").is_file()
    assert {path.name for path in (installed / "wsrnas").iterdir()} >= {"py.typed", "__init__.pyi", "assets"}


@pytest.mark.slow
def test_the_programs_of_the_wheel_run_outside_a_checkout(installed, tmp_path):
    elsewhere = {**os.environ, "PYTHONPATH": str(installed)}
    listed = run(sys.executable, "-P", installed / "bin" / "wsrnas", "--help", cwd=tmp_path, env=elsewhere)
    assert all(f"  {command} " in listed for command in COMMANDS) and "benchmarks." not in listed
    (tmp_path / "genotypes.py").write_text("raise ImportError('the user has a file of this name')\n")
    run(sys.executable, "-c", DRIVER, cwd=tmp_path, env=elsewhere)
    evaluation, = (tmp_path / "runs" / "retrain" / "tiny" / "eval").glob("*.json")
    assert json.loads(evaluation.read_text())["complete"] is True
    for program in ("search", "retrain"):
        start, = json.loads((tmp_path / "runs" / program / "tiny" / "env.json").read_text())
        assert start["command"][0].startswith(str(installed / "wsrnas" / "programs" / program))


def test_the_container_has_two_stages_and_runs_the_command_without_root():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    words = [line.split() for line in lines if line and not line.startswith(("#", " "))]
    stages = [number for number, line in enumerate(words) if line[0] == "FROM"]
    assert len(stages) == 2
    last = words[stages[1]:]
    user, = [line[1] for line in last if line[0] == "USER"]
    assert int(user) > 0  # a number, so that a cluster sees that it is not root
    assert [line[1:] for line in last if line[0] == "ENTRYPOINT"] == [['["wsrnas"]']]
    assert [line[1] for line in last if line[0] == "COPY"] == ["--from=build"]
    copied = {word for line in words[:stages[1]] if line[0] == "COPY" for word in line[1:-1]}
    assert all((ROOT / name).exists() for name in copied)
