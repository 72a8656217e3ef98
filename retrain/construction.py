"""Making of what a training needs: the network, its trainer, and its run directory."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from retrain.batch import batch_text, check_single_images
from retrain.beginning import Beginning, begin, check_extension
from retrain.settings import AnyTraining
from wsrnas.architectures.nas_bench_201 import CellGraph
from wsrnas.architectures.searched import Searched
from wsrnas.complexity import count_parameters, readable
from wsrnas.models import build_model, description
from wsrnas.report import mend
from wsrnas.runtime.config import require
from wsrnas.runtime.distributed import World, broadcast_model
from wsrnas.runtime.run_directory import RunDirectory
from wsrnas.runtime.seeding import derive_seed
from wsrnas.training.batch_norm import synchronize_batch_norm
from wsrnas.training.losses import LOSSES
from wsrnas.training.trainer import Trainer


def make_network(config: AnyTraining, arch: Searched | str, num_classes: int, image_shape: tuple[int, int, int],
                 world: World) -> nn.Module:
    """Return the network with seeded weights on its device, equal on all processes.

    Raises:
        InputError: a process gets one image at a time, and the network cannot learn from one; or the network gives
            every image the same answer.
    """
    require_path(arch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "weights"))
        network = build_model(arch, num_classes, config.init_channels, config.layers or None, config.dataset,
                              image_shape[0], bool(config.auxiliary_weight))
    network.to(world.device).to(memory_format=torch.channels_last)
    broadcast_model(network, world)
    check_single_images(config, network, image_shape, world)
    return synchronize_batch_norm(network, world) if config.sync_bn else network


def require_path(arch: Searched | str) -> None:
    """Refuse a graph whose output does not depend on its input.

    Raises:
        InputError: no path of operations leads from one to the other.
    """
    require(not isinstance(arch, CellGraph) or arch.reads_input, f"no path of operations leads from the input to the "
            f"output of {arch}, so every image would get the same answer; expected a path without none")


def describe_network(config: AnyTraining, arch: Searched | str, num_classes: int,
                     image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """Return the dictionary that checkpoints store of the network of ``make_network``."""
    return description(arch, num_classes, config.init_channels, config.layers or None, config.dataset, image_shape,
                       bool(config.auxiliary_weight))


def make_trainer(config: AnyTraining, network: nn.Module, steps_per_epoch: int, world: World) -> Trainer:
    """Return the trainer of ``network``, with loss, optimiser and schedule of the recipe."""
    return Trainer(network, LOSSES[config.adv_loss], config.loss_settings(), config.sgd(network.parameters()), world,
                   config.seed, config.schedule_of(steps_per_epoch), config.refinements(steps_per_epoch))


def open_run(config: AnyTraining, world: World, overwrite: bool, fingerprint: dict[str, Any], arch: Searched | str,
             network: nn.Module) -> RunDirectory | None:
    """Open the run directory, with the weights that the network begins with, and log the configuration.

    Returns None, with a message, if the run is finished.

    Args:
        config: recipe of the training.
        world: the processes that train together.
        overwrite: whether to move an existing run aside.
        fingerprint: fingerprint of the data set; a resumed run must have the same one, and the same architecture.
        arch: searched architecture or name, as for ``models.build_model``.
        network: the network with random weights.
    """
    folder, remark, beginning = prepare_run(config, overwrite, network)
    run = RunDirectory(folder, config, world, overwrite, run_inputs(fingerprint, arch, beginning.fingerprint),
                       "epochs" if config.extend else "")
    if run.finished:
        mend(run.path, world)
        if world.is_main:
            print(f"{run.path} is finished (--overwrite starts again, --extend with more --epochs lengthens it)")
        return None
    run.log(run.describe())
    run.log(f"{readable(count_parameters(network))} parameters; batch {batch_text(config, world)}")
    for line in [*[remark] * bool(remark), *(() if run.has_checkpoint else beginning.says)]:
        run.log(line)
    return run


def refuse_run(config: AnyTraining, overwrite: bool, fingerprint: dict[str, Any], arch: Searched | str,
               network: nn.Module) -> None:
    """Refuse what ``open_run`` would refuse, and write nothing; the same arguments."""
    folder, _, beginning = prepare_run(config, overwrite, network)
    RunDirectory.refuse(folder, config, overwrite, run_inputs(fingerprint, arch, beginning.fingerprint),
                        "epochs" if config.extend else "")


def prepare_run(config: AnyTraining, overwrite: bool, network: nn.Module) -> tuple[Path, str, Beginning]:
    """Return the run directory, a remark on a run that is lengthened, and with what the network begins."""
    folder = Path(config.runs) / "retrain" / config.name
    require(not (overwrite and config.extend), "--overwrite and --extend cannot be given together: one starts the run "
            "again, the other lengthens it")
    return folder, check_extension(folder, config) if config.extend else "", begin(network, config)


def run_inputs(fingerprint: dict[str, Any], arch: Searched | str, weights: str | None = None) -> dict[str, Any]:
    """Return what a run depends on in addition to its configuration: images, architecture, the first weights' hash."""
    return {"data set": fingerprint, "initial weights": weights} | (
        {"network": arch} if isinstance(arch, str) else {"genotype": arch.to_json()})
