"""Adversarial retraining of a network on small images: CIFAR-10 and -100, SVHN, digits, or a folder of pictures.

    python -m retrain.train_cifar --recipe wsrnet-basic --data DATA
    python -m retrain.train_cifar --recipe strong --arch runs/search/NAME/genotype.json --data DATA
    python -m retrain.train_cifar --recipe strong --arch resnet18 --data DATA
    torchrun --standalone --nproc_per_node=8 -m retrain.train_cifar --recipe wsrnet-plus --data DATA

Selection uses images held out of the training set. ``best.pt`` (highest robust accuracy there, without attack
the highest clean one) and ``checkpoint.pt`` (last epoch) are both kept. The same command resumes, from any step.
"""

from __future__ import annotations

from retrain.recipes import RECIPES, parse_recipe
from retrain.settings import RetrainConfig
from wsrnas.data.datasets import load_dataset_once
from wsrnas.data.names import require_like
from wsrnas.models import load_architecture
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.distributed import initialize
from wsrnas.runtime.program import run_program

with deferred_imports():
    from retrain.batch import check_batch
    from retrain.construction import make_network, refuse_run
    from retrain.cost import dry_run
    from retrain.small_images import make_loaders, train


def main(argv: list[str] | None = None) -> None:
    """Run the training that the command line asks for."""
    config, invocation = parse_recipe(RetrainConfig, RECIPES, argv, prog="retrain.train_cifar")
    load_architecture(config.arch)  # an error comes before any data is read
    world = initialize(config.device)
    check_batch(config, world)
    data = load_dataset_once(world, config.dataset, config.data, config.download, max_train=config.max_train,
                             seed=config.data_seed)
    if config.dataset_name:
        require_like(config.dataset_name, data.num_classes, data.image_shape)
    if not invocation.dry_run:
        train(config, data, world, invocation.overwrite)
        return
    loader, _ = make_loaders(config, data, world)
    arch = load_architecture(config.arch)
    network = make_network(config, arch, data.num_classes, data.image_shape, world)
    refuse_run(config, invocation.overwrite, data.fingerprint(), arch, network)
    dry_run(config, network, data.image_shape, len(loader.image_set), len(loader), data.num_classes, world)


if __name__ == "__main__":
    run_program(main)
