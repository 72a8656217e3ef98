"""How robust a retrained network is: clean accuracy and accuracy under PGD over a spectrum of strengths.

    python -m retrain.evaluate --checkpoint runs/retrain/NAME --data DATA
    python -m retrain.evaluate --checkpoint RUN_A RUN_B --strengths 4/255 8/255 16/255 --data DATA

Attack and prediction see the same network, in evaluation mode. Results go to ``eval/`` of each run.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from wsrnas.checkpoint import write_atomic
from wsrnas.complexity import count_parameters, multiply_adds, readable
from wsrnas.config import describe, format_epsilon, option, parse_config, require
from wsrnas.data import load_dataset_once
from wsrnas.distributed import World, barrier, initialize, shutdown
from wsrnas.errors import InputError, run_program
from wsrnas.evaluation import robust_accuracy, table
from wsrnas.imagenet import ImageFileLoader, list_imagenet
from wsrnas.loader import BatchLoader
from wsrnas.models import load_model
from wsrnas.plotting import plot_accuracy

# Tables 1 and 2 of the paper: "average robust accuracy" is the plain mean over these.
PAPER_STRENGTHS = (0.03, 0.10, 0.17, 0.25)


@dataclass(frozen=True)
class EvaluateConfig:
    """Evaluate retrained networks under white-box L-inf PGD; several at once give one table and one figure.

    Strengths are radii in pixels of [0, 1]; "8/255" is understood.
    """

    checkpoint: tuple[str, ...] = option((), "checkpoint files or run directories (their best.pt, or --weights last)")
    weights: Literal["best", "last"] = option("best", "which checkpoint of a run directory")
    names: tuple[str, ...] = option((), "what to call the networks in table and figure; empty: their run directories")
    protocol: Literal["paper", "custom"] = option(
        "paper", "paper: PGD-20 at 0.03, 0.10, 0.17, 0.25 (Tables 1 and 2); custom: --strengths and --steps")
    strengths: tuple[float, ...] = option((), "strengths to attack with; choosing them makes the protocol custom")
    steps: int = option(20, "PGD steps; the step is 2.5 * epsilon / steps")
    random_start: bool = option(False, "start uniformly in the ball (the paper does not)")
    dataset: str = option("", "data set; empty: the one the first network was trained on")
    data: str = option("data", "folder of the data set (digits needs none)")
    download: bool = option(False, "fetch cifar10, cifar100 or svhn into --data when it is missing")
    max_test: int = option(0, "test images used, a class-balanced seeded choice; 0: all")
    batch_size: int = option(500, "images at a time, all processes together; changes nothing but memory and time")
    workers: int = option(4, "processes that decode ImageNet's images, for each process")
    seed: int = option(0, "of the choice of images and of random starts")
    device: Literal["auto", "cpu", "cuda"] = option("auto", "auto takes CUDA when there is one")
    out: str = option("", "folder of the figure; empty: figures/ of the first run")

    def __post_init__(self) -> None:
        require(self.steps >= 1, f"steps is {self.steps}; expected at least 1")
        require(self.batch_size >= 1, f"batch_size is {self.batch_size}; expected at least 1")
        require(not self.names or len(self.names) == len(self.checkpoint),
                f"{len(self.names)} names for {len(self.checkpoint)} checkpoints; expected one each")
        for strength in self.strengths:
            require(0 < strength < 1,
                    f"strengths contains {strength:g}; expected pixels of [0, 1], strictly inside (0, 1)")
        for weaker, stronger in zip(self.strengths, self.strengths[1:], strict=False):
            require(weaker < stronger, f"strengths must increase, but {weaker:g} comes before {stronger:g}")

    def spectrum(self) -> tuple[str, tuple[float, ...], int]:
        """Protocol, strengths and steps that apply.

        Raises:
            InputError: the protocol is custom without strengths, or the paper's with other steps than its own.
        """
        if self.strengths:
            return "custom", self.strengths, self.steps
        require(self.protocol == "paper", "--protocol custom needs --strengths, for example --strengths 4/255 8/255")
        require(self.steps == 20, f"steps is {self.steps}, but the paper's protocol is PGD-20; expected --strengths "
                "beside it")
        return "paper", PAPER_STRENGTHS, 20


def main(argv: list[str] | None = None) -> None:
    config, invocation = parse_config(EvaluateConfig, argv=argv, prog="retrain.evaluate")
    require(bool(config.checkpoint), "nothing to evaluate: pass --checkpoint RUN_DIRECTORY_OR_FILE [...]")
    protocol, strengths, steps = config.spectrum()
    paths = [find_checkpoint(given, config.weights) for given in config.checkpoint]
    networks = [load_model(path) for path in paths]
    world = initialize(config.device)
    loader = make_loader(config, networks, world)
    if invocation.dry_run:
        if world.is_main:
            print(describe(config))
            print(dry_run(networks, len(loader.image_set), strengths, steps))
        return

    label = file_label(config, protocol, strengths, steps, evaluated_dataset(config, networks))
    results: dict[str, dict[str, Any]] = {}
    for name, path, (model, network) in zip(display_names(config, paths), paths, networks, strict=True):
        result = evaluate(model, loader, config, strengths, steps, world, name)
        result |= {"protocol": protocol, "checkpoint": str(path), "dataset": evaluated_dataset(config, networks),
                   "trained_on": network["dataset"], "seed": config.seed}
        results[name] = result
        if world.is_main:
            store(path.parent / "eval" / f"{label}-{path.stem}.json", result)
    if world.is_main:
        folder = Path(config.out) if config.out else paths[0].parent / "figures"
        print(table(results))
        print(f"figure: {plot_accuracy(results, folder / f'accuracy_{label}')}")
    barrier(world)


def find_checkpoint(given: str, weights: str) -> Path:
    """A checkpoint file as given, or the chosen one of a run directory.

    Raises:
        InputError: there is none.
    """
    path = Path(given)
    candidate = path / ("best.pt" if weights == "best" else "checkpoint.pt") if path.is_dir() else path
    searched = (path / "genotype.json").is_file()  # a search keeps a checkpoint, too
    if not candidate.is_file() and (path / "checkpoint.pt").is_file() and not searched:
        raise InputError(f"{path} has no best.pt: no selection has taken place; --weights last evaluates checkpoint.pt")
    if not candidate.is_file():
        raise InputError(f"no checkpoint at {candidate}; expected a file, or a run directory of a retraining")
    return candidate


def display_names(config: EvaluateConfig, paths: list[Path]) -> list[str]:
    """Names of the networks, all different."""
    names = list(config.names) or [path.parent.name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def make_loader(config: EvaluateConfig, networks: list[tuple[nn.Module, dict[str, Any]]], world: World) -> BatchLoader:
    """The test images, checked against what every network was trained on."""
    dataset = evaluated_dataset(config, networks)
    shards = {"rank": world.rank, "world_size": world.size}
    if dataset == "imagenet":  # resized to what the first network was trained on
        _, files = list_imagenet(config.data, max_test=config.max_test, seed=config.seed)
        classes, shape = len(files.class_names), tuple(networks[0][1]["image_shape"])
        loader = ImageFileLoader(files, config.batch_size, config.seed, "test", image_size=shape[1],
                                 workers=config.workers, device=world.device, **shards)
    else:
        data = load_dataset_once(world, dataset, config.data, config.download, max_test=config.max_test,
                                 seed=config.seed)
        classes, shape = data.num_classes, data.image_shape
        loader = BatchLoader(data.test.to(world.device), config.batch_size, config.seed, "test", **shards)
    for path, (_, network) in zip(config.checkpoint, networks, strict=True):
        if network["num_classes"] != classes or list(shape) != list(network["image_shape"]):
            raise InputError(f"{path} was trained on {network['num_classes']} classes of images "
                             f"{tuple(network['image_shape'])}, but {dataset} has {classes} classes of images {shape}")
    return loader


def evaluate(model: nn.Module, loader: BatchLoader, config: EvaluateConfig, strengths: tuple[float, ...], steps: int,
             world: World, name: str) -> dict[str, Any]:
    """One network over the spectrum."""
    model.to(world.device, memory_format=torch.channels_last)
    return robust_accuracy(model, loader, strengths, steps, random_start=config.random_start, seed=config.seed,
                           world=world, label=name)


def evaluated_dataset(config: EvaluateConfig, networks: list[tuple[nn.Module, dict[str, Any]]]) -> str:
    """The data set asked for, or the one all networks were trained on.

    Raises:
        InputError: they were trained on different ones and none was asked for.
    """
    trained = sorted({network["dataset"] for _, network in networks})
    if not config.dataset and len(trained) > 1:
        raise InputError(f"the networks were trained on different data sets ({', '.join(trained)}); choose one with "
                         "--dataset")
    return config.dataset or trained[0]


def file_label(config: EvaluateConfig, protocol: str, strengths: tuple[float, ...], steps: int, dataset: str) -> str:
    """A file name that differs where the results do."""
    attack = protocol if protocol == "paper" else f"pgd{steps}-" + "_".join(f"{e:.4g}" for e in strengths)
    return "-".join([attack, dataset] + [f"{config.max_test}images"] * bool(config.max_test)
                    + ["random_start"] * config.random_start + [f"seed{config.seed}"] * bool(config.seed))


def dry_run(networks: list[tuple[nn.Module, dict[str, Any]]], images: int, strengths: tuple[float, ...],
            steps: int) -> str:
    """What the evaluation would cost."""
    lines = []
    for model, network in networks:
        shape = tuple(network["image_shape"])
        lines.append(f"network: {readable(count_parameters(model))} parameters, "
                     f"{readable(multiply_adds(model, shape))} multiply-adds an image")
    passes = images * len(strengths) * steps
    strengths_text = ", ".join(format_epsilon(e) for e in strengths)
    return "\n".join([*lines, f"attack: PGD-{steps} at {strengths_text}", f"passes: {readable(passes)} images forward "
                      f"and backward, {readable(images * (len(strengths) + 1))} forward, for each network"])


def store(path: Path, result: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    try:
        run_program(main)
    finally:
        shutdown()
