"""Measure what the validation loss estimator learns from few architectures: the table of docs/DEVIATIONS.md.

    python -m studies.loss_estimator_laws

The losses are synthetic sums over the 28 edges. The table gives Kendall's tau on unseen architectures, of the estimator
as it is and of one that reads only the last hidden state of the LSTM, as the published code does. It takes about a
minute on one core.
"""

import argparse

import torch
from scipy.stats import kendalltau
from torch import Tensor, nn

from search.loss_estimator import ValidationLossEstimator, train_loss_estimator
from search.supernet import gumbel_noise, gumbel_softmax

TRAINED, UNSEEN, PASSES, SEEDS = 100, 300, 500, 3


class LastStateEstimator(ValidationLossEstimator):
    """Predict the losses from the last hidden state only."""

    def __init__(self, num_operations: int, num_losses: int, hidden_size: int = 16):
        super().__init__(num_operations, num_losses, hidden_size)
        self.head = nn.Linear(hidden_size, num_losses)

    def standardized(self, gates: Tensor) -> Tensor:
        """Return standardised losses of gates (B, 28, O)."""
        _, (hidden, _) = self.encoder(gates)
        return self.head(hidden[-1])


def rank_correlation(make: type, law: str, seed: int) -> float:
    """Return Kendall's tau between predicted and true losses of unseen architectures."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    operation = torch.randn(8, generator=generator).expand(28, 8)
    edge = torch.randn(28, 8, generator=generator)
    values = {"operation": operation, "edge": edge, "both": operation + edge}[law]
    shape = (TRAINED + UNSEEN, 28, 8)
    gates = gumbel_softmax(torch.zeros(shape), gumbel_noise(shape, generator), tau=0.1)
    total = (gates * values).sum((1, 2))
    losses = torch.stack([total, 0.3 * total], 1) + 2
    estimator = make(8, 2)
    optimizer = torch.optim.Adam(estimator.parameters(), 1e-3, betas=(0.5, 0.999), weight_decay=1e-3)
    train_loss_estimator(estimator, optimizer, gates[:TRAINED], losses[:TRAINED], PASSES, generator)
    with torch.no_grad():
        predicted = estimator(gates[TRAINED:])[:, 0]
    return float(kendalltau(predicted, losses[TRAINED:, 0]).statistic)


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(prog="studies.loss_estimator_laws", description=__doc__,
                            formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    print(f"{'law':<12}{'last hidden state':>24}{'all hidden states':>24}")
    for law in ("operation", "edge", "both"):
        cells = [" ".join(f"{rank_correlation(make, law, seed):.2f}" for seed in range(SEEDS))
                 for make in (LastStateEstimator, ValidationLossEstimator)]
        print(f"{law:<12}{cells[0]:>24}{cells[1]:>24}", flush=True)


if __name__ == "__main__":
    main()
