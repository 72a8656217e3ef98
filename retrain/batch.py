"""How a batch is shared among processes and accumulated parts."""

from retrain.settings import TrainingRecipe
from wsrnas.runtime.config import require
from wsrnas.runtime.distributed import World


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


def local_batch(config: TrainingRecipe, world: World) -> int:
    """Return the number of images that one process handles at a time."""
    return config.batch_size // (world.size * config.accumulation)


def batch_text(config: TrainingRecipe, world: World) -> str:
    """Return how a batch is shared: ``400 = 8 x 50``."""
    shares = [world.size] + [config.accumulation] * (config.accumulation > 1)
    return f"{config.batch_size} = {' x '.join(map(str, [*shares, local_batch(config, world)]))}"
