"""What a search costs: passes of images through the supernet for each phase, measured seconds, memory."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from search.searcher import NOISE_SAMPLES
from search.settings import SearchConfig
from wsrnas.distributed import World


def iteration_passes(config: SearchConfig, train_images: int, validation_images: int) -> dict[str, dict[str, int]]:
    """Images through the supernet in one population or search iteration, by phase.

    ``forward_backward`` counts a forward and a backward pass together (one PGD step on one image), ``forward`` the
    forward passes without gradient.

    Args:
        train_images, validation_images: sizes of D_t and D_v.
    """
    trained = train_images - train_images % config.batch_size
    sources, steps = config.num_pgd_strengths, config.num_steps
    trades = config.adv_loss == "trades"
    passes = {
        # TRADES also updates on the clean images, and its attack needs their predictions once.
        "train": {"forward_backward": trained * (steps + 1 + trades), "forward": trained * trades},
        "recalibrate": {"forward_backward": 0,
                        "forward": min(trained, config.recalibration_batches * config.batch_size)},
        "validate": {"forward_backward": validation_images * sources * steps,
                     "forward": validation_images * (1 + len(config.strengths))},
    }
    if config.num_estimated_strengths:
        # The few noises that the report shows.
        images, strengths = (min(most, there) for most, there in zip(
            NOISE_SAMPLES, (validation_images, config.num_estimated_strengths), strict=True))
        passes["validate"]["forward_backward"] += images * (sources + strengths) * steps
        attacked = min(config.estimator_images, train_images) * (sources + 1) * steps
        passes["estimator"] = {"forward_backward": attacked, "forward": 0}
    return passes


def total_passes(config: SearchConfig, train_images: int, validation_images: int) -> dict[str, int]:
    """``forward_backward`` and ``forward`` image passes of the whole search."""
    passes = iteration_passes(config, train_images, validation_images)
    measured = config.warmup_architectures + config.iterations
    epochs = {phase: measured + (config.warmup_architectures if phase == "train" else 0) for phase in passes}
    return {kind: sum(passes[phase][kind] * epochs[phase] for phase in passes)
            for kind in ("forward_backward", "forward")}


class PhaseClock:
    """Seconds by phase, with the device idle at both ends."""

    def __init__(self, world: World):
        self.world = world
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        if self.world.device.type == "cuda":
            torch.cuda.synchronize(self.world.device)
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - started
