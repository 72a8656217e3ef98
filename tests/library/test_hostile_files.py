"""Files that try to execute something, to open other files, or to fill the memory: refused in a sentence, untouched."""

import gzip
import io
import json
import os
import pickle
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import genotypes
from wsrnas.data.own import read_arrays
from wsrnas.models import build_model, description
from wsrnas.runtime import checkpoint
from wsrnas.runtime.errors import InputError, fail
from wsrnas.subjects.opening import open_model

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning",
                                        "ignore:.*:torch.jit.TracerWarning")
HERE = "executed"  # what hostile files make in the working directory
PREFIX = "archive/"
MODEL, WEIGHTS = f"{PREFIX}models/model.json", f"{PREFIX}data/weights/"
CALL = f"__import__('os').mkdir('{HERE}')"


class Trap:
    """Make a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, (HERE,)


def pickled(value) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def exported() -> dict[str, bytes]:
    """The entries of a small network's archive; its batch has any size from 1 to 64."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 5))
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model.eval(), (torch.zeros(2, 3, 8, 8),), dynamic_shapes={"input": {0: batch}})
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    with zipfile.ZipFile(buffer) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def written(path: Path, entries: dict[str, bytes], twice: str = "") -> str:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
        if twice:
            archive.writestr(twice, entries[twice])
    return str(path)


def changed(entries: dict[str, bytes], change) -> dict[str, bytes]:
    document = json.loads(entries[MODEL])
    change(document)
    return entries | {MODEL: json.dumps(document).encode()}


def with_text(old: str, new: str):
    """Replace a text of the model's JSON."""
    def change(entries):
        quoted = json.dumps(old).encode()
        assert quoted in entries[MODEL]
        return entries | {MODEL: entries[MODEL].replace(quoted, json.dumps(new).encode())}
    return change


def with_expression(text: str):
    def change(entries):
        found = re.search(rb'"expr_str": ("[^"]*")', entries[MODEL])
        return entries | {MODEL: entries[MODEL].replace(found[1], json.dumps(text).encode())}
    return change


def with_target(target: str, *arguments):
    """Replace an operation of the graph."""
    def change(document):
        node = document["graph_module"]["graph"]["nodes"][2]
        node["target"] = target
        node["inputs"] = [{"name": "", "arg": argument, "kind": 1} for argument in arguments]
    return lambda entries: changed(entries, change)


def with_tree(**tree):
    def change(document):
        for call in document["graph_module"]["module_call_graph"]:
            if call["signature"]:
                protocol, spec = json.loads(call["signature"]["in_spec"])
                call["signature"]["in_spec"] = json.dumps([protocol, spec | tree])
    return lambda entries: changed(entries, change)


def with_weight(content: bytes | None = None, **payload):
    """Change the first weight and what is said of it."""
    def change(entries):
        config = json.loads(entries[f"{WEIGHTS}model_weights_config.json"])
        first = next(iter(config["config"].values()))
        first.update(payload)
        return entries | {f"{WEIGHTS}model_weights_config.json": json.dumps(config).encode()} | (
            {} if content is None else {f"{WEIGHTS}weight_0": content})
    return change


HOSTILE_EXPORTS = {
    "pickled weights": (lambda e: e | {f"{WEIGHTS}model.pt": pickled({"a": Trap()})}, "could run any code"),
    "pickled constants": (lambda e: e | {f"{PREFIX}data/constants/model.pt": pickled({"a": Trap()})},
                          "could run any code"),
    "a pickled weight": (with_weight(pickled(Trap()), use_pickle=True), "pickled object '0.weight'"),
    "an opaque object": (lambda e: e | {
        f"{PREFIX}data/constants/model_constants_config.json": json.dumps({"config": {"o": {
            "path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}}}).encode(),
        f"{PREFIX}data/constants/opaque_obj_0": pickle.dumps(Trap())}, "pickled object 'o'"),
    "an unknown entry": (lambda e: e | {f"{PREFIX}data/constants/custom_obj_0": b"x"}, "not an entry of a network"),
    "a function of os": (with_target("torch.os.mkdir", {"as_string": HERE}), "calls 'torch.os.mkdir'"),
    "torch.load": (with_target("torch.load", {"as_string": "x.pt"}), "calls 'torch.load'"),
    "a library": (with_target("torch.ops.load_library", {"as_string": "x.so"}), "calls 'torch.ops.load_library'"),
    "globals": (with_target("torch.ops.aten.add.__init__", {"as_string": "x"}), "calls 'torch.ops.aten.add.__init__'"),
    "a file as tensor": (with_target("torch.ops.aten.from_file.default", {"as_string": HERE}, {"as_bool": True},
                                     {"as_int": 9}), "calls 'torch.ops.aten.from_file.default'"),
    "an operation on files": (with_target("torch.ops.image.write_file.default", {"as_string": HERE}),
                              "calls 'torch.ops.image.write_file.default'"),
    "a method caller": (with_target("_operator.methodcaller", {"as_string": "x"}), "calls '_operator.methodcaller'"),
    "an extension": (with_target("#x:y"), "would be made"),
    "code in a shape": (with_expression(CALL), "as the expression of a shape"),
    "an attribute in a shape": (with_expression("Symbol('s1').__class__"), "as the expression of a shape"),
    "code in a symbol": (with_expression(f"Symbol({CALL!r})"), "as the expression of a shape"),
    "an endless power": (with_expression("Pow(Integer(9), Pow(9, Pow(9, 9)))"), "as the expression of a shape"),
    "a long shape": (with_expression("1+" * 5000 + "1"), "too long"),
    "code as a name": (with_text("input", f"input={CALL}"), "of which code would be made"),
    "code as a weight": (with_text("0.weight", f'0"), {CALL}, ("'), "of which code would be made"),
    "an import": (with_tree(context=json.dumps({"__enum__": True, "fqn": "antigravity:x", "name": "y"})),
                  "keys that are no text"),
    "another container": (with_tree(type="collections.defaultdict"), "of the type 'collections.defaultdict'"),
    "another file": (with_weight(path_name="../../../etc/passwd"), "names the file '../../../etc/passwd'"),
    "a giant of zeros": (with_weight(b"", tensor_meta={
        "dtype": 7, "sizes": [{"as_int": 10**14}], "requires_grad": False, "strides": [{"as_int": 1}], "layout": 7,
        "device": {"type": "cpu", "index": None}, "storage_offset": {"as_int": 0}}), "has no contents for the weight"),
    "a nested document": (lambda e: e | {MODEL: b"[" * 100_000}, "cannot be loaded (RecursionError"),
}


@pytest.mark.parametrize("kind", HOSTILE_EXPORTS)
def test_a_hostile_export_is_refused(kind, exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    change, words = HOSTILE_EXPORTS[kind]
    before = set(sys.modules)
    with pytest.raises(InputError) as caught:
        open_model(written(tmp_path / "best.pt", change(exported)))
    assert words in str(caught.value) and "best.pt" in str(caught.value), caught.value
    assert len(str(caught.value)) < 500 + len(str(tmp_path))
    assert not Path(HERE).exists() and "antigravity" not in set(sys.modules) - before


@pytest.mark.parametrize("change", [
    lambda e: e | {f"{PREFIX}data/sample_inputs/model.pt": pickled({"a": Trap()})},
    lambda e: changed(e, lambda d: d.update(guards_code=[CALL])),
    lambda e: changed(e, lambda d: d["graph_module"]["graph"]["nodes"][0]["metadata"].update(source_fn_stack=CALL)),
])
def test_what_an_export_does_not_need_is_not_read(change, exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = torch.rand(70, 3, 8, 8)
    model, same = (open_model(written(tmp_path / "a.pt", entries)).model for entries in (change(exported), exported))
    assert torch.equal(model(images), same(images)) and not Path(HERE).exists()


def test_an_entry_that_is_there_twice_is_refused(exported, tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        file = written(tmp_path / "a.pt2", exported, twice=MODEL)
    with pytest.raises(InputError, match="twice"):
        open_model(file)


# -- TorchScript ------------------------------------------------------------------------------------------------------

class Saves(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        torch.save(images, "executed")
        return images


class Loads(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return torch.from_file("executed", True, 9)


class SavesWhenItIsLoaded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, bool]:
        return self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, bool]) -> None:
        self.weight = state[0]
        self.training = state[1]
        torch.save(state[0], "executed")

    def forward(self, images: Tensor) -> Tensor:
        return images * self.weight


@pytest.mark.parametrize(("kind", "word"), [(Saves, "save"), (Loads, "from_file"), (SavesWhenItIsLoaded, "save")])
def test_a_script_that_touches_files_is_refused_before_it_is_loaded(kind, word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.jit.script(kind()).save("best.pt")
    with pytest.raises(InputError, match=rf"calls {word} in .*, which may read or write files"):
        open_model("best.pt")
    assert not Path(HERE).exists()


@pytest.mark.parametrize("line", ["ops.image.write_file(\"x\", images)", "ops . rpc . rpc_sync(\"x\")",
                                  "__torch__.torch.classes.rpc.Server()"])
def test_a_script_with_operations_of_others_is_refused(line, tmp_path):
    torch.jit.script(nn.ReLU()).save(str(tmp_path / "a.pt"))
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    code = next(name for name in entries if name.endswith(".py"))
    with pytest.raises(InputError, match=r"calls (operations of '(image|rpc)'|write_file)"):
        open_model(written(tmp_path / "a.pt", entries | {code: entries[code] + f"\n    _ = {line}\n".encode()}))


# -- checkpoints ------------------------------------------------------------------------------------------------------

CELL = genotypes.load("WsrNet_Basic")


@pytest.fixture(scope="module")
def payload():
    model = build_model(CELL, 5, 2, 3)
    return {"model": model.state_dict(), "step": 1, "network": description(CELL, 5, 2, 3, "cifar10", (3, 32, 32))}


def network(**entries):
    return lambda payload: payload | {"network": payload["network"] | entries}


def named(arch):
    def change(payload):
        about = {key: value for key, value in payload["network"].items() if key != "genotype"}
        return payload | {"network": about | {"arch": arch}}
    return change


@pytest.mark.parametrize(("change", "words"), [
    (lambda p: p | {"trap": Trap()}, "pickled posix.mkdir, and reading it could run any code"),
    (lambda p: Trap(), "pickled posix.mkdir"),
    (named("../../secret.json"), "unknown architecture '../../secret.json'; expected the name"),
    (named("/etc/passwd"), "unknown architecture '/etc/passwd'"),
    (named("x" * 5000), "(5002 letters)"), (named(["vgg16"]), "unknown architecture ['vgg16']"),
    (named("WsrNet_Basic"), "unknown architecture 'WsrNet_Basic'"),
    (network(genotype=3), "stored genotype is 3; expected text"), (network(genotype="/etc/passwd"), "not JSON text"),
    (network(genotype="[" * 100_000), "not JSON text"),
    (network(layers=10**9), "stored layers is 1000000000; expected an integer from 1 to 1000"),
    (network(layers=-3), "stored layers is -3"), (network(layers=True), "stored layers is True"),
    (network(layers=3.0), "stored layers is 3.0"), (network(init_channels=10**9), "stored init_channels is 1000000000"),
    (network(init_channels=None), "stored init_channels is None"), (network(num_classes=10**400), "about 401 digits"),
    (network(num_classes="5"), "stored num_classes is '5'"), (network(num_classes=10**6), "has shape"),
    (network(layers=1000), "they have 3 cells, and it has 1000"), (network(init_channels=4096), "has shape"),
    (network(dataset=3), "stored dataset is 3"),
    (network(image_shape=[3]), "stored image_shape is [3]"), (network(image_shape=None), "stored image_shape is None"),
    (network(image_shape=[10**9, 32, 32]), "stored image_shape is"),
    (lambda p: p | {"model": [1]}, "its model is no dictionary of tensors"),
    (lambda p: p | {"model": {}}, "do not fit"), (lambda p: p | {"model": {3: torch.ones(1)}}, "no dictionary"),
    (lambda p: p | {"model": p["model"] | {"cells.99999999.x": torch.ones(1)}}, "have 100000000 cells, and it has 3"),
    (lambda p: p | {"model": p["model"] | {"x" * 9000: torch.ones(1)}}, "(9002 letters)"),
    (lambda p: p | {"network": []}, "no network description"), (lambda p: {}, "no network description"),
])
def test_a_hostile_checkpoint_is_refused(change, words, payload, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(change(payload), "best.pt")
    with pytest.raises(InputError) as caught:
        open_model("best.pt")
    message = str(caught.value)
    assert words in message and len(message) < 500 and "\n" not in message, message
    assert "weights_only" not in message and "trusted" not in message  # torch's advice to read it unsafely
    assert not Path(HERE).exists()


@pytest.mark.parametrize("key", ["cells.99999999.x", f"cells.{'9' * 5000}.x"])
def test_weights_of_absurdly_many_cells_build_nothing(key, payload, tmp_path):
    torch.save(payload["model"] | {key: torch.ones(1)}, tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"layers is 100000000; expected at most 1000|the network has no"):
        open_model("WsrNet_Basic", genotype=CELL, state_dict=str(tmp_path / "w.pt"), num_classes=5)


@pytest.mark.parametrize(("change", "words"), [
    (lambda v: v.to_sparse(), "classifier.weight is sparse, expected a dense tensor"),
    (lambda v: v.to("meta"), "classifier.weight has a shape and no numbers"),
    (lambda v: v.to(torch.complex64), "classifier.weight holds complex64, expected floating-point numbers"),
    (lambda v: v.to(torch.int8), "classifier.weight holds int8, expected floating-point numbers"),
    (lambda v: torch.quantize_per_tensor(v, 0.1, 0, torch.qint8), "classifier.weight holds qint8, expected"),
])
def test_weights_that_are_no_plain_numbers_are_refused(change, words, payload, tmp_path):
    weights = payload["model"] | {"classifier.weight": change(payload["model"]["classifier.weight"])}
    torch.save(weights, tmp_path / "w.pt")
    with pytest.raises(InputError, match=words):
        open_model("WsrNet_Basic", genotype=CELL, state_dict=str(tmp_path / "w.pt"), num_classes=5)


def test_numbers_of_numpy_beside_weights_do_no_harm(payload, tmp_path):
    kinds = ("float64", "float16", "bool", "int8", "uint8", "uint32", "int64")
    torch.save({"state_dict": payload["model"]} | {name: np.dtype(name).type(1) for name in kinds}, tmp_path / "w.pt")
    open_model("WsrNet_Basic", genotype=CELL, state_dict=str(tmp_path / "w.pt"), num_classes=5)


def zipped(**entries):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def saved_by_numpy(save, *arrays, **named):
    buffer = io.BytesIO()
    save(buffer, *arrays, **named)
    return buffer.getvalue()


TRAPPED = np.array([Trap()], dtype=object)
MISTAKEN = {  # what people take for weights or arrays, and words of the sentence
    "protocol 4": (pickle.dumps(Trap(), protocol=4), "it is a pickle, and reading it could run any code"),
    "joblib": (pickle.dumps({"a": TRAPPED}, protocol=5), "it is a pickle, and reading it could run any code"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:a\nsize 9\n", "it is a pointer of Git LFS"),
    "web page": (b"<!DOCTYPE html><title>404</title>", "it is a web page"),
    "another page": (b"<HTML>", "it is a web page"),
    "gzip": (gzip.compress(pickle.dumps(Trap())), "it is packed by gzip"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "it is an HDF5 file"),
    "zip": (zipped(**{"__main__.py": "import os"}), "it is a zip archive of another program than torch.save"),
    "npz": (saved_by_numpy(np.savez, x=np.ones(2)), "it is a zip archive of another program than torch.save"),
    "npy": (saved_by_numpy(np.save, TRAPPED), "it is an array of NumPy"),
    "text": (b"hello world\n", "its bytes are not those of torch.save"),
    "letters": (b"abc", "its bytes are not those of torch.save"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", MISTAKEN)
def test_a_file_of_another_kind_is_called_what_it_is(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, words = MISTAKEN[kind]
    Path("w.pt").write_bytes(content)
    with pytest.raises(InputError) as caught:
        checkpoint.read(Path("w.pt"))
    assert f"checkpoint w.pt cannot be read ({words}" in str(caught.value) and not Path(HERE).exists()


@pytest.mark.parametrize(("content", "words"), [
    (saved_by_numpy(np.savez, x_train=TRAPPED, y_train=np.zeros(1)), "it holds pickled objects, and reading them"),
    (pickle.dumps(Trap(), protocol=4), "it is a pickle, and reading it could run any code"),
    (pickle.dumps(Trap(), protocol=2), "it is no file of NumPy"), (b"<html>", "it is a web page"),
])
def test_arrays_are_never_unpickled_and_nothing_advises_it(content, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.npz").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_arrays(Path("a.npz"), "own")
    assert words in str(caught.value) and "allow_pickle" not in str(caught.value) and not Path(HERE).exists()


def test_an_archive_that_unpacks_to_far_more_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(10**8))
    with pytest.raises(InputError, match=r"would unpack from .* bytes to 100000000"):
        checkpoint.read(tmp_path / "a.pt")


def test_a_sentence_is_one_line_of_bounded_length(capsys):
    with pytest.raises(SystemExit):
        fail("the name '" + "x" * 10**6 + "\n\x1b[31m\udce4' is too long; expected a short one")
    said = capsys.readouterr().err
    assert said.startswith("error: the name 'xxx") and said.endswith("is too long; expected a short one\n")
    assert len(said) <= 500 and said.count("\n") == 1 and "\x1b" not in said and "\udce4" not in said


def test_torchs_own_loader_would_execute_these_files(exported, tmp_path, monkeypatch):
    """The reason for the checks: without it, they could be left out."""
    monkeypatch.chdir(tmp_path)
    change, _ = HOSTILE_EXPORTS["code in a shape"]
    file = written(tmp_path / "a.pt2", change(exported))
    with pytest.raises(Exception, match=r"is_Integer|read_bytes|loaded|deserializ"):
        torch.export.load(file)
    assert Path(HERE).is_dir()
