"""The validation loss estimator (VLE) ψ: from the gates H of an architecture to its validation losses (Eq. 8 and 9)."""

import torch
from torch import Tensor, nn

from search.spaces.darts import DARTS


class ValidationLossEstimator(nn.Module):
    """Predict the losses of an architecture by an LSTM over the R rows of H and one linear layer.

    The columns are the natural loss, then the losses of the strengths. The linear layer predicts standardised losses.
    ``standardize`` stores each column's mean and standard deviation, and ``forward`` returns losses in nats, so that
    the search objective is that of Eq. 10.

    Deviation: the published code has one head for each strength, ``2 * sigmoid``, which cannot represent a
    cross-entropy above 2; here the output is linear and the columns are standardised.

    Deviation: the published code reads the LSTM's last hidden state alone, which learns the value of an operation but
    ignores its edge (docs/DEVIATIONS.md has the measurement); the linear layer here reads the states of all edges.

    Args:
        num_operations: O, size of one step of the sequence.
        num_losses: 1 + N1 + N2.
        hidden_size: hidden size of the LSTM.
        num_edges: R, length of the sequence.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, num_operations: int = len(DARTS.operations), num_losses: int = 7,
                 hidden_size: int = 16, num_edges: int = DARTS.num_rows):
        super().__init__()
        self.encoder = nn.LSTM(num_operations, hidden_size, batch_first=True)
        self.head = nn.Linear(num_edges * hidden_size, num_losses)
        self.register_buffer("mean", torch.zeros(num_losses))
        self.register_buffer("std", torch.ones(num_losses))

    def standardized(self, gates: Tensor) -> Tensor:
        """Return standardised losses (B, 1 + N1 + N2) of gates (B, R, O)."""
        hidden, _ = self.encoder(gates)
        return self.head(hidden.flatten(1))

    def forward(self, gates: Tensor) -> Tensor:
        """Return losses (B, 1 + N1 + N2) in nats of gates (B, R, O)."""
        return self.standardized(gates) * self.std + self.mean

    def standardize(self, losses: Tensor) -> None:
        """Take each column's mean and standard deviation from the memory's losses (M, 1 + N1 + N2)."""
        self.mean.copy_(losses.mean(0))
        self.std.copy_(losses.std(0, correction=0).clamp_min(1e-6))


def train_loss_estimator(estimator: ValidationLossEstimator, optimizer: torch.optim.Optimizer, gates: Tensor,
                         losses: Tensor, passes: int, generator: torch.Generator, batch_size: int = 64,
                         input_noise: float = 0.01) -> float:
    """Fit ψ to the memory M_v by the squared error in standardised units (Eq. 9).

    Args:
        estimator: ψ.
        optimizer: optimiser of its weights.
        gates: (M, R, O), on the estimator's device.
        losses: (M, 1 + N1 + N2) in nats, on the estimator's device.
        passes: K_v, passes over all entries.
        generator: CPU source of the order and of the input noise.
        batch_size: entries per optimiser step.
        input_noise: standard deviation of the normal noise added to the gates, against overfitting a small memory.

    Returns:
        The mean squared error of the last pass (1 is that of predicting the mean).
    """
    estimator.standardize(losses)
    targets = (losses - estimator.mean) / estimator.std
    total = torch.zeros((), device=losses.device)
    # Drawn for all passes at once: two copies to the device instead of two per pass.
    orders = torch.stack([torch.randperm(len(gates), generator=generator) for _ in range(passes)]).to(gates.device)
    noises = input_noise * torch.randn((passes, *gates.shape), generator=generator).to(gates)
    for order, noise in zip(orders, noises, strict=True):
        total.zero_()
        for rows in order.split(batch_size):
            predicted = estimator.standardized(gates[rows] + noise[rows])
            error = (predicted - targets[rows]).square().mean()
            optimizer.zero_grad(set_to_none=True)
            error.backward()
            optimizer.step()
            total += error.detach() * len(rows)
    return (total / len(gates)).item()
