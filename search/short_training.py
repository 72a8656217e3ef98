"""Short trainings: every measured architecture is trained by itself, from the same weights on the same batches.

What differs between two measurements is then the architecture alone, and it was trained with no other. The weights are
those of a fresh supernet, or those of a trained one (``--supernet``), which the architecture inherits.
"""

from typing import Any

from search.spaces.supernet import Path
from search.supernet_settings import cosine_rate
from search.supernet_training import set_learning_rate, train_paths
from search.wsr_nas_searcher import Searcher


class ShortTraining:
    """Train paths one after the other.

    Args:
        searcher: the search, before it has trained anything: its weights are the first ones of every training.
    """

    def __init__(self, searcher: Searcher) -> None:
        self.searcher = searcher
        self.first = {name: value.clone() for name, value in searcher.supernet.state_dict().items()
                      if not name.startswith("alphas_")}

    def train(self, path: Path, title: str) -> dict[str, Any]:
        """Train one path adversarially on D_t; the supernet keeps the weights until the next one.

        Args:
            path: the architecture.
            title: name of the step, for the progress line and for errors.

        Returns:
            The means over the last epoch: see ``wsrnas.training.epoch.train_epoch``.
        """
        searcher, config, trainer = self.searcher, self.searcher.config, self.searcher.trainer
        searcher.supernet.load_state_dict({**searcher.supernet.state_dict(), **self.first})
        trainer.optimizer.state.clear()  # the momentum of the path before
        steps = len(searcher.train_loader)
        for epoch in range(config.short_epochs):
            set_learning_rate(trainer.optimizer, cosine_rate(config, epoch, config.short_epochs))
            trainer.steps = epoch * steps  # which seeds the random starts: the same ones for every path
            trained = train_paths(searcher, searcher.train_loader, [path] * steps, epoch,
                                  f"{title}: epoch {epoch + 1} of {config.short_epochs}")
        return trained
