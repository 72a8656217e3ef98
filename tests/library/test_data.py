"""Data sets, splits and batches: what is loaded, in which order, and what is refused with which sentence."""

import json
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.stats
import torch
from PIL import Image

from wsrnas.data import image_folder
from wsrnas.data.datasets import DATASETS, Parts, Source, load_dataset
from wsrnas.data.image_set import Augmentation, ImageSet, image_set
from wsrnas.data.loader import BatchLoader, crop_and_mirror, cut_out
from wsrnas.data.pictures import ODD, read_image
from wsrnas.data.settings import SmallImagesConfig
from wsrnas.data.splits import balanced_split, balanced_subset, load_split, save_split
from wsrnas.runtime.config import parse_config
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.seeding import derive_seed, generator

CLASS_COUNTS = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def numbered_images(count: int, channels: int = 3, height: int = 5, width: int = 4) -> ImageSet:
    """Random images whose label is their index."""
    pixels = torch.randint(1, 256, (count, channels, height, width), generator=generator("images"))
    return ImageSet(pixels.byte(), torch.arange(count))


def write_image(path: Path, value: int = 0, size: tuple[int, int] = (6, 6)) -> Path:
    """Write a plain image; ``size`` is (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 2 * value, 255 - value)).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, four images each to train, two to test; the red value tells which."""
    for part, count in (("train", 4), ("test", 2)):
        for label, name in enumerate(("ant", "bee")):
            for number in range(count):
                write_image(tmp_path / part / name / f"{number}.png", 10 * label + number)
    return tmp_path


def refused(sentence: str, *arguments, **keywords) -> None:
    """``load_dataset`` must refuse with one line that holds these words."""
    with pytest.raises(InputError) as caught:
        load_dataset(*arguments, **keywords)
    message = str(caught.value)
    assert sentence in message and "expected" in message and "\n" not in message, message


# Seeds

def test_seed_is_stable_and_depends_on_every_part():
    assert derive_seed(1, "train", 2) == 931644348026245502
    parts = [(1, "train", 2), (1, "train", 3), (2, "train", 1), ("1", "train", 2), (1, "train2"), (-1,), ()]
    seeds = [derive_seed(*part) for part in parts]
    assert len(set(seeds)) == len(seeds) and all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(np.int64(7)) == derive_seed(7)
    with pytest.raises(TypeError):
        derive_seed(0.5)


def test_a_generator_of_the_same_seed_and_purpose_repeats():
    assert torch.equal(torch.rand(3, generator=generator(0, "a")), torch.rand(3, generator=generator(0, "a")))


# Named data sets

def test_the_digits_are_balanced_grey_and_enlarged():
    data = load_dataset("digits")
    assert data.image_shape == (3, 32, 32) and data.num_classes == 10 and data.class_names[3] == "3"
    assert len(data.train) == 1438 and len(data.test) == 359
    counts = data.train.labels.bincount() + data.test.labels.bincount()
    assert counts.tolist() == CLASS_COUNTS
    assert all(abs(n / total - 0.2) < 0.005
               for n, total in zip(data.test.labels.bincount().tolist(), CLASS_COUNTS, strict=True))
    images = data.train.images
    assert images.min() == 0 and images.max() == 255 and len(images.unique()) == 17
    assert torch.equal(images[:, 0], images[:, 1]) and torch.equal(images[:, 0], images[:, 2])
    assert torch.equal(images, images[:, :, ::4, ::4].repeat_interleave(4, 2).repeat_interleave(4, 3))
    # The first image of the source, a zero: its first row is 0 0 5 13 9 1 0 0 of 16.
    assert data.train.labels[0] == 0 and images[0, 0, 0, ::4].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]
    assert data.augmentation == Augmentation(2, False)
    assert load_dataset("digits").train.images.equal(images)


def test_digits_can_be_learnt():
    data = load_dataset("digits")
    train, test = (part.images[:, 0, ::4, ::4].flatten(1).float() for part in (data.train, data.test))
    nearest = torch.cdist(test, train).argmin(1)
    assert (data.train.labels[nearest] == data.test.labels).float().mean() > 0.97


def test_a_limit_keeps_a_balanced_seeded_choice():
    few = load_dataset("digits", max_train=105, max_test=20, seed=1)
    assert sorted(few.train.labels.bincount().tolist()) == [10] * 5 + [11] * 5
    assert few.test.labels.bincount().tolist() == [2] * 10
    assert few.train.images.equal(load_dataset("digits", max_train=105, seed=1).train.images)
    assert not few.train.images.equal(load_dataset("digits", max_train=105, seed=2).train.images)
    assert few.train.images.is_contiguous(memory_format=torch.channels_last)
    assert len(load_dataset("digits", max_train=9999).train) == 1438
    refused("max_train is 9", "digits", max_train=9)
    refused("max_test is -1", "digits", max_test=-1)


def test_subset_is_equal_as_far_as_the_classes_reach():
    labels = torch.tensor([0] * 3 + [1] * 50 + [2] * 50)
    chosen = balanced_subset(labels, 43, 0, "max_train", 3)
    assert labels[chosen].bincount().tolist() == [3, 20, 20] and chosen.equal(chosen.sort().values)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_as_torchvision_stores_it(name, tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    small = name == "cifar10"
    base = tmp_path / ("cifar-10-batches-py" if small else "cifar-100-python")
    base.mkdir()
    pixels = np.arange(2 * 3072, dtype=np.int64).reshape(2, 3072).astype(np.uint8)
    entry = {"data": pixels, "labels" if small else "fine_labels": [1, 0]}
    parts = [f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"] if small else ["train", "test"]
    names = {"label_names" if small else "fine_label_names": ["cat", "dog"]}
    meta = "batches.meta" if small else "meta"
    for file, content in [*((part, entry) for part in parts), (meta, names)]:
        (base / file).write_bytes(pickle.dumps(content))
    data = load_dataset(name, tmp_path)
    assert len(data.train) == (10 if small else 2)
    assert len(data.test) == 2 and data.class_names == ("cat", "dog")
    assert data.test.images.flatten(1).equal(torch.from_numpy(pixels)) and data.test.labels.tolist() == [1, 0]
    assert data.augmentation == Augmentation(4, True)


def test_svhn_as_torchvision_stores_it(tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.svhn.check_integrity", lambda *_: True)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 4), dtype=np.uint8)
    for part in ("train", "test"):
        scipy.io.savemat(tmp_path / f"{part}_32x32.mat", {"X": pixels, "y": np.array([[10], [1], [2], [9]])})
    data = load_dataset("svhn", tmp_path)
    assert data.train.labels.tolist() == [0, 1, 2, 9] and data.num_classes == 10
    assert data.train.images.equal(torch.from_numpy(pixels.transpose(3, 2, 0, 1).copy()))
    assert data.augmentation == Augmentation(4, False)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn"])
def test_missing_files_say_how_to_get_them(name, tmp_path):
    refused("pass --download, or --data PATH", name, tmp_path)
    refused(str(tmp_path / "no"), name, tmp_path / "no")


def test_failed_download_is_one_sentence(tmp_path, monkeypatch):
    def unreachable(self):
        raise OSError("no route to host")
    monkeypatch.setattr("torchvision.datasets.CIFAR10.download", unreachable)
    with pytest.raises(InputError, match=r"cannot download cifar10 into .*: no route to host"):
        load_dataset("cifar10", tmp_path, download=True)


def test_unknown_name_and_missing_root():
    refused("'mnist', expected one of: digits, cifar10, cifar100, svhn, folder", "mnist")
    for name in ("cifar10", "folder"):
        refused(f"the data set {name} needs a folder", name)


# Folders

def test_a_folder_of_pictures_is_a_data_set(folder):
    write_image(folder / "train" / "ant" / "deep" / "9.JPEG", 50)
    (folder / "train" / "ant" / "notes.txt").write_text("not an image")
    (folder / "train" / "ant" / "._0.png").write_text("a Mac's resource fork")
    (folder / "train" / ".cache").mkdir()
    data = load_dataset("folder", folder)
    assert data.class_names == ("ant", "bee") and data.image_shape == (3, 6, 6)
    assert data.train.labels.tolist() == [0] * 5 + [1] * 4
    assert data.train.images[[0, 1, 2, 3, 5, 6, 7, 8], 0, 0, 0].tolist() == [0, 1, 2, 3, 10, 11, 12, 13]
    assert data.test.images[3, :, 2, 1].tolist() == [11, 22, 244]
    assert data.augmentation == Augmentation(1, True)


def test_folder_order_and_many_chunks(tmp_path):
    for part in ("train", "val"):
        for label in range(2):
            for number in range(150):
                write_image(tmp_path / part / str(label) / f"{number:03}.bmp", number, (2, 2))
    data = load_dataset("folder", tmp_path)
    assert data.train.images[:, 0, 1, 1].tolist() == list(range(150)) * 2
    assert len(data.test) == 300


def test_a_tilde_is_the_home_folder(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert len(load_dataset("folder", f"~/{folder.name}").train) == 8


@pytest.mark.parametrize("size", [(7, 7), (33, 17), (1, 3)])
def test_pictures_of_any_size_are_loaded_and_augmented(tmp_path, size):
    for part in ("train", "test"):
        for name in "ab":
            write_image(tmp_path / part / name / "0.png", 5, size)
    data = load_dataset("folder", tmp_path)
    assert data.image_shape == (3, size[1], size[0])
    assert data.augmentation.crop_padding == max(1, size[1] // 8)
    images, _ = next(BatchLoader(data.train, 2, 0, "train", augment=data.augmentation).batches())
    assert images.shape == (2, 3, size[1], size[0])


def test_every_kind_of_picture_becomes_rgb(tmp_path):
    ramp = np.linspace(0, 65535, 36).astype(np.uint16).reshape(6, 6)
    grey = ((ramp.astype(np.int64) * 255 + 32767) // 65535).astype(np.uint8)
    pictures = {
        "16bit.png": Image.fromarray(ramp), "grey.png": Image.fromarray(grey),
        "palette.png": Image.fromarray(grey).convert("P"), "alpha.PNG": Image.fromarray(grey).convert("RGBA"),
        "picture.webp": Image.fromarray(grey).convert("RGB"),
        "picture.PpM": Image.fromarray(grey).convert("RGB"),
    }
    for name, picture in pictures.items():
        picture.save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
        image = read_image(str(tmp_path / name))
        assert image.dtype == np.uint8 and (image == grey[..., None]).all() and image.shape == (6, 6, 3), name
    indexed = Image.fromarray(np.zeros((2, 2), np.uint8), mode="P")
    indexed.putpalette([1, 2, 3])
    indexed.save(tmp_path / "hole.png", transparency=bytes([0]))
    assert read_image(str(tmp_path / "hole.png"))[0, 0].tolist() == [1, 2, 3]
    Image.fromarray(grey).convert("CMYK").save(tmp_path / "print.jpg")
    assert read_image(str(tmp_path / "print.jpg")).shape == (6, 6, 3)


def test_pictures_of_floating_point_numbers_are_refused_and_pipes_are_called_so(folder, capsys):
    os.mkfifo(folder / "train" / "bee" / "pipe.png")
    load_dataset("folder", folder)
    said = capsys.readouterr().err
    assert "1 pipes or devices below" in said and "pipe.png" in said and "are no images of" not in said
    Image.fromarray(np.full((6, 6), 300.0, np.float32)).save(folder / "train" / "bee" / "x.tiff")
    with pytest.raises(InputError, match=r"cannot decode the image .*x.tiff.*its pixels are floating-point numbers"):
        load_dataset("folder", folder)


@pytest.mark.parametrize(("values", "kind", "tags", "words"), [
    ([[65536, 70000], [-1, 255]], np.int32, {}, "its pixels are 32-bit or signed numbers"),
    ([[0, 1], [2, 255]], np.int32, {}, "its pixels are 32-bit or signed numbers"),
    ([[0, 1000], [2, 65535]], np.uint16, {262: 0}, "it has 16 bits, and white is 0 in it"),
])
def test_grey_of_which_nothing_says_what_is_white_is_refused(folder, values, kind, tags, words):
    path = folder / "train" / "bee" / "x.tif"
    Image.fromarray(np.array(values, kind)).save(path)
    if tags:  # Pillow writes black as 0 whatever it is told
        content = path.read_bytes()
        at = content.index((262).to_bytes(2, "little") + b"\x03\x00\x01\x00\x00\x00") + 8
        assert content[at] == 1
        path.write_bytes(content[:at] + b"\x00" + content[at + 1:])
    refused(f"cannot decode the image {path}", "folder", folder)
    with pytest.raises(InputError) as caught:
        load_dataset("folder", folder)
    assert words in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "pgm", "tif"])
def test_grey_of_16_bits_is_scaled_in_every_format(suffix, tmp_path):
    Image.fromarray(np.array([[0, 256], [32768, 65535]], np.uint16)).save(tmp_path / f"x.{suffix}")
    image = read_image(str(tmp_path / f"x.{suffix}"))
    assert image[..., 0].tolist() == [[0, 1], [128, 255]]


@pytest.mark.parametrize(("orientation", "counted"), [(0, False), (1, False), (2, True), (8, True), (9, False)])
def test_only_orientations_that_exist_are_turned(tmp_path, orientation, counted):
    exif, odd = Image.Exif(), {kind: [] for kind in ODD}
    exif[0x0112] = orientation
    Image.new("RGB", (6, 6)).save(tmp_path / "x.jpg", exif=exif)
    read_image(str(tmp_path / "x.jpg"), odd)
    assert bool(odd.pop("turned")) is counted and not any(odd.values())


def test_transparent_pictures_and_those_in_no_class_are_noted(folder, capsys):
    Image.new("RGBA", (6, 6), (255, 0, 0, 255)).save(folder / "train" / "bee" / "opaque.png")
    load_dataset("folder", folder)
    assert "transparent" not in (said := capsys.readouterr().err) and "in no class" not in said
    clear = Image.new("RGBA", (6, 6), (255, 0, 0, 255))
    clear.putpixel((0, 0), (1, 2, 3, 0))
    clear.save(folder / "train" / "bee" / "clear.png")
    clear.quantize(4).save(folder / "train" / "bee" / "indexed.png")
    clear.save(folder / "train" / "lost.PNG")
    data = load_dataset("folder", folder)
    said = capsys.readouterr().err
    assert "note: 2 images of" in said and "have transparent pixels, such as" in said and "clear.png" in said
    assert f"note: images in {folder}/train itself, in no class, are left out (1, such as" in said
    assert any(image[:, 0, 0].tolist() == [1, 2, 3] for image in data.train.images)


@pytest.mark.parametrize("name", ["caf\udce9", "two\nlines", "tab\t"])
def test_class_names_that_no_document_can_show_are_refused(folder, name):
    for part in ("train", "test"):
        (folder / part / "bee").rename(folder / part / name)
    with pytest.raises(InputError) as caught:
        load_dataset("folder", folder)
    said = str(caught.value)
    assert f"has a class folder {name!a}" in said and said.isprintable()


def test_links_that_lead_nowhere_are_one_sentence(folder, capsys):
    (folder / "train" / "bee" / "notes.txt").symlink_to("gone.txt")
    load_dataset("folder", folder)
    said = capsys.readouterr().err
    assert "1 of .txt" in said and "pipes" not in said
    (folder / "train" / "bee" / "itself").symlink_to("itself")
    refused("too many levels of symbolic links", "folder", folder)
    refused("cannot read", "folder", "a\0b")


def test_the_home_of_nobody_is_no_folder():
    refused("expected --data PATH", "folder", "~no-such-user-here/pictures")


def test_a_folder_of_test_images_without_classes_is_left_out(folder):
    for name in ("test", "val"):
        if not (folder / name).exists():
            shutil.copytree(folder / "test", folder / name)
    shutil.rmtree(folder / "test")
    write_image(folder / "test" / "0.png")
    assert len(load_dataset("folder", folder).test) == len(list((folder / "val").rglob("*.png")))


def test_pictures_that_are_to_be_turned_are_used_as_stored_and_counted(folder, capsys):
    for number in (0, 1):
        exif = Image.Exif()
        exif[0x0112] = 6  # orientation: turned by a quarter
        Image.new("RGB", (6, 6), (9, 9, 9)).save(folder / "train" / "bee" / f"t{number}.jfif", "JPEG", exif=exif)
    data = load_dataset("folder", folder)
    assert len(data.train) == 10
    said = capsys.readouterr().err
    assert "note: 2 images of" in said and "train/bee/t0.jfif" in said and "used as stored" in said


def test_files_that_are_left_out_are_counted_and_named(folder, capsys):
    for name in ("a.gif", "b.GIF", "c.txt", "d"):
        (folder / "train" / "ant" / name).write_text("x")
    for name in ("__MACOSX", "@eaDir"):
        (folder / "train" / name).mkdir()
        (folder / "train" / "ant" / name).mkdir()
    assert len(load_dataset("folder", folder).train) == 8
    said = capsys.readouterr().err
    assert "note: 4 files below" in said and "(2 of .gif, 1 of .txt, 1 of no ending)" in said and "ant/a.gif" in said
    assert "has @eaDir, __MACOSX" in said or "has __MACOSX, @eaDir" in said


def test_letters_that_look_alike_are_one_class(folder):
    (folder / "train" / "bee").rename(folder / "train" / "gr\u00fcn")
    (folder / "test" / "bee").rename(folder / "test" / "gru\u0308n")  # as a Mac stores it
    assert load_dataset("folder", folder).class_names == ("ant", "gr\u00fcn")
    (folder / "train" / "gru\u0308n").mkdir()
    refused("differ only in how Unicode writes", "folder", folder)


def test_a_loop_of_links_and_images_of_one_pixel_are_refused(folder, tmp_path_factory):
    (folder / "train" / "ant" / "loop").symlink_to(folder / "train" / "ant")
    refused("is a link to a folder above it", "folder", folder)
    small = tmp_path_factory.mktemp("small")
    for place in ("train/a", "train/b", "test/a", "test/b"):
        write_image(small / place / "0.png", 1, (1, 1))
    refused("is 1x1; expected images of more than one pixel", "folder", small)


def test_a_pipe_among_pictures_is_left_out(folder, capsys):
    os.mkfifo(folder / "train" / "ant" / "pipe.png")
    assert len(load_dataset("folder", folder).train) == 8
    assert "pipe.png" in capsys.readouterr().err


def test_only_the_chosen_files_are_decoded(folder, monkeypatch):
    decoded = set()
    original = image_folder.read_image
    monkeypatch.setattr(image_folder, "read_image", lambda path, *more: decoded.add(path) or original(path))
    data = load_dataset("folder", folder, max_train=2, max_test=2)
    assert len(decoded) == 4 and data.train.labels.tolist() == data.test.labels.tolist() == [0, 1]


def test_folder_structure_refused(folder, tmp_path_factory):
    refused("does not exist", "folder", folder / "no")
    refused("cannot read", "folder", write_image(folder / "file.png"))
    empty = tmp_path_factory.mktemp("empty")
    refused("no folder train", "folder", empty)
    refused("neither a folder test nor val", "folder", empty, test_alone=True)
    write_image(empty / "train" / "a" / "0.png")
    refused("neither a folder test nor val", "folder", empty)
    (empty / "test").mkdir()
    refused("test has no class folders", "folder", empty)
    write_image(empty / "test" / "a" / "0.png")
    refused("1 class folder (a)", "folder", empty)
    (folder / "train" / "cow").mkdir()
    (folder / "test" / "dog").mkdir()
    refused("differ (only in train: cow; only in test: dog)", "folder", folder)
    (folder / "test" / "dog").rename(folder / "test" / "cow")
    refused(f"{folder / 'train' / 'cow'} has no images", "folder", folder)
    for part in ("train", "test"):
        (folder / part / "cow").rmdir()
    refused("max_train is 1,", "folder", folder, max_train=1)


def test_an_evaluation_needs_no_training_pictures_but_a_training_does(folder):
    shutil.rmtree(folder / "train")
    data = load_dataset("folder", folder, max_test=2, test_alone=True)
    assert (len(data.train), len(data.test), data.class_names) == (0, 2, ("ant", "bee"))
    refused(f"{folder}/train/<class>/<images>, and test beside train; it has test", "folder", folder)
    shutil.rmtree(folder / "test" / "ant")
    refused("1 class folder (bee)", "folder", folder, test_alone=True)


def test_unreadable_folder_is_refused(folder, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))
    monkeypatch.setattr(os, "scandir", denied)
    refused(f"cannot read {folder} (permission denied)", "folder", folder)


def test_mixed_sizes_are_refused(folder):
    odd = write_image(folder / "test" / "bee" / "0.png", size=(8, 5))
    refused(f"{folder / 'train' / 'ant' / '0.png'} is 6x6, {odd} is 5x8", "folder", folder)


def test_truncated_and_corrupt_files_are_named(folder):
    path = folder / "train" / "bee" / "cut.jpg"
    pixels = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    refused(str(path), "folder", folder)
    for content in (b"", b"not an image", whole[:30]):
        path.write_bytes(content)
        refused(str(path), "folder", folder)
    path.unlink()
    broken = folder / "train" / "ant" / "0.png"
    content = bytearray(broken.read_bytes())
    content[50] ^= 255
    broken.write_bytes(content)
    refused(str(broken), "folder", folder)


def test_too_large_for_the_memory_is_refused(folder, monkeypatch):
    monkeypatch.setattr(image_folder, "available_memory", lambda: 2 * 12 * 108 - 1)
    refused("12 images of 6x6 need 0.0 GiB", "folder", folder)
    monkeypatch.setattr(image_folder, "available_memory", lambda: 2 * 12 * 108)
    load_dataset("folder", folder)


def test_available_memory_is_plausible():
    assert image_folder.available_memory() > 2**26


# Splits

@pytest.mark.parametrize("sizes", [(10, 10, 10), (5, 7, 4, 3), (2, 2), (3, 3, 3)])
def test_halves_are_balanced_disjoint_and_covering(sizes):
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=generator("mix"))]
    first, second = balanced_split(labels, 0.5, 3, len(sizes))
    assert torch.cat((first, second)).sort().values.equal(torch.arange(len(labels)))
    assert first.equal(first.sort().values)
    assert second.equal(second.sort().values) and first.dtype == torch.int64
    assert abs(len(first) - len(second)) <= 1
    for ours, size in zip(labels[first].bincount().tolist(), sizes, strict=True):
        assert ours in (size // 2, (size + 1) // 2)


def test_split_depends_on_the_seed_alone():
    labels = torch.arange(100) % 10
    first = balanced_split(labels, 0.5, 0, 10)[0]
    assert first[:8].tolist() == balanced_split(labels, 0.5, 0, 10)[0][:8].tolist()
    assert not first.equal(balanced_split(labels, 0.5, 1, 10)[0])


def test_split_is_the_same_on_every_machine():
    assert balanced_split(torch.arange(12) % 2, 0.5, 0, 2)[0].tolist() == [0, 3, 4, 5, 6, 7]


def test_a_count_is_held_out_in_equal_shares_of_the_classes():
    labels = torch.arange(5000) % 7
    held, rest = balanced_split(labels, 1000, 0, 7)
    assert len(held) == 1000 and len(rest) == 4000
    counts = labels[held].bincount()
    assert counts.max() - counts.min() <= 1
    assert len(balanced_split(labels, 4993, 0, 7)[0]) == 4993
    rare = torch.tensor([0] * 6 + [1] * 100)
    assert rare[balanced_split(rare, 20, 0, 2)[0]].bincount().tolist() == [3, 17]
    few = torch.tensor([0] * 30 + [1] * 1000)  # half of the images of both are 515; then 15 of the few are left
    for count, shares in ((515, [15, 500]), (516, [15, 501]), (1000, [15, 985]), (1010, [20, 990]), (1028, [29, 999])):
        assert few[balanced_split(few, count, 0, 2)[0]].bincount().tolist() == shares


@pytest.mark.parametrize("sizes", [(3, 3), (4, 4, 4, 4, 4), (2, 100), (2, 2, 2, 50)])
def test_a_fraction_leaves_an_image_of_every_small_class_in_both_parts(sizes):
    labels = torch.tensor([label for label, size in enumerate(sizes) for _ in range(size)])
    for part in balanced_split(labels, 0.2, 0, len(sizes)):
        assert (labels[part].bincount(minlength=len(sizes)) > 0).all()


@pytest.mark.parametrize(("labels", "share", "sentence"), [
    ([0, 0, 1], 0.5, "class 1 has 1 image"), ([0, 0, 2, 2], 0.5, "class 1 has no images"),
    ([0, 0, 1, 1], 4, "expected 2 to 2"), ([0, 0, 1, 1], 1, "expected 2 to 2"),
    ([0, 0, 1, 1], 0, "expected 2 to 2"), ([0, 0, 2, 2], 0.1, "class 1 has no images"),
    ([0, 0, 1, 1], 1.0, "between 0 and 1"), ([0, 0, 3, 3], 0.5, "expected 0 to 2"),
])
def test_impossible_splits_are_refused(labels, share, sentence):
    with pytest.raises(InputError, match=sentence):
        balanced_split(torch.tensor(labels), share, 0, 3 if 2 in labels or 3 in labels else 2)


def test_a_class_too_small_to_split_is_named():
    with pytest.raises(InputError, match="class emu has 1 image, expected at least 2"):
        balanced_split(torch.tensor([0, 0, 1]), 0.5, 0, 2, names=("cat", "emu"))


def test_split_is_stored_and_reloaded(tmp_path):
    first, second = balanced_split(torch.arange(40) % 4, 0.25, 0, 4)
    path = tmp_path / "split.json"
    save_split(path, first, second)
    again = load_split(path, size=40)
    assert again[0].equal(first) and again[1].equal(second) and os.listdir(tmp_path) == ["split.json"]
    with pytest.raises(InputError, match="for 40 images, expected 41"):
        load_split(path, size=41)
    with pytest.raises(InputError, match="does not exist"):
        load_split(tmp_path / "no.json")
    for content, sentence in (("{", "not JSON"), ('{"first": [0]}', "not a stored split"),
                              (json.dumps({"first": [0, 1], "second": [1]}), "overlap"),
                              (json.dumps({"first": ["a"], "second": [1]}), "not a stored split")):
        path.write_text(content)
        with pytest.raises(InputError, match=sentence):
            load_split(path)


# Batches

@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("batch_size", [1, 7, 23, 100])
def test_an_evaluation_pass_covers_every_image_once(shuffle, batch_size):
    data = numbered_images(23)
    loader = BatchLoader(data, batch_size, 0, "test", shuffle=shuffle)
    batches = list(loader.batches())
    labels = torch.cat([labels for _, labels in batches])
    assert len(batches) == len(loader) and labels.sort().values.equal(torch.arange(23))
    assert labels.equal(torch.arange(23)) is not shuffle
    images = torch.cat([images for images, _ in batches])
    assert images.equal(data.images[labels].float() / 255)
    assert images.dtype == torch.float32 and batches[0][0].is_contiguous(memory_format=torch.channels_last)


def test_batches_repeat_by_seed_purpose_and_epoch():
    data, augment = numbered_images(32), Augmentation(1, True)

    def first(seed=0, purpose="train", epoch=0):
        return next(BatchLoader(data, 16, seed, purpose, shuffle=True, augment=augment).batches(epoch))
    for ours, again in zip(first(), first(), strict=True):
        assert ours.equal(again)
    for other in (first(epoch=1), first(seed=1), first(purpose="valid")):
        assert not other[1].equal(first()[1])


@pytest.mark.slow
def test_start_equals_skipping():
    loader = BatchLoader(numbered_images(50), 8, 0, "train", shuffle=True, augment=Augmentation(2, True, cutout=2),
                         drop_last=True)
    whole = list(loader.batches(3))
    assert len(whole) == len(loader) == 6
    for start in (0, 2, 6):
        rest = list(loader.batches(3, start=start))
        assert len(rest) == 6 - start
        for (images, labels), (expected, names) in zip(rest, whole[start:], strict=True):
            assert images.equal(expected) and labels.equal(names)


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("drop_last", [False, True])
def test_shards_make_up_the_batch(world_size, drop_last):
    data = numbered_images(25)  # batches of 12, 12 and, in an evaluation, 1: nothing for the last processes

    def loader(**world):
        return BatchLoader(data, 12, 0, "train", shuffle=True, augment=Augmentation(1, True, cutout=2),
                           drop_last=drop_last, **world)
    shards = [list(loader(rank=rank, world_size=world_size).batches(1)) for rank in range(world_size)]
    for rank, shard in enumerate(shards):
        assert len(shard) == len(loader(rank=rank, world_size=world_size))
    assert len(shards[0]) == (2 if drop_last else 3) and len(shards[-1]) == 2
    for number, (images, labels) in enumerate(loader().batches(1)):
        for rank, shard in enumerate(shards):
            expected = labels[rank::world_size]
            if len(expected):
                assert shard[number][1].equal(expected) and shard[number][0].equal(images[rank::world_size])


def test_more_processes_than_images():
    data = numbered_images(5)
    loaders = [BatchLoader(data, 2, 0, "test", rank=rank, world_size=4) for rank in range(4)]
    shards = [[labels.tolist() for _, labels in loader.batches()] for loader in loaders]
    assert shards == [[[0], [2], [4]], [[1], [3]], [], []]


@pytest.mark.parametrize(("height", "width", "padding"), [(6, 6, 2), (5, 8, 1), (4, 3, 0)])
def test_crop_and_mirror_against_one_image_at_a_time(height, width, padding):
    images = numbered_images(9, 3, height, width).images
    draw = generator("oracle")
    index = torch.randint(9, (40,), generator=draw)
    corners = torch.randint(2 * padding + 1, (40, 2), generator=draw)
    mirrored = torch.rand(40, generator=draw) < 0.5
    result = crop_and_mirror(images, index, corners, mirrored, padding)
    for row in range(40):
        padded = np.pad(images[index[row]].numpy(), ((0, 0), (padding, padding), (padding, padding)))
        top, left = corners[row].tolist()
        expected = padded[:, top: top + height, left: left + width]
        if mirrored[row]:
            expected = expected[:, :, ::-1]
        assert np.array_equal(result[row].numpy(), expected)


def test_draws_reach_every_corner_and_mirror_half():
    data = ImageSet(torch.zeros(4000, 1, 4, 4, dtype=torch.uint8), torch.arange(4000))
    data.images[:, 0, 1, 1] = 255  # one bright pixel tells where the crop was taken
    batch, _ = next(BatchLoader(data, 4000, 0, "train", augment=Augmentation(1, False)).batches())
    assert (batch.sum((0, 1)) > 0).tolist() == [[True] * 3 + [False]] * 3 + [[False] * 4]
    assert (batch.flatten(1).sum(1) == 1).all() and batch[:, 0, :3, :3].sum(0).min() > 350
    batch, _ = next(BatchLoader(data, 4000, 0, "train", augment=Augmentation(0, True)).batches())
    assert 1850 < batch[:, 0, 1, 1].sum() < 2150 and batch[:, 0, 1, 1].sum() + batch[:, 0, 1, 2].sum() == 4000


def published_cutout(image: np.ndarray, row: int, column: int, side: int) -> np.ndarray:
    """Cutout of one image (C, H, W) at a centre, by clipped bounds as in the authors' code (their side is even)."""
    height, width = image.shape[1:]
    top, bottom = (np.clip(bound, 0, height) for bound in (row - side // 2, row - side // 2 + side))
    left, right = (np.clip(bound, 0, width) for bound in (column - side // 2, column - side // 2 + side))
    image = image.copy()
    image[:, top:bottom, left:right] = 0
    return image


@pytest.mark.parametrize(("height", "width", "side"), [(6, 6, 2), (5, 8, 3), (8, 5, 4), (4, 3, 1), (4, 3, 5),
                                                       (4, 3, 9)])
def test_cutout_against_one_image_at_a_time(height, width, side):
    images = numbered_images(height * width, 3, height, width).images  # no pixel of it is zero
    centres = torch.cartesian_prod(torch.arange(height), torch.arange(width))
    before = images.clone()
    result = cut_out(images, centres, side)
    assert result.dtype == torch.uint8 and images.equal(before)
    for image, (row, column), ours in zip(images, centres.tolist(), result, strict=True):
        assert np.array_equal(ours.numpy(), published_cutout(image.numpy(), row, column, side))
    inner = cut_out(torch.ones(1, 1, 20, 20), torch.tensor([[9, 10]]), side)
    assert (inner == 0).sum() == side**2 and inner[0, 0, 9, 10] == 0


@pytest.mark.parametrize("side", [3, 4])
def test_the_centre_of_the_cutout_is_uniform_over_the_image(side):
    height, width, count = 6, 7, 42_000
    data = ImageSet(torch.full((count, 1, height, width), 255, dtype=torch.uint8), torch.zeros(count).long())
    batch, _ = next(BatchLoader(data, count, 0, "train", augment=Augmentation(cutout=side)).batches())
    seen, counts = (batch[:, 0] == 0).unique(dim=0, return_counts=True)
    # Every centre leaves a square of its own, the clipped ones at the border included, and comes as often.
    expected = {published_cutout(np.ones((1, height, width)), row, column, side).tobytes()
                for row in range(height) for column in range(width)}
    assert len(seen) == len(expected) == 42
    assert {(1.0 - square.double().numpy()).tobytes() for square in seen} == expected
    assert scipy.stats.chisquare(counts).pvalue > 0.01


@pytest.mark.parametrize("augment", [Augmentation(), Augmentation(2, True), Augmentation(1), Augmentation(0, True)])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("side", [0, 1, 4])
def test_cutout_comes_last_and_leaves_the_other_draws_alone(augment, shuffle, side):
    data = numbered_images(40, height=6, width=7)
    loader = BatchLoader(data, 40, 5, "train", shuffle, replace(augment, cutout=side))
    for epoch in range(2):
        stream = generator(5, "train", epoch)  # the draws of old, in their order, then the centres
        order = torch.randperm(40, generator=stream) if shuffle else torch.arange(40)
        corners = torch.randint(2 * augment.crop_padding + 1, (40, 2), generator=stream)
        mirrored = torch.randint(2, (40,), generator=stream).bool() & augment.horizontal_flip
        rows, columns = (torch.randint(size, (40,), generator=stream).tolist() for size in (6, 7))
        (images, labels), = loader.batches(epoch)
        plain = crop_and_mirror(data.images, order, corners, mirrored, augment.crop_padding).numpy()
        expected = [published_cutout(*arguments, side) for arguments in zip(plain, rows, columns, strict=True)]
        assert labels.equal(order) and images.equal(torch.from_numpy(np.stack(expected)).float() / 255)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert side or images.equal(torch.from_numpy(plain).float() / 255)


def test_a_cutout_of_the_whole_image_and_more_leaves_nothing():
    data = numbered_images(16)
    batch, _ = next(BatchLoader(data, 16, 0, "train", augment=Augmentation(cutout=11)).batches())
    assert not batch.any()
    with pytest.raises(InputError, match="cutout is -1, expected at least 0"):
        Augmentation(cutout=-1)


def test_batches_that_cannot_be_made_are_refused():
    data = numbered_images(10)
    with pytest.raises(InputError, match="batch size is 16, expected at most 10"):
        BatchLoader(data, 16, 0, "train", drop_last=True)
    with pytest.raises(InputError, match="batch size is 9, expected a multiple of 2"):
        BatchLoader(data, 9, 0, "train", drop_last=True, world_size=2)
    with pytest.raises(InputError, match="batch size is 0"):
        BatchLoader(data, 0, 0, "train")
    with pytest.raises(InputError, match="no train images"):
        BatchLoader(data.subset(torch.arange(0)), 1, 0, "train")
    with pytest.raises(ValueError, match="rank 2 of 2"):
        BatchLoader(data, 4, 0, "train", rank=2, world_size=2)


def test_image_set_checks_its_tensors():
    with pytest.raises(ValueError, match="expected uint8"):
        ImageSet(torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="expected int64"):
        ImageSet(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_same_batches_on_the_gpu_without_synchronisation():
    data = numbered_images(64)
    loaders = [BatchLoader(part, 16, 0, "train", shuffle=True, augment=Augmentation(2, True, cutout=3),
                           drop_last=True) for part in (data, data.to("cuda"))]
    on_cpu, (first, *rest) = list(loaders[0].batches(0)), _without_synchronisation(loaders[1].batches(0))
    for (images, labels), (expected, names) in zip([first, *rest], on_cpu, strict=True):
        assert images.cpu().equal(expected) and labels.cpu().equal(names)


def _without_synchronisation(batches):
    """The first batch draws and moves the epoch; the others must not wait for the device."""
    result = [next(batches)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        result += list(batches)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return result


def test_a_new_data_set_is_one_entry(monkeypatch, capsys):
    entry = Source(lambda request: Parts(*[random_images(request.seed)] * 2, ("cat", "dog")), "stripes", downloads=True)
    monkeypatch.setitem(DATASETS, "stripes", entry)
    data = load_dataset("stripes", "anywhere", max_train=4, seed=3)
    assert data.name == "stripes" and len(data.train) == 4 and data.class_names == ("cat", "dog")
    assert data.augmentation == Augmentation(1, horizontal_flip=True)
    assert parse_config(SmallImagesConfig, argv=["--dataset", "stripes"])[0].dataset == "stripes"
    with pytest.raises(SystemExit):
        parse_config(SmallImagesConfig, argv=["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "stripes (stripes)" in said
    assert "missing (cifar10, cifar100, svhn, stripes)" in said


def random_images(seed):
    images = np.random.default_rng(seed).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    return image_set(images, np.arange(8) % 2)
