"""A run whose folder is deleted or moved says so, and never makes the folder anew."""

import shutil
from pathlib import Path

import pytest

from wsrnas.runtime import place
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.folders import create, make
from wsrnas.runtime.place import Place, watched_above

GONE = "race was deleted or moved while the program was running"


@pytest.fixture(autouse=True)
def nothing_watched():
    place.watch_none()
    yield
    place.watch_none()


def test_a_folder_is_made_with_those_above_it(tmp_path):
    make(tmp_path / "runs" / "race")
    make(tmp_path / "runs" / "race")
    assert (tmp_path / "runs" / "race").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        make(tmp_path / "file" / "race")
    with pytest.raises(InputError, match=r"cannot write the run directory .*file: file exists"):
        create(tmp_path / "file")


@pytest.mark.parametrize("act", [shutil.rmtree, lambda folder: folder.rename(folder.with_name("away"))])
@pytest.mark.parametrize("inside", ["race/second", "race/retrain/second", "race/first/a/b", "./race/../race/second"])
def test_nothing_is_made_inside_a_run_directory_that_is_gone(act, inside, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    race = Path("race")
    create(race)
    create(race / "retrain" / "first")
    act(race)
    for begin in (make, create):
        for folder in (Path(inside), tmp_path / inside):
            with pytest.raises(InputError, match=GONE):
                begin(folder)
    assert not race.exists()
    create(race)  # a new start, which watches the new folder
    create(race / "retrain" / "second")
    assert (race / "retrain" / "second").is_dir()


@pytest.mark.parametrize("act", [shutil.rmtree, lambda folder: folder.rename(folder.with_name("away"))])
def test_a_folder_that_goes_while_it_is_made(act, tmp_path, monkeypatch):
    """Between the making and the first look at it, between that and the first file, and below another one."""
    race = tmp_path / "race"

    def then_gone(name, *when):
        original = getattr(Path, name)

        def acting(path, *given, **named):
            if name == "mkdir":
                original(path, *given, **named)
            if path == when[0] and race.exists():
                act(race)
            return None if name == "mkdir" else original(path, *given, **named)

        return monkeypatch.setattr(Path, name, acting)

    for name, at in (("mkdir", race), ("write_bytes", race / ".writable")):
        with monkeypatch.context():
            then_gone(name, at)
            with pytest.raises(InputError, match=GONE):
                create(race)
        monkeypatch.undo()
        shutil.rmtree(tmp_path / "away", ignore_errors=True)
        assert not race.exists()
    create(race)
    then_gone("mkdir", race / "retrain")
    with pytest.raises(InputError, match=GONE):
        create(race / "retrain" / "first")
    assert not race.exists()


def test_a_run_inside_another_one_is_made_below_the_inner_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    create(Path("race"))
    inner = create(Path("race/inner"))
    assert watched_above(tmp_path / "race" / "inner" / "x") is inner
    assert watched_above(Path("race/inner/x/y")) is inner
    assert watched_above(Path("race/inner")).folder == Path("race")
    assert watched_above(Path("racer")) is watched_above(Path("race")) is None
    monkeypatch.chdir("race/inner")
    make(Path("x/y"))
    assert (tmp_path / "race" / "inner" / "x" / "y").is_dir()


def test_a_renamed_folder_above_is_no_matter_to_a_relative_path(tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    create(Path("race"))
    (tmp_path / "home").rename(tmp_path / "house")
    make(Path("race/inner/x"))
    assert (tmp_path / "house" / "race" / "inner" / "x").is_dir() and not (tmp_path / "home").exists()


def test_a_place_that_never_was_is_gone(tmp_path):
    with pytest.raises(InputError, match="was deleted or moved"):
        Place(tmp_path / "race").require()
