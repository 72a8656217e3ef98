"""The smallest searches on NAS-Bench-201's supernet, for tests of what is trained once and searched by others."""

import torch

import search.wsr_nas as program
from tests.killed import killed_before_saving

SMALL = ["--preset", "tiny", "--device", "cpu", "--space", "nas-bench-201", "--layers", "3", "--init_channels", "2",
         "--num_steps", "1", "--max_train", "60", "--max_validation", "20", "--batch_size", "15",
         "--recalibration_batches", "1", "--estimator_images", "2", "--loss_passes", "2"]


def start(folder, *argv, kill=None):
    """Run the program; ``kill``: the step after whose row it dies, before its checkpoint."""
    with killed_before_saving(kill):
        program.main([*SMALL, *argv, "--runs", str(folder)])
    return folder / "search"


def state_of(run):
    """The searcher's state in the checkpoint of a run."""
    return torch.load(run / "checkpoint.pt", weights_only=True)["searcher"]
