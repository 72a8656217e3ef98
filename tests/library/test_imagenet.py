"""Image files decoded in batches: the same ones however many processes share the work, and nothing else touched."""

import multiprocessing
import os
import random
import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.processes import PATIENCE, copies, wait_for
from tests.quick import slow_after
from wsrnas.data import imagenet
from wsrnas.data.image_set import ImageSet
from wsrnas.data.imagenet import ImageFileLoader, ImageFiles, list_imagenet
from wsrnas.data.loader import BatchLoader
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.seeding import generator

SIZE = 32


def write_picture(path: Path, width: int = 40, height: int = 36, mode: str = "RGB", **options) -> Path:
    """Write coarse noise that differs from file to file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = generator("picture", path.parent.name, path.name)
    coarse = torch.randint(256, (6, 6, 3), dtype=torch.uint8, generator=draw).numpy()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode).save(path, **options)
    return path


def write_folder(root: Path) -> Path:
    """Three classes; 5, 4 and 4 pictures to train, 2 each for validation; many sizes and kinds."""
    for part, counts in (("train", (5, 4, 4)), ("val", (2, 2, 2))):
        for label, (name, count) in enumerate(zip(("ant", "bee", "cow"), counts, strict=True)):
            for number in range(count):
                width, height = 20 + 17 * number, 70 - 11 * label
                write_picture(root / part / name / f"{number}.png", width, height, "L" if number == 1 else "RGB")
    turned = Image.Exif()
    turned[0x112] = 6  # the orientation, which nobody reads
    write_picture(root / "train" / "cow" / "print.JPEG", mode="CMYK", exif=turned)
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """14 and 6 pictures, for tests that do not change them."""
    return write_folder(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def train(folder) -> ImageFiles:
    return list_imagenet(folder)[0]


def training_loader(files: ImageFiles, batch_size: int = 4, **keywords) -> ImageFileLoader:
    """In this process unless told otherwise."""
    settings = {"seed": 0, "purpose": "training", "image_size": SIZE, "shuffle": True, "augment": True,
                "drop_last": True, "workers": 0}
    return ImageFileLoader(files, batch_size, **(settings | keywords))


def evaluation_loader(files: ImageFiles, batch_size: int = 4, **keywords) -> ImageFileLoader:
    return ImageFileLoader(files, batch_size, 0, "test", **({"image_size": SIZE, "workers": 0} | keywords))


def assert_same(ours, expected) -> None:
    """The same images and labels in the same batches."""
    ours, expected = list(ours), list(expected)
    assert len(ours) == len(expected) > 0
    for (images, labels), (others, names) in zip(ours, expected, strict=True):
        assert images.equal(others) and labels.equal(names)


def drawn_alone(files: ImageFiles, index: int, epoch: int, **keywords) -> torch.Tensor:
    """The augmented image ``index``, wherever its epoch visits it."""
    loader = training_loader(files, 1, shuffle=False, **keywords)
    return next(loader.batches(epoch, start=index))[0][0]


# Listing

def test_the_folders_of_imagenet_are_listed_by_class(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    train, val = list_imagenet(f"~/{folder.name}")
    assert len(train) == 14 and len(val) == 6 and train.class_names == val.class_names == ("ant", "bee", "cow")
    assert train.labels.tolist() == [0] * 5 + [1] * 4 + [2] * 5 and train.labels.dtype == torch.int64
    assert train.path(6) == str(folder / "train" / "bee" / "1.png") and val.path(5) == str(folder / "val/cow/1.png")
    monkeypatch.chdir(folder)
    here = list_imagenet(".")[0]
    assert os.path.samefile(here.path(6), train.path(6)) and here.fingerprint() == train.fingerprint()


def test_names_and_labels_are_arrays_without_an_object_each(train):
    assert train.names.dtype.kind == "S" and train.names.flags.owndata and isinstance(train.labels, torch.Tensor)
    assert not any(isinstance(value, list) for value in vars(train).values())


def test_a_name_of_any_bytes(tmp_path):
    for part in ("train", "test"):
        for name in ("a", "ß"):
            write_picture(tmp_path / part / name / "ünï code.png")
    odd = os.fsdecode(b"\xff.png")
    write_picture(tmp_path / "train" / "a" / "0.png").rename(tmp_path / "train" / "a" / odd)
    files = list_imagenet(tmp_path)[0]
    assert {os.path.basename(files.path(i)) for i in range(3)} == {odd, "ünï code.png"} and files.fingerprint()
    assert len(list(evaluation_loader(files).batches())) == 1


def test_a_limit_keeps_a_balanced_seeded_choice(folder):
    few, two_each = list_imagenet(folder, max_train=7, max_test=3, seed=1)
    assert sorted(few.labels.bincount().tolist()) == [2, 2, 3] and two_each.labels.tolist() == [0, 1, 2]
    chosen = [few.path(i) for i in range(7)]
    assert chosen == sorted(chosen) and all(few.class_names[few.labels[i]] in chosen[i] for i in range(7))
    assert few.fingerprint() == list_imagenet(folder, max_train=7, seed=1)[0].fingerprint()
    assert few.fingerprint() != list_imagenet(folder, max_train=7, seed=2)[0].fingerprint()
    for limits in ({"max_train": 2}, {"max_test": -1}):
        (name, value), = limits.items()
        with pytest.raises(InputError, match=f"{name} is {value}"):
            list_imagenet(folder, **limits)


def test_subset_keeps_files_and_labels_together(train):
    indices = torch.tensor([13, 0, 6])
    part = train.subset(indices)
    assert part.labels.tolist() == [2, 0, 1] and part.class_names == train.class_names
    assert [part.path(i) for i in range(3)] == [train.path(i) for i in indices.tolist()]


def test_fingerprint_is_that_of_the_names(tmp_path):
    root = tmp_path / "first"
    for part in ("train", "val"):
        for name in ("ant", "bee"):
            for number in range(2):
                (root / part / name).mkdir(parents=True, exist_ok=True)
                (root / part / name / f"{number}.png").write_text("not an image: nobody may look")

    def print_of(folder=root):
        return list_imagenet(folder)[0].fingerprint()
    seen = [print_of()]
    assert seen[0] == print_of() and seen[0].items() >= {"name": "imagenet", "classes": 2, "images": 4}.items()
    root = root.rename(tmp_path / "moved")
    assert print_of(root) == seen[0]
    (root / "train" / "ant" / "1.png").rename(root / "train" / "ant" / "2.png")
    seen.append(print_of(root))
    (root / "train" / "ant" / "3.png").touch()
    seen.append(print_of(root))
    for part in ("train", "val"):
        (root / part / "ant").rename(root / part / "asp")
    seen.append(print_of(root))
    whole = list_imagenet(root)[0]
    seen.append(whole.subset(torch.tensor([1, 0, 2, 3, 4])).fingerprint())
    seen.append(ImageFiles(root, whole.names, whole.labels, ("asp", "cow")).fingerprint())
    assert len({entry["hash"] for entry in seen}) == len(seen)


@pytest.mark.parametrize("root", [None, ""])
def test_imagenet_needs_a_folder(root):
    with pytest.raises(InputError) as caught:
        list_imagenet(root)
    assert str(caught.value) == ("the data set imagenet needs a folder, expected --data PATH "
                                 "(DATA for the scripts)")


def test_folders_that_cannot_be_used(tmp_path):
    def refused(sentence, root=tmp_path):
        with pytest.raises(InputError) as caught:
            list_imagenet(root)
        assert sentence in str(caught.value) and "expected" in str(caught.value)
    refused("does not exist", tmp_path / "no")
    for name in ("ant", "bee"):
        (tmp_path / "train" / name).mkdir(parents=True)
    refused("neither a folder test nor val")
    for name in ("ant", "bee"):
        (tmp_path / "val" / name).mkdir(parents=True)
    refused(f"{tmp_path / 'train' / 'ant'} has no images")


# Batches

@pytest.mark.parametrize("workers", slow_after(1, [1, 2]))
def test_batches_are_the_same_for_every_number_of_workers(train, workers):
    assert_same(training_loader(train, workers=workers).batches(3), training_loader(train).batches(3))


@pytest.mark.parametrize("drop_last", [False, True])
def test_processes_share_a_batch(train, drop_last):
    # Batches of 4, 4, 4 and, without drop_last, 2: nothing for the third process.
    for world_size in (2, 3) if not drop_last else (2, 4):
        loaders = [training_loader(train, drop_last=drop_last, rank=rank, world_size=world_size)
                   for rank in range(world_size)]
        shards = [list(loader.batches(1)) for loader in loaders]
        assert [len(shard) for shard in shards] == [len(loader) for loader in loaders]
        whole = list(training_loader(train, drop_last=drop_last).batches(1))
        assert len(whole) == (3 if drop_last else 4)
        for number, (images, labels) in enumerate(whole):
            for rank, shard in enumerate(shards):
                if len(labels[rank::world_size]):
                    assert shard[number][0].equal(images[rank::world_size])
                    assert shard[number][1].equal(labels[rank::world_size])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_start_equals_skipping(train, workers):
    whole = list(training_loader(train).batches(2))
    assert len(whole) == len(training_loader(train)) == 3
    for start in (1, 2):
        assert_same(training_loader(train, workers=workers).batches(2, start=start), whole[start:])
    assert list(training_loader(train, workers=workers).batches(2, start=3)) == []


def test_start_does_not_decode_what_it_skips(train, monkeypatch):
    decoded, original = [], imagenet.read_image
    monkeypatch.setattr(imagenet, "read_image", lambda path: decoded.append(path) or original(path))
    batches = training_loader(train).batches(0, start=2)
    next(batches)
    assert len(decoded) == 4
    assert list(batches) == [] and len(decoded) == 4


def test_the_order_is_that_of_the_other_loader(train):
    """By seed, purpose and epoch; here with labels that tell the files apart."""
    numbered = ImageFiles(train.root, train.names, torch.arange(14), train.class_names)
    pixels = ImageSet(torch.zeros(14, 1, 2, 2, dtype=torch.uint8), torch.arange(14))

    def orders(make, epoch=0, **stream):
        return [labels.tolist() for _, labels in make(**({"seed": 0, "purpose": "training"} | stream)).batches(epoch)]

    def ours(**stream):
        return training_loader(numbered, **stream)

    def other(**stream):
        return BatchLoader(pixels, 4, shuffle=True, drop_last=True, **stream)
    drawn = [orders(ours), orders(ours, epoch=1), orders(ours, seed=1), orders(ours, purpose="other")]
    assert drawn == [orders(other), orders(other, epoch=1), orders(other, seed=1), orders(other, purpose="other")]
    assert all(drawn[0] != order for order in drawn[1:])


def test_an_augmentation_depends_on_seed_purpose_epoch_and_index(train):
    first = drawn_alone(train, 4, 0)
    assert drawn_alone(train, 4, 0).equal(first)
    twice = ImageFiles(train.root, train.names[[4] * 14], train.labels, train.class_names)
    assert drawn_alone(twice, 4, 0).equal(first)
    others = [drawn_alone(train, 4, 1), drawn_alone(train, 4, 0, seed=1), drawn_alone(train, 4, 0, purpose="other"),
              drawn_alone(twice, 5, 0)]
    assert not any(first.equal(other) for other in others)


@pytest.mark.parametrize("jitter", [False, True])
def test_training_crops_are_of_all_sizes_and_half_of_them_mirrored(tmp_path, jitter):
    """A ramp from left to right whose crops tell where they come from: parts of all sizes, half of them mirrored."""
    ramp = np.broadcast_to(np.linspace(20, 220, 80).astype(np.uint8)[None, :, None], (60, 80, 3)).copy()
    ramp[..., 2] = 90
    for part in ("train", "val"):
        for name in "ab":
            (tmp_path / part / name).mkdir(parents=True)
            Image.fromarray(ramp).save(tmp_path / part / name / "0.png")
    two = list_imagenet(tmp_path)[0]
    many = two.subset(torch.zeros(200, dtype=torch.int64))
    images, _ = next(training_loader(many, 200, color_jitter=jitter).batches())
    rows = images.mean(2)  # (b, 3, S): over the height, along the ramp
    slopes = rows[:, 0, -1] - rows[:, 0, 0]
    assert 70 < (slopes < 0).sum() < 130
    blue = rows[:, 2]
    if jitter:
        assert (blue.mean(1) - 90 / 255).abs().mean() > 0.05 and images.min() >= 0 and images.max() <= 1
        # Grey would stay grey without a change of hue and saturation; red and green were equal.
        assert (rows[:, 0] - rows[:, 1]).abs().mean(1).std() > 0.02
    else:
        assert (blue - 90 / 255).abs().max() < 0.006 and rows[:, 0].equal(rows[:, 1])
        widths = slopes.abs() / (200 / 255)  # as a share of the picture's; areas of 8% to 100%
        assert widths.min() < 0.4 and widths.max() > 0.9 and widths.std() > 0.1


def test_an_evaluation_pass_visits_every_image_once_as_the_reference_does(folder):
    files = list_imagenet(folder)[0]
    loader = evaluation_loader(files, 5)
    batches = list(loader.batches())
    assert [len(labels) for _, labels in batches] == [5, 5, 4] and len(loader) == 3
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert labels.equal(files.labels) and labels.dtype == torch.int64
    for index, image in enumerate(images):
        picture = Image.open(files.path(index)).convert("RGB")
        width, height = picture.size
        scale = 37 / min(width, height)  # 32 * 256 / 224 is 36.57
        picture = picture.resize((int(width * scale + 1e-6), int(height * scale + 1e-6)), Image.Resampling.BILINEAR)
        left, top = (round((side - 32) / 2) for side in picture.size)
        expected = np.asarray(picture.crop((left, top, left + 32, top + 32)))
        assert np.array_equal((image * 255).round().byte().permute(1, 2, 0).numpy(), expected), files.path(index)
    assert_same(evaluation_loader(files, 5).batches(7), batches)


def test_the_transforms_have_the_published_numbers():
    resize, crop = imagenet.evaluation_transform(224).transforms
    assert resize.size == [256] and crop.size == (224, 224)
    crop, flip, jitter = imagenet.training_transform(224).transforms
    assert (crop.size, tuple(crop.scale), flip.p) == ((224, 224), (0.08, 1.0), 0.5)
    assert jitter.brightness == jitter.contrast == jitter.saturation == (0.6, 1.4) and jitter.hue == (-0.2, 0.2)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_batch_is(train, workers):
    loader = training_loader(train, workers=workers)
    assert loader.batch_size == 4 and loader.files is train
    for images, labels in loader.batches():
        assert images.shape == (4, 3, SIZE, SIZE) and images.dtype == torch.float32
        assert images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
        assert 0 <= images.min() < 0.3 and 0.7 < images.max() <= 1
        assert images.equal((images * 255).round() / 255)
        assert labels.shape == (4,) and labels.dtype == torch.int64
        assert not labels.is_shared() and not images.is_shared()  # each would hold a file descriptor


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("make", [training_loader, evaluation_loader])
def test_no_global_random_state_is_touched(train, workers, make, monkeypatch):
    def states():
        return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()
    reseeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", reseeded.append)
    before = states()
    batches = make(train, workers=workers).batches()
    next(batches)
    assert states() == before
    list(batches)
    assert states() == before and not reseeded


def test_the_global_random_state_does_not_matter(train):
    torch.manual_seed(1)
    first = list(training_loader(train).batches())
    torch.manual_seed(2)
    assert_same(training_loader(train).batches(), first)


# What goes wrong

@pytest.mark.parametrize("workers", slow_after(1, [0, 2]))
@pytest.mark.parametrize("content", [b"", b"not an image", None], ids=["empty", "text", "truncated"])
def test_a_damaged_file_is_one_sentence(tmp_path, workers, content):
    write_folder(tmp_path)
    broken = tmp_path / "train" / "cow" / "print.JPEG"
    broken.write_bytes(broken.read_bytes()[:-40] if content is None else content)
    loader = evaluation_loader(list_imagenet(tmp_path)[0], workers=workers)
    batches = loader.batches()
    assert len([next(batches) for _ in range(3)]) == 3  # the file is the last of 14
    with pytest.raises(InputError) as caught:
        next(batches)
    message = str(caught.value)
    assert message.startswith(f"cannot decode the image {broken}, expected a whole file") and "\n" not in message
    assert multiprocessing.active_children() == []  # though the exception keeps the generator's frame


def test_a_file_that_has_gone_is_named(tmp_path):
    files = list_imagenet(write_folder(tmp_path))[0]
    os.unlink(files.path(0))
    with pytest.raises(InputError, match=f"cannot decode the image {files.path(0)}"):
        next(evaluation_loader(files, workers=1).batches())


@pytest.mark.slow
def test_a_consumer_that_stops_early_leaves_no_worker(train):
    batches = training_loader(train, 2, workers=2).batches()
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def _program(folder):
    multiprocessing.get_context("fork").Process(target=_worker, args=(folder,)).start()
    time.sleep(PATIENCE)


def _worker(folder):
    sys.excepthook = lambda kind, error, trace: (folder / str(error)).touch()
    imagenet.leave_quietly(0)
    sys.excepthook(ValueError, ValueError("a fault"), None)
    sys.excepthook(EOFError, EOFError("closed while it lives"), None)
    (folder / "ready").touch()
    multiprocessing.parent_process().join()
    sys.excepthook(EOFError, EOFError("closed by its end"), None)
    (folder / "done").touch()


def test_a_worker_says_nothing_when_its_program_was_killed(tmp_path):
    program = copies().Process(target=_program, args=(tmp_path,))
    program.start()
    wait_for((tmp_path / "ready").exists)
    program.kill()
    program.join()
    wait_for((tmp_path / "done").exists)
    assert {path.name for path in tmp_path.iterdir()} == {"ready", "a fault", "closed while it lives", "done"}


def test_the_end_of_an_epoch_leaves_no_worker(train):
    loader = training_loader(train, workers=2)
    assert len(list(loader.batches())) == 3 and multiprocessing.active_children() == []
    assert len(list(loader.batches(1))) == 3  # and the next one starts anew


@pytest.mark.parametrize(("sentence", "batch_size", "keywords"), [
    ("batch size is 15, expected at most 14", 15, {}),
    ("batch size is 9, expected a multiple of 2", 9, {"world_size": 2}),
    ("batch size is 0, expected at least 1", 0, {}),
    ("decode training images is -1, expected 0 or more", 4, {"workers": -1}),
    ("training image size is 31, expected at least 32", 4, {"image_size": 31}),
])
def test_batches_that_cannot_be_made_are_refused(train, sentence, batch_size, keywords):
    with pytest.raises(InputError, match=sentence):
        training_loader(train, batch_size, **keywords)


def test_the_official_layout_has_a_test_folder_without_classes(folder):
    (folder / "test").mkdir()
    shutil.copy(next((folder / "val").rglob("*.*")), folder / "test")
    _, test = list_imagenet(folder)
    assert len(test) and all(name.startswith(b"val/") for name in test.names.tolist())
    shutil.rmtree(folder / "test")
    shutil.copytree(folder / "val", folder / "test")
    assert list_imagenet(folder)[1].names.tolist() == test.names.tolist()


def test_too_little_shared_memory_is_refused_before_anything_waits_for_ever(train, monkeypatch, tmp_path):
    monkeypatch.setattr(imagenet, "SHARED_MEMORY", str(tmp_path))
    monkeypatch.setattr(imagenet.shutil, "disk_usage", lambda place: SimpleNamespace(free=2 * 3 * 4 * 3 * 32**2 - 1))
    with pytest.raises(InputError, match=r"3 processes that decode need .* of shared memory .* --shm-size"):
        training_loader(train, 4, workers=3, image_size=32)
    training_loader(train, 4, workers=2, image_size=32)
    training_loader(train, 4, workers=0, image_size=32)
    monkeypatch.setattr(imagenet, "SHARED_MEMORY", str(tmp_path / "none"))
    training_loader(train, 4, workers=3, image_size=32)


def test_no_images_are_refused(train):
    with pytest.raises(InputError, match="there are no test images, expected at least 1"):
        evaluation_loader(train.subset(torch.arange(0)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("workers", [0, 2])
def test_same_batches_on_the_gpu(train, workers):
    state = torch.cuda.get_rng_state()
    batches = list(training_loader(train, workers=workers, device="cuda").batches())
    assert torch.cuda.get_rng_state().equal(state)
    assert all(part.is_cuda for batch in batches for part in batch)
    assert all(images.is_contiguous(memory_format=torch.channels_last) for images, _ in batches)
    assert_same([(images.cpu(), labels.cpu()) for images, labels in batches], training_loader(train).batches())
