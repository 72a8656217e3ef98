"""List the programs of the project: ``python -m wsrnas``; print the version: ``python -m wsrnas --version``."""

import argparse
from collections.abc import Sequence

from wsrnas import __version__
from wsrnas.runtime.config import Parser
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
    "studies.predictor_ranks": "measure which predictor ranks architectures that it has not seen",
    "studies.fewer_images": "measure how many images of D_v rank the paths of a supernet",
    "studies.cheaper_attacks": "measure how cheaper attacks on D_v rank the paths of a supernet",
    "studies.attack_agreement": "make the reference results of other attack libraries for our tests",
    "studies.ten_networks": "train ten small networks for studies of attacks",
    "studies.whole_curve": "compare the curve with attacks at every strength, on ten networks",
    "studies.example_network": "attack pyautoattack's example network by its code and by ours",
}


def listing() -> str:
    """Return one line for each program: how it is started and what it does."""
    width = max(map(len, PROGRAMS))
    return "\n".join(f"  python -m {name:<{width}}  {text}" for name, text in PROGRAMS.items())


def main(argv: Sequence[str] | None = None) -> None:
    """Print the list of programs, or the version."""
    parser = Parser(
        prog="python -m wsrnas", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Neural architecture search for wide spectrum adversarial robustness.")
    parser.add_argument("--version", action="version", version=__version__)
    parser.parse_args(argv)
    print(f"wsrnas {__version__}. Programs:\n{listing()}")


if __name__ == "__main__":
    run_program(main)
