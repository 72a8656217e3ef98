"""Cost of a retraining: passes of images through the network, and memory."""

from torch import nn

from retrain.batch import batch_text, local_batch
from retrain.settings import TrainingConfig, TrainingRecipe
from wsrnas.complexity import activation_bytes, count_parameters, multiply_adds, readable
from wsrnas.runtime.config import describe, format_epsilon
from wsrnas.runtime.distributed import World
from wsrnas.training.losses import LOSSES


def dry_run(config: TrainingConfig, network: nn.Module, image_shape: tuple[int, int, int], images: int,
            steps_per_epoch: int, num_classes: int, world: World) -> None:
    """Print the configuration and the cost of the training.

    Args:
        config: recipe of the training.
        network: the network, to count its parameters and multiply-adds.
        image_shape: shape (C, H, W) of an image.
        images: number of training images.
        steps_per_epoch: optimiser steps of an epoch.
        num_classes: number of classes.
        world: the processes that train together.
    """
    if not world.is_main:
        return
    adds = multiply_adds(network, image_shape)
    both, forward = training_passes(config, steps_per_epoch)
    memory = training_memory_gib(config, network, image_shape, world)
    print("\n".join([
        describe(config), f"data: {images} training images {image_shape}, {config.held_out} held out, {num_classes} "
        "classes",
        f"network: {readable(count_parameters(network))} parameters, {readable(adds)} multiply-adds per image",
        f"steps: {config.epochs} epochs of {steps_per_epoch} batches ({batch_text(config, world)}), loss "
        f"{config.adv_loss} at {format_epsilon(config.epsilon)}",
        f"passes: {readable(both)} images forward and backward, {readable(forward)} forward, "
        f"{readable(adds * (3 * both + forward))} multiply-adds",
        f"memory: about {memory:.1f} GiB of activations a process",
    ]), flush=True)


def training_passes(config: TrainingRecipe, steps_per_epoch: int) -> tuple[int, int]:
    """Return the passes of images through the network in a whole training: forward-backward, and forward alone."""
    loss, settings = LOSSES[config.adv_loss], config.loss_settings()
    both, forward = loss.passes(settings)
    perturbed = max(0, config.epochs - config.awp_warmup) if config.awp_gamma else 0  # epochs
    images = steps_per_epoch * config.batch_size  # of an epoch
    return (images * (both * config.epochs + loss.objective_passes(settings) * perturbed),
            images * forward * config.epochs)


def training_memory_gib(config: TrainingRecipe, network: nn.Module, image_shape: tuple[int, int, int],
                        world: World) -> float:
    """Estimate the memory of the activations of a training step in each process, in GiB."""
    passes = LOSSES[config.adv_loss].objective_passes(config.loss_settings())
    return activation_bytes(network, image_shape) * local_batch(config, world) * passes / 2**30
