"""What networks of users bring along: settings, formats, modes, tensors outside of their weights, and odd files."""

import json
import os
import textwrap
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import genotypes
from retrain import evaluate_subjects
from retrain.evaluate_subjects import require_same_everywhere
from tests.subjects import CLASSES, batch, network
from wsrnas import build_model, open_model, own_data, save_model
from wsrnas.data.image_set import ImageSet
from wsrnas.data.loader import BatchLoader
from wsrnas.evaluation.official import require_training_pass
from wsrnas.runtime.arithmetic import exact_arithmetic
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import InputError
from wsrnas.subjects.archives import verified_script
from wsrnas.subjects.checking import check_model
from wsrnas.subjects.fitting import NCHW, adapted
from wsrnas.subjects.model_source import make_source
from wsrnas.subjects.naming import display_names
from wsrnas.subjects.user_function import _loaded_from  # private: what a home folder brings cannot be asked otherwise

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning",
                                        "ignore::torch.jit.TracerWarning")


def precisions() -> dict[str, object]:
    """Every way in which torch says the precision of products; None where it refuses to say."""
    backends = torch.backends
    ways = {"matmul": lambda: backends.cuda.matmul.allow_tf32, "cudnn": lambda: backends.cudnn.allow_tf32,
            "word": torch.get_float32_matmul_precision, "all": lambda: backends.fp32_precision,
            "products": lambda: backends.cuda.matmul.fp32_precision,
            "convolutions": lambda: backends.cudnn.conv.fp32_precision,
            "cpu": lambda: backends.mkldnn.matmul.fp32_precision}
    found = {}
    for name, way in ways.items():
        try:
            found[name] = way()
        except RuntimeError:
            found[name] = None
    return found


@pytest.fixture
def own_precision():
    """Leave the precision to other tests as it was."""
    with exact_arithmetic():
        torch.backends.cudnn.allow_tf32 = True  # as torch starts
        torch.backends.cuda.matmul.allow_tf32 = False
        yield


SETTINGS = {
    "nothing": lambda: None,
    "the oldest way": lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
    "a word": lambda: torch.set_float32_matmul_precision("medium"),
    "the newest way": lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32"),
    "the newest way for all": lambda: setattr(torch.backends, "fp32_precision", "tf32"),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_numbers_are_in_full_float32_whatever_was_set_and_the_setting_is_back_afterwards(setting, own_precision):
    SETTINGS[setting]()
    before = precisions()
    with exact_arithmetic():
        inside = precisions()
        assert inside["matmul"] is False and inside["cudnn"] is False and inside["word"] == "highest"
        assert {inside["products"], inside["convolutions"], inside["cpu"], inside["all"]} <= {"ieee", "none"}
    after = precisions()
    assert {name: after[name] for name, value in before.items() if value is not None} == {
        name: value for name, value in before.items() if value is not None}


def file_of(folder: Path, text: str, name: str = "net.py") -> str:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("import os, torch\nfrom torch import nn\n" + textwrap.dedent(text))
    return f"{folder / name}:build"


BUILD = """
def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 7)).eval()
"""


@pytest.mark.parametrize("setting", [
    "torch.backends.cuda.matmul.allow_tf32 = True", "torch.set_float32_matmul_precision('high')",
    "torch.set_default_dtype(torch.float64)", "os.chdir(os.path.dirname(os.path.abspath(__file__)))",
    "torch.set_default_device('meta')"])
def test_what_a_users_file_sets_for_the_whole_program_ends_with_it(setting, tmp_path, own_precision):
    before = precisions(), torch.get_default_dtype(), os.getcwd(), torch.get_default_device()
    given = file_of(tmp_path, f"{setting}\n{BUILD}")
    try:
        open_model(given)
    except InputError:
        assert "meta" in setting  # its weights are nowhere
    assert (precisions(), torch.get_default_dtype(), os.getcwd(), torch.get_default_device()) == before
    with pytest.raises(InputError, match="raised"):
        open_model(file_of(tmp_path, f"{setting}\n1 / 0", "fails.py"))
    assert (precisions(), torch.get_default_dtype(), os.getcwd(), torch.get_default_device()) == before


class Patches(nn.Module):
    """It reads memory as if images were in NCHW format, which channels_last images are not."""

    def __init__(self, contiguous: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.contiguous, self.linear = contiguous, nn.Linear(192, CLASSES)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        images = images.contiguous() if self.contiguous else images
        return self.linear(images.as_strided((len(images), 192), (192, 1)))


def test_a_network_that_misreads_channels_last_images_gets_them_in_its_format():
    images, labels = batch(32)
    images = images.contiguous(memory_format=torch.channels_last)
    wrong, right = (adapted(Patches(contiguous), images, labels, CLASSES, range_is_known=True)
                    for contiguous in (False, True))
    assert NCHW in wrong.notes and right.notes == ()
    torch.testing.assert_close(wrong.model(images), right.model(images))


def test_random_logits_say_nothing_about_formats():
    class Noisy(Patches):
        def forward(self, images: Tensor) -> Tensor:
            logits = super().forward(images)
            return logits + 10 * torch.rand_like(logits)

    images, labels = batch(32)
    images = images.contiguous(memory_format=torch.channels_last)
    assert adapted(Noisy(True), images, labels, CLASSES, range_is_known=True).notes == ()


class Volumes(nn.Module):
    """A weight of five dimensions has no channels_last format."""

    def __init__(self) -> None:
        super().__init__()
        self.filter, self.linear = nn.Conv3d(1, 1, 3, padding=1), nn.Linear(192, CLASSES)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.filter(images.unsqueeze(1)).flatten(1))


def test_a_network_with_weights_of_five_dimensions_is_taken(tmp_path):
    from wsrnas.subjects.fitting import fitted
    from wsrnas.subjects.images import EvaluationImages
    images, labels = batch(12)
    chosen = ImageSet((images * 255).to(torch.uint8).contiguous(memory_format=torch.channels_last), labels)
    shown = EvaluationImages("mine", BatchLoader(chosen, 5, 0, "test"), CLASSES, (3, 8, 8), "")
    assert fitted(make_source(Volumes(), "a.py:b", "a"), shown, torch.device("cpu")).has_gradient


def test_a_network_traced_in_training_mode_is_refused_and_a_scripted_one_asked(tmp_path):
    images, labels = batch(32)
    traced = torch.jit.trace(network().train(), images, check_trace=False)
    traced.eval()
    with pytest.raises(InputError, match=r"traced in training mode \(its batch_norm is switched to it\)"):
        check_model(traced, images, labels, CLASSES, range_is_known=True)
    for model in (torch.jit.trace(network().eval(), images), torch.jit.script(network().train()).eval()):
        check_model(model, images, labels, CLASSES, range_is_known=True)


def test_a_network_around_an_exported_program_is_taken_and_its_graph_is_asked(tmp_path):
    images, labels = batch(32)
    program = torch.export.export(network().eval(), (images,), dynamic_shapes=({0: torch.export.Dim("rows")},)).module()
    check_model(_around(program), images, labels, CLASSES, range_is_known=True)
    trained = torch.export.export(network().train(), (images,)).module()
    with pytest.raises(InputError, match="exported in training mode"):
        check_model(_around(trained), images, labels, CLASSES, range_is_known=True)


def _around(program: nn.Module) -> nn.Module:
    model = nn.Sequential(nn.Identity(), program)
    model.training = model[0].training = False  # eval() is not supported inside
    return model


@pytest.mark.parametrize("decomposed", [False, True])
def test_instance_norm_has_no_training_mode(decomposed, tmp_path):
    images, labels = batch(32)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4), nn.Flatten(), nn.Linear(144, CLASSES)).eval()
    program = torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim("rows")},))
    program = program.run_decompositions() if decomposed else program
    check_model(_around(program.module()), images, labels, CLASSES, range_is_known=True)


def test_a_fingerprint_covers_tensors_outside_of_weights_and_buffers():
    def made(scale: float, kind: str) -> str:
        model = network()
        value = torch.full((3,), scale)
        model.scale = {"tensor": value, "array": value.numpy(), "sparse": value.to_sparse()}[kind]
        return make_source(model, "a", "a").fingerprint

    for kind in ("tensor", "array", "sparse"):
        assert made(1, kind) == made(1, kind) != made(2, kind)


@pytest.mark.skipif("fbgemm" not in torch.backends.quantized.supported_engines, reason="no quantised layers here")
def test_a_fingerprint_covers_packed_weights():
    def made(seed: int) -> str:
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()
        return make_source(torch.ao.quantization.quantize_dynamic(model, {nn.Linear}), "a", "a").fingerprint

    assert made(0) == made(0) != made(1)


def test_a_fingerprint_does_not_cover_python_itself():
    found = list(_loaded_from(Path(os.path.abspath(json.__file__)).parents[2]))
    assert not [path for path in found if path.name == "decoder.py" and path.parent.name == "json"]


@pytest.mark.parametrize(("source", "named"), [
    ("__torch__.torchvision.ops.misc.Conv2dNormActivation", ""), ("__torch__ . torchvision . ops . misc . Norm", ""),
    ("ops.prim.NumToTensor(x)", ""), ("torch.ops.aten.add(x)", ""),
    ("ops.evil.run(x)", "evil"), ("torch.ops.evil.run(x)", "evil"), ("torch . ops . evil . run(x)", "evil"),
    ("x = ops  .\n evil.run(x)", "evil"), ("(ops.evil.run)(x)", "evil"), ("a,ops.evil.run", "evil")])
def test_operations_of_scripts_are_told_from_packages_called_ops(source, named):
    from wsrnas.subjects.archives import packed
    data = packed({"a/code/__torch__/net.py": source.encode()}).getvalue()
    if not named:
        verified_script(data, "it")
        return
    with pytest.raises(InputError, match=f"calls operations of '{named}'"):
        verified_script(data, "it")


def test_an_archive_of_many_entries_is_read_in_time():
    from wsrnas.subjects.archives import packed
    verified_script(packed({f"a/{number}": b"" for number in range(20_000)}).getvalue(), "it")  # not in its square


def test_one_damaged_byte_of_an_archive_is_one_sentence(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"x": torch.zeros(3)}, path)
    whole = path.read_bytes()
    at = whole.rindex(b"PK\x06\x07") + 16  # the zip64 locator: number of disks
    path.write_bytes(whole[:at] + b"\x07" + whole[at + 1:])
    with pytest.raises(InputError, match="damaged or not a checkpoint"):
        open_model(path)


class Two(nn.Module):
    """It returns auxiliary logits in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(192, CLASSES)
        self.eval()

    def forward(self, images: Tensor):
        logits = self.linear(images.flatten(1))
        return (logits, logits) if self.training else logits


def loader_of(count: int) -> BatchLoader:
    images, labels = batch(count)
    return BatchLoader(ImageSet((images * 255).to(torch.uint8).contiguous(memory_format=torch.channels_last), labels),
                       5, 0, "test")


def test_a_network_that_the_published_way_cannot_evaluate_is_refused_at_the_door():
    with pytest.raises(InputError, match=r"a.py:b cannot be evaluated in the published way.*returns a tuple"):
        require_training_pass(Two(), loader_of(30), "a.py:b")
    single = nn.Sequential(nn.Flatten(), nn.Linear(192, CLASSES), nn.BatchNorm1d(CLASSES)).eval()
    require_training_pass(single, loader_of(25), "a.py:b")
    with pytest.raises(InputError, match=r"with batches of 1 images .*Expected more than 1 value per channel"):
        require_training_pass(single, loader_of(26), "a.py:b")
    assert not single.training


def test_networks_that_differ_between_processes_are_refused(monkeypatch):
    require_same_everywhere(["0123456789abcdef"], World())
    other = iter([torch.tensor([1.0], dtype=torch.float64), torch.tensor([-2.0], dtype=torch.float64)])
    monkeypatch.setattr(evaluate_subjects, "all_min", lambda values, world: next(other))
    with pytest.raises(InputError, match="other weights in each process"):
        require_same_everywhere(["0123456789abcdef"], World())


def saved_data():
    return own_data((torch.rand(20, 3, 8, 8), torch.arange(20) % 4))


@pytest.mark.parametrize(("settings", "named"), [({"folder": Path("x")}, "the setting folder is a PosixPath"),
                                                 ({"rates": [torch.zeros(1)]}, "the setting rates is a list"),
                                                 ({"table": {1: 2}}, "the setting table is a dict")])
def test_settings_that_no_program_could_read_are_refused_before_anything_is_written(settings, named, tmp_path):
    model = build_model("WsrNet_Basic", 4, init_channels=4, layers=3)
    with pytest.raises(InputError, match=named):
        save_model(model, tmp_path / "a.pt", "WsrNet_Basic", saved_data(), 4, 3, **settings)
    assert list(tmp_path.iterdir()) == []


def test_settings_are_kept_without_a_number_of_epochs_and_a_saved_path_opens(tmp_path):
    model = build_model("WsrNet_Basic", 4, init_channels=4, layers=3)
    path = save_model(model, tmp_path / "a.pt", "WsrNet_Basic", saved_data(), 4, 3, lr=0.1, steps=[1, 2], note=None)
    assert open_model(path).record["config"] == {"epochs": 0, "lr": 0.1, "steps": [1, 2], "note": None}
    with pytest.raises(InputError, match="weights is 'final'; expected one of best, last"):
        open_model(path, "final")


def test_a_folder_is_not_moved_away_for_a_network(tmp_path, monkeypatch):
    model = build_model("WsrNet_Basic", 4, init_channels=4, layers=3)
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    for place in ("mine", "", "."):
        with pytest.raises(InputError, match="is a folder; expected a file such as NAME"):
            save_model(model, place, "WsrNet_Basic", saved_data(), 4, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_genotype_of_equal_shapes_is_another_network(tmp_path):
    own = genotypes.load("WsrNet_Basic")
    other = type(own).from_json(own.to_json().replace("avg_pool", "max_pool"))
    model = build_model(own, 4, init_channels=4, layers=3)
    assert other != own
    with pytest.raises(InputError, match="its cells have other operations of the same shapes"):
        save_model(model, tmp_path / "a.pt", other, saved_data(), 4, 3)


def test_an_empty_name_is_refused():
    with pytest.raises(InputError, match="a name of --names is empty"):
        display_names([make_source(network(), "a", "a")], [""])

