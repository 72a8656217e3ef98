"""A table of bad inputs to all programs: each ends at once with one short sentence, exit code 2 and nothing written.

A dry run and a run say the same. ``test_bad_input`` has what needs data or trained networks. This table is about
values, names and files.
"""

import dataclasses
import importlib
import json
import os
import signal
from collections.abc import Iterator
from typing import Any, get_type_hints

import pytest

import genotypes
from retrain.evaluate_settings import EvaluateConfig
from retrain.export import ExportConfig
from retrain.race.settings import CompareConfig
from retrain.settings import ImageNetConfig, RetrainConfig
from retrain.vulnerability.settings import VulnerabilityConfig
from search.rankings.settings import RankingConfig
from search.rnas_settings import RnasConfig
from search.tabular_settings import TabularConfig
from search.wsr_nas_settings import PRESETS, SearchConfig
from test_AN_estimator.settings import BenchmarkConfig
from tests.soak_programs import FOLDERS, NEEDS, PROGRAMS, main_of
from wsrnas.runtime.config import from_dict, to_dict
from wsrnas.runtime.errors import InputError, fail
from wsrnas.runtime.program import run_program

pytestmark = pytest.mark.usefixtures("quick_programs")

SECONDS = 20  # the limit of one input; it takes milliseconds on an idle machine
MANY = "9" * 400
LONG = "x" * 5000
HALF = "a\udce4b"  # a byte that is not UTF-8, as the command line hands it on
SMALL = {
    "search.wsr_nas": "--preset tiny --device cpu",
    "search.rnas": "--preset tiny --device cpu",
    "search.tabular": "--table demo",
    "search.ranking": "",
    "retrain.train_cifar": "--preset tiny --device cpu",
    "retrain.train_imagenet": "--recipe tiny --device cpu",
    "retrain.evaluate": "--device cpu --dataset digits",
    "retrain.compare": "--device cpu --dataset digits",
    "retrain.export": "",
    "retrain.vulnerability.__main__": "--device cpu",
    "test_AN_estimator.benchmark": "--device cpu --dataset digits",
    "wsrnas.models": "", "wsrnas.report.writing": "", "wsrnas.plotting": "", "wsrnas.__main__": "",
}
SEARCHES = ("search.wsr_nas", "search.rnas")
TRAININGS = ("retrain.train_cifar", "retrain.train_imagenet")
RUNS = (*SEARCHES, *TRAININGS)
CONFIGURED = [program for program in SMALL if not program.startswith("wsrnas")]

Case = tuple[str, list[str], str]


def cases() -> Iterator[Case]:
    """Yield a program, arguments, and words of its sentence; files are those of ``files``."""
    for program in CONFIGURED:
        yield program, ["--nonsense", "1"], "unknown argument '--nonsense'"
        yield program, ["--" + LONG], "unknown argument '--xxx"
        for name, words in FILES.items():
            yield program, ["--config", name], words
        yield program, ["--config", LONG], "file name too long"
    for program in RUNS:
        for value in (".", "..", "a/../b", "x/.."):
            yield program, ["--save", value], "without . and .."
        for value in (" ", "\t", "a\nb", "a\x1b[31m", "~", "~/run"):
            yield program, ["--save", value], "expected the name of a folder, printable and without ~"
        yield program, ["--save", "y" * 300], "expected a name of at most 255 bytes"
        yield program, ["--save", LONG], "save is 'xxx"
        yield program, ["--save", HALF], "which is not UTF-8 text"
        yield program, ["--seed", MANY], "seed is a number of about 40"
        yield program, ["--seed", "-" + MANY], "seed is a number of about 40"
        yield program, ["--seed", "9" * 5000], "invalid int value"
        yield program, ["--batch_size", "99999999999999999999"], "batch_size is 99999999999999999999; expected at most"
        yield program, ["--init_channels", "100000000"], "init_channels is 100000000; expected at most 4096"
        yield program, ["--layers", "1000000000"], "layers is 1000000000; expected at most 1000"
        yield program, ["--layers", "1e3"], "invalid int value: '1e3'"
        yield program, ["--learning_rate", "inf"], "learning_rate is inf"
        yield program, ["--learning_rate", "1/0"], "is not a number"
        yield program, ["--learning_rate", MANY], "learning_rate is inf"
        yield program, ["--learning_rate", ""], "is not a number"
        yield program, ["--momentum", "1.5"], "momentum is 1.5"
        yield program, ["--momentum", "nan"], "momentum is nan"
        yield program, ["--learning_rate", "0.01", "--learning_rate_min", "0.1"], "expected 0 to its peak"
        yield program, ["--epsilon", "1e-300"], "epsilon is 1e-300"
        yield program, ["--epsilon", "inf"], "epsilon is inf"
        yield program, ["--num_steps", "1000000000"], "num_steps is 1000000000; expected at most"
        yield program, ["--weight_decay", "nan"], "weight_decay is nan"
    for program in TRAININGS:
        yield program, ["--epochs", "99999999999999999999"], "epochs is 99999999999999999999; expected at most 100000"
        yield program, ["--arch", LONG], "arch is 'xxx"
        yield program, ["--arch", HALF], "which is not UTF-8 text"
        yield program, ["--arch", "\U0001f984"], "unknown architecture"
        yield program, ["--arch", ""], "arch"
        yield program, ["--arch", "/dev/zero"], "/dev/zero is a device; expected a file"
        for name, words in ARCHITECTURES.items():
            yield program, ["--arch", name], words
        yield program, ["--beta", "inf"], "beta is inf"
        yield program, ["--cutout", "1000000"], "cutout is 1000000; expected at most" if program.endswith(
            "cifar") else "unknown argument '--cutout'"
        yield program, ["--strengths", *["0.01"] * 10_001], "strengths has 10001 entries"
        yield program, ["--arch", "z" * 4000], "unknown architecture 'zzz"
    for program in SEARCHES:
        yield program, ["--tau", "inf"], "tau is inf"
        yield program, ["--tau", "nan"], "tau is nan"
        yield program, ["--vulnerability_bound", "nan"], "vulnerability_bound"
        yield program, ["--vulnerability_bound", LONG], "vulnerability_bound is"
        yield program, ["--alpha_std", "inf"], "alpha_std is inf"
    yield "search.rnas", ["--epochs", "99999999999999999999"], "epochs is 99999999999999999999; expected at most 100000"
    yield "search.rnas", ["--upper_weights", "inf", "1"], "upper_weights is inf"
    yield "search.wsr_nas", ["--iterations", "10000000"], "iterations is 10000000; expected at most 100000"
    yield "search.wsr_nas", ["--strength_weights", "inf", "0", "0", "0"], "strength_weights is inf"
    yield "search.wsr_nas", ["--alpha", "nan"], "alpha"
    yield "search.wsr_nas", ["--check_images", "3"], "check_images is 3"
    yield "search.wsr_nas", ["--supernet", LONG], "supernet"
    yield "search.tabular", ["--seeds", "1000000000"], "seeds is 1000000000; expected at most 10000"
    yield "search.tabular", ["--noise", "nan"], "noise is nan"
    yield "search.tabular", ["--proxy", "nan"], "proxy is nan"
    yield "search.tabular", ["--noise", "inf"], "noise is inf"
    yield "search.tabular", ["--queries", MANY], "queries is a number of about 40"
    for name, words in TABLES.items():
        yield "search.tabular", ["--table", name], words
        yield "search.ranking", ["--run", "nowhere", "--table", name], words
    yield "search.tabular", ["--table", "x" * 4000], "file name too long"
    for name, words in MODELS.items():
        for program in ("retrain.evaluate", "retrain.export", "retrain.vulnerability.__main__"):
            yield program, ["--model", name], words
        yield "retrain.evaluate", ["--model", "RACL", "--state_dict", name], ""
    yield "retrain.evaluate", ["--model", "x" * 4000], "no checkpoint at 'xxx"
    yield "retrain.evaluate", ["--model", HALF], "which is not UTF-8 text"
    yield "retrain.evaluate", ["--model", "x" * 4000 + ".py:f"], "no Python file"
    yield "retrain.evaluate", ["--model", "folder.py:f"], "no Python file"
    yield "retrain.evaluate", ["--model", "x", "--strengths", "1e-300"], "strengths is 1e-300"
    yield "retrain.compare", ["--archs", "x" * 4000], "unknown architecture"
    yield "retrain.compare", ["--archs", "RACL", "--budget", f"params={MANY}M"], "budget"
    yield "retrain.compare", ["--archs", "RACL", "--budget", LONG], "budget"
    yield "retrain.compare", ["--archs", "RACL", "--tolerance", "inf"], "tolerance is inf"
    yield "retrain.compare", ["--archs", "RACL", "--seeds", "1000000000"], "seeds is 1000000000"
    yield "test_AN_estimator.benchmark", ["--networks", "cna_r:1"], "networks"
    yield "test_AN_estimator.benchmark", ["--networks", f"cna_r:{MANY}:1"], ""
    yield "test_AN_estimator.benchmark", ["--networks", f"{LONG}:2:1"], ""
    yield "wsrnas.models", ["--list", "--dataset", LONG], "invalid choice"
    yield "wsrnas.report.writing", [], "the following arguments are required: run"
    for name in ("nowhere", LONG, "loop", "pipe", "empty.json", "/dev/zero"):
        yield "wsrnas.report.writing", [name], "is not a run directory"
        yield "wsrnas.plotting", [name, "out"], ""
    yield "wsrnas.plotting", ["RACL", LONG], "its name is too long"
    yield "wsrnas.plotting", ["RACL", "/proc/nowhere/out"], "/proc/nowhere"
    yield "wsrnas.__main__", ["--nonsense"], "unknown command '--nonsense'"


FILES = {"nowhere": "the configuration nowhere does not exist", "folder": "is a folder; expected a file",
         "pipe": "is a pipe; expected a file", "loop": "cannot be read: too many levels of symbolic links",
         "/dev/zero": "is a device; expected a file", "empty.json": "is not JSON", "deep.json": "nested too deep",
         "bytes.json": "is not UTF-8 text", "zeros.json": "is not JSON", "list.json": "expected a JSON object",
         "digits.json": "is not JSON", "huge.json": "expected at most", "null.json": "expected a JSON object"}
ARCHITECTURES = {"pipe": "is a pipe", "loop": "cannot be read", "deep.json": "not JSON", "bytes.json": "is not UTF-8",
                 "empty.json": "is not JSON", "list.json": "is a list", "folder": "holds no genotype.json",
                 "digits.json": "not JSON", "half.json": "unknown operation", "nowhere/x.json": "does not exist"}
TABLES = {name: words.replace("the configuration ", "").replace("expected a JSON object", "expected an object")
          for name, words in FILES.items() if name != "huge.json"}
MODELS = {"nowhere": "no checkpoint at nowhere", "folder": "no checkpoint at", "pipe": "no checkpoint at",
          "loop": "no checkpoint at", "/dev/zero": "no checkpoint at", "empty.json": "cannot be read",
          "bytes.json": "cannot be read", "zeros.json": "cannot be read"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with files that are something else than they should be."""
    folder = tmp_path_factory.mktemp("files")
    contents = {"empty.json": b"", "deep.json": b"[" * 100_000, "bytes.json": b"\xff\xfe\x00{",
                "zeros.json": bytes(600),
                "list.json": b"[]", "null.json": b"null", "digits.json": b'{"seed": ' + b"9" * 5000 + b"}",
                "huge.json": b"", "half.json": genotypes.load("RACL").to_json().replace("sep", "\\ud800").encode()}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    os.truncate(folder / "huge.json", 2**40)  # without contents: no disk holds it
    (folder / "folder").mkdir()
    (folder / "folder.py").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to("loop")
    return folder


def refusal(program: str, argv: list[str], capsys, dry: bool) -> str:
    """Return what the program says at its end, within the time."""
    main = importlib.import_module(program).main
    small = [] if "--config" in argv else SMALL[program].split()  # a preset and a configuration exclude each other
    small += ["--dry_run"] if dry else []
    capsys.readouterr()

    def too_late(*_):
        raise AssertionError("the program hangs")
    before = signal.signal(signal.SIGALRM, too_late)
    signal.alarm(SECONDS)
    try:
        with pytest.raises(SystemExit) as end:
            run_program(lambda: main([*small, *argv]))
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    said = capsys.readouterr().err
    assert end.value.code == 2, said
    return said


def kind(case: Case) -> str:
    program, argv, _ = case
    text = " ".join(argv).encode("ascii", "backslashreplace").decode()
    return f"{program} {text if len(text) < 60 else text[:40] + '...'}"


@pytest.mark.parametrize("case", list(cases()), ids=kind)
def test_a_bad_input_ends_in_one_short_sentence(case, files, monkeypatch, capsys):
    monkeypatch.chdir(files)
    before = sorted(files.iterdir())
    program, argv, words = case
    said = refusal(program, argv, capsys, False)
    if program in CONFIGURED:
        assert refusal(program, argv, capsys, True) == said
    sentence = [line for line in said.splitlines() if not line.startswith("note: ")]
    assert len(sentence) == 1 and sentence[0].startswith("error: ") and words in sentence[0], said
    assert len(sentence[0]) <= 500 and sentence[0].isprintable(), said
    assert "Traceback" not in said and sorted(files.iterdir()) == before


def test_the_table_is_long():
    assert len(list(cases())) >= 150


# -- dry runs ---------------------------------------------------------------------------------------------------------

BEGIN_ALONE = [program for program in PROGRAMS if program not in NEEDS and program != "retrain.train_imagenet"]


@pytest.mark.parametrize("program", BEGIN_ALONE)
def test_a_dry_run_refuses_what_a_run_does_and_changes_nothing(program, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / FOLDERS[program]
    folder.parent.mkdir(parents=True)

    def refused(*flags):
        before = sorted(tmp_path.rglob("*"))
        said = []
        for more in (["--dry_run"], []):
            with pytest.raises(InputError) as caught:
                main_of(program, [*PROGRAMS[program], *flags, *more])
            assert sorted(tmp_path.rglob("*")) == before
            said.append(str(caught.value))
        assert said[0] == said[1]
        return said[0]

    folder.write_text("a file")
    assert "exists and is not a run directory" in refused()
    folder.unlink()
    folder.mkdir()
    (folder / "letters").touch()
    assert "exists and is not a run directory" in refused()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert "exists and is not a run directory" in refused("--overwrite")


# -- every field ------------------------------------------------------------------------------------------------------

CONFIGS = (SearchConfig, RnasConfig, TabularConfig, RankingConfig, RetrainConfig, ImageNetConfig, EvaluateConfig,
           CompareConfig, ExportConfig, VulnerabilityConfig, BenchmarkConfig)
NEVER: dict[str, list[Any]] = {  # by the type of a field: what no field takes
    "int": [10**20, -10**20, 10**400, 1.5, "x", None, [1], {}],
    "float": [float("inf"), float("-inf"), float("nan"), 10**400, "x", [1.0], {}],
    "str": [LONG, "a\0b", "a\ud800", 3, [], {}],
    "bool": ["x", 3, None, []],
    "tuple[float": [[float("inf")], [float("nan")], [10**400], "x", 3, [[1]], [0.1] * 10_001],
    "tuple[int": [[10**20], [1.5], "x", 3, [[1]]],
    "tuple[str": [[LONG], ["a\0b"], "x", 3, [3], [["x"]], ["x"] * 10_001],
    "typing.Literal": [LONG, 3, None, []],
}


@pytest.mark.parametrize("cls", CONFIGS, ids=lambda cls: cls.__name__)
def test_no_field_takes_what_no_run_can_use(cls):
    start = to_dict(PRESETS["tiny"] if cls is SearchConfig else cls())
    tried = 0
    for field in dataclasses.fields(cls):
        annotation = get_type_hints(cls)[field.name]
        text = annotation.__name__ if isinstance(annotation, type) and "[" not in str(annotation) else str(annotation)
        values = next((found for kind, found in NEVER.items() if text.startswith(kind)), None)
        assert values is not None or "None" in text, f"{field.name} is {text}"
        for value in values or []:
            with pytest.raises(InputError) as caught:
                from_dict(cls, start | {field.name: value}, "config.json")
                print(f"{field.name} takes {value!r:.80}")
            assert str(caught.value)
            tried += 1
    assert tried > 40
    json.dumps(start)


def test_a_sentence_that_is_too_long_keeps_its_end(capsys):
    with pytest.raises(SystemExit):
        fail(f"begin {'x' * 10**7} end")
    said = capsys.readouterr().err
    assert len(said) <= 501 and said.startswith("error: begin") and said.endswith("end\n")
