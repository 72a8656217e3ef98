"""Decoded images of a folder: decoded once, the same ever after, and never those of other files."""

import multiprocessing
import os
import resource
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsrnas.data import image_cache, image_folder
from wsrnas.data.datasets import load_dataset
from wsrnas.data.image_set import DataSet
from wsrnas.runtime.errors import InputError


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes of random pictures: four each to train, two to test."""
    random = np.random.default_rng(0)
    for part, count in (("train", 4), ("test", 2)):
        for name in ("ant", "bee"):
            (tmp_path / "pictures" / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (6, 5, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "pictures" / part / name / f"{number}.jpg")
    return tmp_path / "pictures"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch) -> Path:
    """An empty cache that is worth while for any number of files."""
    monkeypatch.setenv(image_cache.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(image_cache, "MIN_FILES", 1)
    image_cache.say_once.cache_clear()
    return tmp_path / "cache" / "decoded"


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The files that were decoded for their images."""
    paths: list[str] = []
    original = image_folder.read_image
    monkeypatch.setattr(image_folder, "read_image", lambda path, *turned: paths.append(path) or original(path))
    return paths


def is_same(data: DataSet, other: DataSet) -> bool:
    return data.class_names == other.class_names and all(
        part.images.equal(twin.images) and part.labels.equal(twin.labels)
        and part.images.stride() == twin.images.stride()
        for part, twin in ((data.train, other.train), (data.test, other.test)))


def test_the_second_start_decodes_nothing_and_has_the_same_images(pictures, cache, decoded, monkeypatch, capfd):
    first = load_dataset("folder", pictures)
    assert len(set(decoded)) == 12
    [file] = cache.iterdir()
    said = capfd.readouterr().err
    assert str(file) in said and "MiB" in said and said.count("\n") == 1
    decoded.clear()
    second = load_dataset("folder", pictures)
    assert decoded == [] and is_same(first, second) and capfd.readouterr().err == ""
    monkeypatch.setenv(image_cache.VARIABLE, image_cache.OFF)
    assert is_same(load_dataset("folder", pictures), second) and len(set(decoded)) == 12
    assert np.load(file).shape == (12, 6, 5, 3)


def test_cached_images_are_mapped_and_writing_to_them_leaves_the_file_alone(pictures, cache):
    load_dataset("folder", pictures)
    [file] = cache.iterdir()
    before = file.read_bytes()
    data = load_dataset("folder", pictures)
    assert str(file) in Path("/proc/self/maps").read_text()
    data.train.images.zero_()
    assert file.read_bytes() == before


def test_every_choice_of_images_has_its_own_file(pictures, cache, decoded):
    some = load_dataset("folder", pictures, max_train=4, seed=1)
    load_dataset("folder", pictures)
    load_dataset("folder", pictures, max_train=4, seed=2)
    decoded.clear()
    assert is_same(some, load_dataset("folder", pictures, max_train=4, seed=1)) and decoded == []
    assert len(list(cache.iterdir())) == 3


def _overwrite(path: Path) -> None:
    """Another picture of the same size in bytes."""
    content = path.read_bytes()
    other = path.parents[1] / "bee" / "1.jpg"
    whole = other.read_bytes()
    path.write_bytes(whole + bytes(max(0, len(content) - len(whole))))
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


CHANGES = {
    "another modification time": lambda path: os.utime(path, ns=(0, path.stat().st_mtime_ns + 1)),
    "another size": lambda path: path.write_bytes(path.read_bytes() + b" ") and os.utime(path, ns=(0, 10**18)),
    "another name": lambda path: path.rename(path.with_name("00.jpg")),
    "another picture": _overwrite,
    "a new file": lambda path: path.with_name("9.jpg").write_bytes(path.read_bytes()),
    "a file less": Path.unlink,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_folder_is_decoded_anew(pictures, cache, decoded, monkeypatch, change):
    load_dataset("folder", pictures)
    decoded.clear()
    CHANGES[change](pictures / "train" / "ant" / "0.jpg")
    data = load_dataset("folder", pictures)
    assert decoded and len(list(cache.iterdir())) == 2
    monkeypatch.setenv(image_cache.VARIABLE, image_cache.OFF)
    assert is_same(data, load_dataset("folder", pictures))


def test_pictures_that_change_while_they_are_decoded_are_not_kept(pictures, cache, monkeypatch, capfd):
    """The name of the file would be the fingerprint of other pictures, and every later start would get these."""
    path, hidden = pictures / "train" / "ant" / "0.jpg", pictures / "hidden.jpg"
    original = image_cache.decode

    def exchanged(*listings):
        path.rename(hidden)
        shutil.copyfile(pictures / "train" / "bee" / "0.jpg", path)
        return original(*listings)

    monkeypatch.setattr(image_cache, "decode", exchanged)
    load_dataset("folder", pictures)
    assert list(cache.iterdir()) == [] and "changed while they were decoded" in capfd.readouterr().err
    monkeypatch.setattr(image_cache, "decode", original)
    hidden.replace(path)  # with its old modification time
    stored = load_dataset("folder", pictures)
    monkeypatch.setenv(image_cache.VARIABLE, image_cache.OFF)
    assert is_same(stored, load_dataset("folder", pictures))


def test_files_that_others_rename_meanwhile_are_not_counted(pictures, cache, monkeypatch, capfd):
    original = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda folder: [*original(folder), folder / "gone.npy.unfinished"])
    assert len(load_dataset("folder", pictures).train) == 8
    assert "are kept for the next start" in capfd.readouterr().err


def test_another_folder_with_equal_names_sizes_and_times_has_its_own_file(pictures, cache, decoded):
    load_dataset("folder", pictures)
    pictures.rename(pictures.with_name("elsewhere"))
    decoded.clear()
    load_dataset("folder", pictures.with_name("elsewhere"))
    assert decoded


def test_other_decoders_decode_anew(pictures, cache, decoded, monkeypatch):
    load_dataset("folder", pictures)
    for change in (("VERSION", 10**6), ("Image.__version__", "0"), ("features.version", lambda part: "0")):
        decoded.clear()
        monkeypatch.setattr(f"wsrnas.data.image_cache.{change[0]}", change[1])
        load_dataset("folder", pictures)
        assert decoded, change


DAMAGES = {
    "half written": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "shorter than its checksum": lambda path: path.write_bytes(b"short"),
    "one bit of an image": lambda path: path.write_bytes(
        (whole := path.read_bytes())[:200] + bytes([whole[200] ^ 1]) + whole[201:]),
    "header": lambda path: path.write_bytes(b"x" * 100 + path.read_bytes()[100:]),
    "checksum": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_made_anew_aloud(pictures, cache, decoded, capfd, damage):
    first = load_dataset("folder", pictures)
    [file] = cache.iterdir()
    whole = file.read_bytes()
    DAMAGES[damage](file)
    decoded.clear()
    capfd.readouterr()
    assert is_same(first, load_dataset("folder", pictures)) and decoded
    assert f"{file} are damaged: decoding the files again" in capfd.readouterr().err
    assert file.read_bytes() == whole and list(cache.iterdir()) == [file]


def test_a_file_with_other_images_is_damaged(pictures, cache, decoded, capfd):
    some = load_dataset("folder", pictures, max_train=4)
    [file] = cache.iterdir()
    load_dataset("folder", pictures)
    [other] = set(cache.iterdir()) - {file}
    file.write_bytes(other.read_bytes())
    assert is_same(some, load_dataset("folder", pictures, max_train=4))
    assert "damaged" in capfd.readouterr().err


def test_what_a_killed_process_left_is_overwritten(pictures, cache):
    first = load_dataset("folder", pictures)
    [file] = cache.iterdir()
    whole = file.read_bytes()
    file.unlink()
    image_cache.unfinished(file).write_bytes(b"a part" * 1000)
    assert is_same(first, load_dataset("folder", pictures))
    assert list(cache.iterdir()) == [file] and file.read_bytes() == whole


def test_without_a_place_for_it_every_start_decodes_and_says_so_once(pictures, cache, monkeypatch, capfd):
    expected = load_dataset("folder", pictures)
    capfd.readouterr()
    (cache.parent / "file").write_text("not a folder")
    monkeypatch.setenv(image_cache.VARIABLE, str(cache.parent / "file"))
    for _ in range(2):
        assert is_same(expected, load_dataset("folder", pictures))
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and "not a directory" in said and "WSRNAS_CACHE=off" in said


def test_on_a_full_disk_every_start_decodes_and_says_so(pictures, cache, decoded, capfd):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        data = load_dataset("folder", pictures)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot keep the decoded images" in capfd.readouterr().err
    assert sum(file.stat().st_size for file in cache.iterdir()) == 0
    decoded.clear()
    assert is_same(data, load_dataset("folder", pictures)) and decoded
    decoded.clear()
    assert is_same(data, load_dataset("folder", pictures)) and not decoded
    assert len(list(cache.iterdir())) == 1


def _load(folder: Path, queue) -> None:
    queue.put(load_dataset("folder", folder).fingerprint()["hash"])


def test_of_two_processes_at_once_one_decodes(pictures, cache, tmp_path, monkeypatch):
    original = image_folder.read_image

    def slow(path: str, *turned: list[str]) -> np.ndarray:
        with open(tmp_path / "log", "a") as log:
            log.write(f"{os.getpid()}\n")
        time.sleep(0.02)
        return original(path)

    monkeypatch.setattr(image_folder, "read_image", slow)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=_load, args=(pictures, queue)) for _ in range(3)]
    for process in processes:
        process.start()
    hashes = {queue.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert len(hashes) == 1 and len(set((tmp_path / "log").read_text().split())) == 1
    assert len(list(cache.iterdir())) == 1


def test_bad_files_are_refused_as_without_the_cache(pictures, cache):
    broken = pictures / "train" / "bee" / "3.jpg"
    broken.write_bytes(broken.read_bytes()[:-30])
    for _ in range(2):
        with pytest.raises(InputError, match=r"3\.jpg"):
            load_dataset("folder", pictures)
    assert not list(cache.glob("*.npy"))


def test_few_files_are_not_kept(pictures, cache, monkeypatch):
    monkeypatch.setattr(image_cache, "MIN_FILES", 13)
    load_dataset("folder", pictures)
    assert not cache.exists()


def test_where_the_cache_is(monkeypatch):
    monkeypatch.delenv(image_cache.VARIABLE, raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert image_cache.cache_folder() == Path("/home/someone/.cache/wsrnas/decoded")
    monkeypatch.setenv("XDG_CACHE_HOME", "/scratch/cache")
    assert image_cache.cache_folder() == Path("/scratch/cache/wsrnas/decoded")
    monkeypatch.setenv(image_cache.VARIABLE, "~/images")
    assert image_cache.cache_folder() == Path("/home/someone/images/decoded")
    monkeypatch.setenv(image_cache.VARIABLE, "off")
    assert image_cache.cache_folder() is None
