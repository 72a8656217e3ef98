"""Retraining of a network on ImageNet by Fast-AT (Wsr-NAS, Table 4), or by any other loss.

    python -m retrain.train_imagenet --recipe wsrnet-basic --data DATA
    torchrun --standalone --nproc_per_node=4 -m retrain.train_imagenet --recipe racl --data DATA

DATA holds ``train/<class>/*`` and ``val/<class>/*``. Selection uses images held out of the training set; ``val`` is not
touched. After each epoch a PGD probe catches catastrophic overfitting. The same command resumes, from any step.
"""

from __future__ import annotations

from typing import Any

from retrain.recipes import IMAGENET_RECIPES, parse_recipe
from retrain.settings import ImageNetConfig
from wsrnas.data.splits import balanced_split
from wsrnas.models import load_architecture
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.distributed import World, initialize
from wsrnas.runtime.program import run_program

with deferred_imports():
    import torch

    from retrain.batch import check_batch
    from retrain.construction import describe_network, make_network, open_run, refuse_run
    from retrain.cost import dry_run
    from retrain.retraining import Retraining, train_all_epochs
    from wsrnas.data.imagenet import ImageFileLoader, ImageFiles, list_imagenet


def main(argv: list[str] | None = None) -> None:
    """Run the training that the command line asks for."""
    config, invocation = parse_recipe(ImageNetConfig, IMAGENET_RECIPES, argv, prog="retrain.train_imagenet")
    arch = load_architecture(config.arch)
    world = initialize(config.device)
    check_batch(config, world)
    files, _ = list_imagenet(config.data, max_train=config.max_train, seed=config.data_seed)
    num_classes, image_shape = len(files.class_names), (3, config.image_size, config.image_size)
    train_loader, held_out_loader = make_loaders(config, files, world)
    network = make_network(config, arch, num_classes, (3, config.image_size, config.image_size), world)
    if invocation.dry_run:
        refuse_run(config, invocation.overwrite, files.fingerprint(), arch, network)
        dry_run(config, network, image_shape, len(train_loader.files), len(train_loader), num_classes, world)
        return
    run = open_run(config, world, invocation.overwrite, files.fingerprint(), arch, network)
    if run is None:
        return
    training = Retraining(config, run, network, train_loader, held_out_loader,
                          describe_network(config, arch, num_classes, image_shape))
    train_all_epochs(training)


def make_loaders(config: ImageNetConfig, files: ImageFiles,
                 world: World) -> tuple[ImageFileLoader, ImageFileLoader | None]:
    """Return the augmented training batches, and the held-out images resized and cut at their centre."""
    common: dict[str, Any] = {"image_size": config.image_size, "workers": config.workers, "rank": world.rank,
                              "world_size": world.size, "device": world.device}
    held_out, chosen = None, torch.arange(len(files))
    if config.held_out:
        first, chosen = balanced_split(files.labels, config.held_out, config.data_seed, len(files.class_names),
                                       "--held_out", files.class_names)
        held_out = ImageFileLoader(files.subset(first), config.eval_batch_size, config.seed, "held out", **common)
    return ImageFileLoader(files.subset(chosen), config.batch_size, config.seed, "training", shuffle=True, augment=True,
                           color_jitter=config.color_jitter, drop_last=True, **common), held_out


if __name__ == "__main__":
    run_program(main)
