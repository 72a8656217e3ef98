"""The command ``wsrnas``: start a program by a short name; ``python -m wsrnas`` is the same and lists all of them.

    wsrnas search --preset tiny --dataset digits
    wsrnas evaluate --help

In a checkout the programs are modules beside this package. An installed wheel has them in ``wsrnas/programs``, where
they hide no module of other projects; this command puts that folder on the path of its own process.
"""

import difflib
import importlib
import inspect
import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from wsrnas import __version__
from wsrnas.runtime.config import Parser, require
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.program import run_program

PROGRAMS = {
    "search.wsr_nas": "search for a cell that is robust over many noise strengths (Wsr-NAS)",
    "search.rnas": "search for a cell under a bound on its vulnerability (RNAS)",
    "search.tabular": "judge search strategies on a table of measured architectures",
    "search.ranking": "measure how well a supernet ranks trained architectures",
    "retrain.train_cifar": "train an architecture on small images: CIFAR, SVHN, digits, a folder",
    "retrain.train_imagenet": "train an architecture on ImageNet or another large folder of images",
    "retrain.evaluate": "measure accuracy under attacks and check that the numbers are honest",
    "retrain.compare": "compare architectures under the same budget, recipe, data and seeds",
    "retrain.vulnerability": "measure how far an attack moves the features of each layer",
    "retrain.export": "pack a trained network for use without this project",
    "test_AN_estimator.benchmark": "measure how well AN-Estimators replace the attack",
    "wsrnas.models": "list all architectures with their sources, parameters, multiply-adds",
    "wsrnas.plotting": "draw a cell on the terminal and as SVG and PNG",
    "wsrnas.report": "write the HTML report of one run or of several",
    "wsrnas.runtime.launcher": "start a program on several GPUs (torchrun with our exit codes)",
    "benchmarks.search_iteration": "measure a search iteration beside the published procedure",
    "benchmarks.attack_throughput": "measure our PGD beside that of other libraries",
    "benchmarks.gpu_check": "check a machine with a GPU: tests, speeds, memory, hours of everything",
    "benchmarks.cuda_graphs": "measure steps of a search and a training with and without CUDA graphs",
    "benchmarks.scale_out": "measure searches over processes, strengths and images; predict many GPUs",
    "benchmarks.quick_attacks": "measure what folded BatchNorm and smaller groups of images save",
    "benchmarks.quick_gradients": "measure what the quicker gradients of a cell save",
    "benchmarks.strategy": "measure the time of a query of the search strategy wsr",
    "benchmarks.training": "measure the training steps of a recipe: images a second, memory, hours",
    "studies.noise_paths": "measure how well the noise of one strength predicts the others",
    "studies.loss_estimator_laws": "measure what the loss estimator learns from few architectures",
    "studies.vulnerability_statistics": "compare BatchNorm statistics in the projection of RNAS",
    "studies.known_networks": "check networks that are known to be broken, and sound ones",
    "studies.predictor_ranks": "measure which predictor ranks architectures that it has not seen",
    "studies.race_repeats": "measure how far the trainings of one cell of a race agree",
    "studies.several_supernets": "compare rankings of one table by several supernets",
    "studies.fewer_images": "measure how many images of D_v rank the paths of a supernet",
    "studies.found_graphs": "look up what searches have found in a table, beside random ones",
    "studies.cheaper_attacks": "measure how cheaper attacks on D_v rank the paths of a supernet",
    "studies.attack_agreement": "make the reference results of other attack libraries for our tests",
    "studies.ten_networks": "train ten small networks for studies of attacks",
    "studies.whole_curve": "compare the curve with attacks at every strength, on ten networks",
    "studies.example_network": "attack pyautoattack's example network by its code and by ours",
}


COMMANDS = {
    "search": "search.wsr_nas",
    "rnas": "search.rnas",
    "tabular": "search.tabular",
    "ranking": "search.ranking",
    "train": "retrain.train_cifar",
    "train-imagenet": "retrain.train_imagenet",
    "evaluate": "retrain.evaluate",
    "compare": "retrain.compare",
    "vulnerability": "retrain.vulnerability",
    "export": "retrain.export",
    "estimators": "test_AN_estimator.benchmark",
    "models": "wsrnas.models",
    "plot": "wsrnas.plotting",
    "report": "wsrnas.report",
    "launch": "wsrnas.runtime.launcher",
}
"""The programs with a short name; the others measure a checkout and are not part of a wheel."""

USAGE = f"""wsrnas {__version__}: neural architecture search for robustness over many noise strengths

usage: wsrnas COMMAND [FLAGS]      wsrnas COMMAND --help explains the flags of a command
       wsrnas --version
"""
NOTE = """
Messages name programs as modules: python -m retrain.evaluate is wsrnas evaluate."""


def program_root() -> Path:
    """Return the folder whose modules are the programs: ``programs`` of an installed wheel, or the checkout."""
    here = Path(__file__).parent
    installed = here / "programs"
    return installed if installed.is_dir() else here.parent


def is_there(module: str) -> bool:
    """Return whether the module of a program is there: a wheel has those with a short name alone."""
    return module in COMMANDS.values() or (program_root() / module.partition(".")[0]).is_dir()


def listing() -> str:
    """Return one line for each program that is there: its command, its module, what it does."""
    commands = [("COMMAND", "python -m", ""), *((name, module, PROGRAMS[module]) for name, module in COMMANDS.items())]
    others = [(name, text) for name, text in PROGRAMS.items() if name not in COMMANDS.values() and is_there(name)]
    measurements = ["", "Modules of the checkout that measure it:", *_columns(others)] if others else []
    return "\n".join([*_columns(commands), *measurements])


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return rows of text as aligned lines."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip()
            for row in rows]


def find_program(name: str) -> str:
    """Return the module that a command or the name of a module stands for.

    Raises:
        InputError: there is none; the closest ones are named.
    """
    there = [module for module in PROGRAMS if is_there(module)]
    if name in COMMANDS or name in there:
        return COMMANDS.get(name, name)
    require(name not in PROGRAMS, f"wsrnas: {name} measures a checkout, and is no part of an installed package; "
            f"expected a checkout, or one of {', '.join(COMMANDS)}")
    close = difflib.get_close_matches(name, [*COMMANDS, *there], n=3)
    hint = f"; did you mean {', '.join(close)}?" if close else f"; expected one of {', '.join(COMMANDS)}"
    raise InputError(f"wsrnas: unknown command {name!r}{hint}")


def use_programs() -> None:
    """Let this process and those that it starts import the programs."""
    root = str(program_root())
    if sys.path[0] != root:
        sys.path.insert(0, root)
    inherited = os.environ.get("PYTHONPATH", "")
    if root not in inherited.split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join([root, inherited]) if inherited else root


def run(command: str, *arguments: str) -> None:
    """Run a program in this process, as ``wsrnas COMMAND ARGUMENTS`` does; for notebooks.

    Args:
        command: name of the command, such as ``export``.
        *arguments: its flags.

    Raises:
        InputError: there is no such command, or the program refuses the arguments.
        SystemExit: the program has printed its help.
    """
    module = find_program(command)
    require(module != COMMANDS["launch"], "wsrnas: launch starts processes, which a notebook cannot; expected a shell")
    use_programs()
    packages = {"retrain.vulnerability": "retrain.vulnerability.__main__", "wsrnas.report": "wsrnas.report.writing"}
    before, program = sys.argv, importlib.import_module(packages.get(module, module))
    sys.argv = [str(program.__file__), *arguments]  # what the run keeps as the command that made it
    try:
        reads = inspect.signature(program.main).parameters  # the others read sys.argv
        program.main(*[list(arguments)] * bool(reads))
    finally:
        sys.argv = before


def main(argv: Sequence[str] | None = None) -> None:
    """Start the program that the command line names, or list the programs.

    Raises:
        InputError: there is no such program.
    """
    name, *arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if name == "--version":
        print(__version__)
        return
    if name in ("-h", "--help", "help"):
        print(f"{USAGE}\n{listing()}\n{NOTE}")
        return
    module = find_program(name)
    use_programs()
    Parser.command = f"wsrnas {name}" if name in COMMANDS else ""
    sys.argv = [name, *arguments]  # runpy writes the program's file over the name
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def command() -> None:
    """Run the command ``wsrnas``."""
    run_program(main)


if __name__ == "__main__":
    command()
