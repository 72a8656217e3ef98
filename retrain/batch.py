"""How a batch is shared among processes and accumulated parts."""

import copy

import torch
from torch import nn

from retrain.settings import TrainingRecipe
from wsrnas.runtime.config import require
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import InputError
from wsrnas.training.losses import LOSSES


def check_batch(config: TrainingRecipe, world: World) -> None:
    """Refuse a batch that does not divide among processes and accumulated parts.

    Raises:
        InputError: naming the sizes.
    """
    parts = world.size * config.accumulation
    shares = f"{world.size} process{'es' * (world.size > 1)}"
    if config.accumulation > 1:
        shares += f" x {config.accumulation} accumulated parts"
    require(config.batch_size % parts == 0,
            f"batch_size is {config.batch_size}, for all processes together; expected a multiple of {parts} ({shares})")
    require(not config.auxiliary_weight or config.batch_size > parts, f"batch_size is {config.batch_size}; expected at "
            f"least {2 * parts}, for the auxiliary head's BatchNorm needs two images ({shares})")


def check_single_images(config: TrainingRecipe, network: nn.Module, image_shape: tuple[int, int, int],
                        world: World) -> None:
    """Refuse a network that cannot learn from one image at a time, if that is what a process gets.

    BatchNorm needs two numbers for each channel: one image whose last features are a single pixel has one.

    Args:
        config: recipe of the training.
        network: the network on its device; a copy is asked.
        image_shape: shape (C, H, W) of an image.
        world: the processes that train together.

    Raises:
        InputError: naming the sizes.
    """
    settings, loss = config.loss_settings(), LOSSES[config.adv_loss]
    versions = 1 if settings.batch_statistics else loss.objective_passes(settings)  # of an image, side by side
    if local_batch(config, world) * versions > 1 or (config.sync_bn and world.size > 1):
        return
    image = torch.zeros(1, *image_shape, device=world.device)
    try:
        with torch.no_grad(), torch.random.fork_rng():
            copy.deepcopy(network).train()(image)
    except ValueError as error:
        raise InputError(f"batch_size is {config.batch_size}, so that a process learns from one image at a time ("
                         f"{batch_text(config, world)}), which BatchNorm cannot at this image size ({error}); expected "
                         "a larger --batch_size, larger images, or fewer processes and accumulated parts") from None


def local_batch(config: TrainingRecipe, world: World) -> int:
    """Return the number of images that one process handles at a time."""
    return config.batch_size // (world.size * config.accumulation)


def batch_text(config: TrainingRecipe, world: World) -> str:
    """Return how a batch is shared: ``400 = 8 x 50``."""
    shares = [world.size] + [config.accumulation] * (config.accumulation > 1)
    return f"{config.batch_size} = {' x '.join(map(str, [*shares, local_batch(config, world)]))}"
