"""A retrained network as a package that others can load, check and put on a leaderboard without this project.

    python -m retrain.export --model runs/retrain/NAME
    python -m retrain.export --model runs/retrain/NAME --out FOLDER --name Doe2026Robust_MyCell --onnx

The folder holds one Python file that needs PyTorch alone, the weights, RobustBench's description, a model card with a
drawing of the cells, the text of RobustBench's "New Model" issue and, on request, an ONNX file. It can be uploaded to a
model hub as it is. Before anything is put there, a fresh Python process without this project loads the file and must
compute the same logits.
"""

from __future__ import annotations

import filecmp
import glob
import keyword
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

from retrain.networks_settings import unread_weights
from retrain.publishing.package import CARD, SAFETENSORS, Package, file_names, has_safetensors
from retrain.publishing.robustbench import LEADERBOARDS, Publication, numbers, takes_autoattack, threat_strength
from wsrnas.architectures.searched import Searched, name_of
from wsrnas.data.datasets import DATASETS, source_of
from wsrnas.data.names import leaderboard_names, published_name, require_like, require_other_name
from wsrnas.evaluation.attack_table import ATTACKS
from wsrnas.runtime import run_files
from wsrnas.runtime.config import describe, option, parse_config, require
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.folders import make, move_aside, refuse_unwritable
from wsrnas.runtime.locks import claim
from wsrnas.runtime.program import run_program

with deferred_imports():
    import genotypes
    from retrain.publishing.evaluations import stored_evaluations
    from retrain.publishing.onnx_file import require_packages
    from retrain.publishing.training_record import is_finished, training_record
    from retrain.publishing.writing import write_package
    from wsrnas.complexity import count_parameters, multiply_adds, readable
    from wsrnas.models import described_architecture
    from wsrnas.subjects.opening import find_checkpoint, open_model

PAPER = Publication("Neural Architecture Search for Wide Spectrum Adversarial Robustness",
                    "Zhi Cheng, Yanxi Li, Minjing Dong, Xiu Su, Shan You, Chang Xu", "AAAI 2023",
                    "https://github.com/zhicheng2T0/Wsr-NAS")
PAPER_AUTHOR, PAPER_PREFIX = "Cheng2023", "Cheng2023Neural"
EXAMPLE = "Doe2026Robust_MyCell"
TAKEN = ("torch", "numpy", "hubconf", "cells", "config", "dependencies")  # by files, by what they import, by the hub
STAGED = "wsrnas-export"  # word in the names of temporary folders
LEADERBOARD_NAME = r"[A-Z][A-Za-z]+\d{4}[A-Z][A-Za-z]*(_\w+)?"  # first author, year, first word of the title, variant
TARGETED_CLASSES = 10  # AutoAttack's targeted attacks aim at nine other classes


@dataclass(frozen=True)
class ExportConfig:
    """Write a retrained network as a package that needs PyTorch alone and is ready for RobustBench."""

    first_flags: ClassVar[tuple[str, ...]] = ("model", "out", "name", "onnx")
    overwrite_help: ClassVar[str] = "move an earlier package in --out aside, to a folder beside it"

    model: str = option("", "run directory of a retraining, or a checkpoint file", group="network")
    weights: Literal["best", "last"] = option("best", "which checkpoint of a run directory")
    out: str = option("", "folder of the package; empty: runs/export/ and the package's name", group="package")
    dataset_name: str = option("", "leaderboard's name of the data set that the network was trained on, where that was "
                               "read as folder or npz; empty: as the training says", choices=leaderboard_names)
    name: str = option("", f"name of the package, such as {EXAMPLE}: first author, year, first word of the title, "
                           "variant; empty: network_ and the run directory's name")
    paper_name: bool = option(False, f"allow a --name such as {PAPER_PREFIX}, which says that the network is of the "
                                     "authors of the Wsr-NAS paper")
    onnx: bool = option(False, "write an ONNX file, too (needs onnx, onnxscript and onnxruntime: pip install -e "
                               "'.[export]')", group="ONNX")
    opset: int = option(18, "ONNX operator set, 18 to 23")
    title: str = option("", "title of the paper; without any of these flags, the Wsr-NAS paper for its own cells",
                        group="paper")
    authors: str = option("", "authors of the paper")
    venue: str = option("", "venue of the paper")
    link: str = option("", "address of the paper")

    def unread(self) -> dict[str, str]:
        """Return why nothing reads a field under this configuration, and what would, by the names of such fields."""
        return unread_weights([self.model])

    def __post_init__(self) -> None:
        require(18 <= self.opset <= 23, f"opset is {self.opset}; expected 18 to 23")
        for field in ("name", "title", "authors", "venue", "link"):
            value = getattr(self, field)
            require(value.isprintable(), f"{field} is {value!r}; expected one line of printable characters")
        taken = (self.name.lower() in {*sys.stdlib_module_names, *TAKEN} or self.name.startswith("_")
                 or keyword.iskeyword(self.name))
        require(not taken, f"name is {self.name!r}, which is taken by Python or by a file of the package; "
                           f"expected one such as {EXAMPLE}")
        require(not self.name or (self.name.isascii() and self.name.isidentifier()),
                f"name is {self.name!r}; expected letters, digits and underscores, such as {EXAMPLE}")
        theirs = self.name.lower().startswith(PAPER_AUTHOR.lower())
        require(self.paper_name or not theirs, f"name is {self.name!r}, which says that these weights are of the "
                f"Wsr-NAS paper's authors; expected one of your own, such as {EXAMPLE}, or --paper_name if they are")


def main(argv: list[str] | None = None) -> None:
    """Export the network that the command line names."""
    config, invocation = parse_config(ExportConfig, argv=argv, prog="retrain.export")
    require(bool(config.model), "nothing to export: pass --model RUN_DIRECTORY_OR_FILE")
    if config.onnx:
        require_packages()
    package, remarks = read_package(config)
    out = Path(config.out or Path("runs", "export", package.name)).resolve()
    check_folder(out, invocation.overwrite or not invocation.dry_run)
    if invocation.dry_run:
        print(dry_run(config, package, out))
    else:
        with staged_beside(out) as folder:
            write_package(folder, package, config.opset if config.onnx else 0)
            publish(folder, out, invocation.overwrite)  # also in a job that is started again: a kill leaves no package
        print(f"package: {out}")
        print(f"nothing is uploaded; to put it on the Hugging Face hub: hf upload USER/{package.name} "
              f"{shlex.quote(str(out))}")
    for line in [*remarks, *advice(config, package)]:
        print(line)


# ---- what is exported ---------------------------------------------------------------------------------------------

def read_package(config: ExportConfig) -> tuple[Package, list[str]]:
    """Return the package of a network, with the records of its run directory, and remarks on files that were left out.

    Raises:
        InputError: There is no checkpoint of a retraining.
    """
    path = find_checkpoint(config.model, config.weights)
    source = open_model(str(path))
    description = source.description
    if description is None:
        raise InputError(f"{path} is not a checkpoint of retraining; expected one, or its run directory")
    size, dataset = description["image_shape"][1], description["dataset"]
    evaluations, remarks = stored_evaluations(path.parent, source.fingerprint, dataset)
    if name := config.dataset_name or description.get("dataset_name", ""):
        require_other_name(dataset, name)
        require_like(name, description["num_classes"], description["image_shape"])
        if evaluations and name != dataset:
            remarks.append(f"{len(evaluations)} evaluations are on a {dataset}: nothing here says whether its images "
                           f"are the test images of {name}")
        description = description | {"dataset": name}
        dataset = name
    if len({document.get("image_set") for document in evaluations}) > 1:
        remarks.append("the evaluations are on different sets of images, and the package has all of them")
    if not is_finished(path):
        remarks.append(f"the training in {path.parent} is not finished")
    cell = cell_name(described_architecture(description), source.record)
    return Package(
        name=config.name or package_name(path), model=source.model, description=description,
        cell=cell or "a searched cell",
        preprocessing=f"Res{round(size * 256 / 224)}Crop{size}" if source_of(dataset).large else None,
        training=training_record(path, source.record), publication=publication(config, cell),
        evaluations=evaluations, measured=numbers(evaluations, published_name(dataset, description["num_classes"]),
                         description["num_classes"])), remarks


def cell_name(genotype: Searched | str, record: Mapping[str, Any]) -> str:
    """Return the name under which a cell was published: of several, the one that its training used; empty if none.

    A graph of NAS-Bench-201 is called by its operations, a network with a design of its own by its name.
    """
    if name := genotype if isinstance(genotype, str) else name_of(genotype):
        return name
    published = [name for name in [*genotypes.names(), "WsrNet_Robust"] if genotypes.load(name) == genotype]
    config = record.get("config")
    asked = str(config.get("arch", "")) if isinstance(config, dict) else ""
    plain = asked.lower().replace("-", "_")
    return next((name for name in published if name.lower() == plain), published[0] if published else "")


def package_name(path: Path) -> str:
    """Return the name of a package for which the user gave none."""
    run = re.sub(r"\W", "_", path.absolute().parent.name, flags=re.ASCII)
    return f"network_{run}"


def publication(config: ExportConfig, cell: str) -> Publication:
    """Return the paper by the flags; without any, the Wsr-NAS paper for its own cells."""
    own = Publication(**{field.name: getattr(config, field.name) for field in fields(Publication)})
    return PAPER if own == Publication() and cell.startswith("WsrNet") else own


# ---- where it goes ------------------------------------------------------------------------------------------------

def check_folder(out: Path, overwrite: bool) -> None:
    """Refuse a folder that is not empty, unless it holds an earlier package that may be moved aside.

    Raises:
        InputError: Naming the folder.
    """
    require(not out.exists() or out.is_dir(), f"{out} is a file; expected a folder for --out")
    require(out != Path.cwd(), f"{out} is the folder that the program was started in; expected another one for --out")
    refuse_unwritable(out)
    if not out.exists() or not any(out.iterdir()):
        return
    require(is_package(out), f"{out} holds other files; expected a new or empty folder for --out")
    require(overwrite, f"{out} holds an earlier package; choose another --out, or pass --overwrite to move it aside")


def is_package(folder: Path) -> bool:
    """Return whether a folder holds an earlier package."""
    parts = (".py", ".json")
    return any((folder / card).is_file() for card in (CARD, "MODEL_CARD.md")) and any(
        all(path.with_suffix(suffix).is_file() for suffix in parts) for path in folder.glob("*.pt"))


@contextmanager
def staged_beside(out: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``out``, on the same file system; it is deleted afterwards.

    Those that killed processes have left are deleted, too, where it is certain that nobody is at work in them.
    """
    make(out.parent)
    beginning = f".{out.name}.{STAGED}-"
    for left in out.parent.glob(f"{glob.escape(beginning)}*/"):
        with suppress(OSError, InputError):  # another user's, or a file system that cannot lock
            if (left / run_files.LOCK).exists() and (held := claim(left, must_lock=True)) is not None:
                shutil.rmtree(left, ignore_errors=True)
                held.close()
    place = Path(tempfile.mkdtemp(prefix=beginning, dir=out.parent))
    held = claim(place)
    folder = place / out.name  # with the permissions of any new folder
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(place, ignore_errors=True)
        if held:
            held.close()


def publish(folder: Path, out: Path, overwrite: bool) -> None:
    """Rename ``folder`` to ``out``, where an earlier package is renamed to ``out.old1`` or so; the same one stays.

    Raises:
        InputError: There is another package, which was not to be moved.
    """
    if out.exists() and any(out.iterdir()):
        if same_files(folder, out):
            return
        check_folder(out, overwrite)
        move_aside(out)
    os.rename(folder, out)  # at once: a kill leaves all files or none


def same_files(first: Path, second: Path) -> bool:
    """Return whether two folders hold the same files; report.html is README.md with the minute of its writing."""
    names = sorted(path.name for path in first.iterdir())
    compared = [name for name in names if name != run_files.REPORT]
    return names == sorted(path.name for path in second.iterdir() if path.name != "__pycache__") and not any(
        filecmp.cmpfiles(first, second, compared, shallow=False)[1:])


# ---- what is said -------------------------------------------------------------------------------------------------

def dry_run(config: ExportConfig, package: Package, out: Path) -> str:
    """Say what would be written."""
    return "\n".join([
        describe(config),
        f"network: {package.architecture}, {readable(count_parameters(package.model))} parameters, "
        f"{readable(multiply_adds(package.model, package.image_shape))} multiply-adds per image",
        f"evaluations of these weights: {len(package.evaluations)}",
        f"would write to {out}: {', '.join(file_names(package, config.onnx))}"])


def advice(config: ExportConfig, package: Package) -> list[str]:
    """Say what is missing before the package can be published, and how to get it."""
    dataset, classes = package.dataset, package.description["num_classes"]
    lines = [] if has_safetensors() else [f"{SAFETENSORS} is left out: it needs safetensors (pip install -e '.[hub]')"]
    if package.measured.missing:
        lines += [f"{package.name}.json: {sentence}" for sentence in package.measured.missing]
        attacks = "autoattack" if takes_autoattack(classes) else "apgd-ce square"
        weights = f" --weights {config.weights}" if config.weights != "best" else ""
        known = "" if package.description["dataset"] in DATASETS else " --dataset npz"
        data = " --data DATA" * source_of(package.description["dataset"]).needs_folder
        place = find_checkpoint(config.model, config.weights).parent
        beside = "" if (place / run_files.CONFIG).is_file() else f" --out {shlex.quote(str(place))}"
        lines.append(f"measure with: python -m retrain.evaluate --model {shlex.quote(config.model)}{weights}{known}"
                     f"{data} --attacks {attacks} --strengths {threat_strength(dataset)}{beside}; then export "
                     "again with --overwrite")
    if package.measured.unreliable:
        lines.append("a check of the evaluation failed: the package says that its numbers are unreliable")
    if package.measured.unreliable is None and package.evaluations:
        lines.append(f"{package.name}.json: no check of the evaluation passed or failed, so it is unknown whether "
                     "its numbers are reliable")
    unknown = [field.name for field in fields(Publication) if not getattr(package.publication, field.name)]
    if unknown:
        flags = " ".join(f"--{field}" for field in unknown)
        lines.append(f"{package.name}.json: the paper is not known by its {', '.join(unknown)}: pass {flags}")
    if dataset in LEADERBOARDS and not re.fullmatch(LEADERBOARD_NAME, package.name):
        lines.append(f"RobustBench wants names such as {EXAMPLE}, not {package.name}: pass --name")
    if dataset not in LEADERBOARDS:
        lines.append(f"RobustBench has no leaderboard for {package.images}, only for {', '.join(LEADERBOARDS)}")
    if not takes_autoattack(classes):
        least = ATTACKS["autoattack"].least_classes
        lines.append(f"AutoAttack needs at least {least} classes; this network has {classes}")
    elif classes < TARGETED_CLASSES:
        lines.append(f"AutoAttack's standard version aims at {TARGETED_CLASSES - 1} other classes; this network has "
                     f"{classes} in all")
    return lines


if __name__ == "__main__":
    run_program(main)
