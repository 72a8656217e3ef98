"""What a network is measured by on D_v: loss, accuracy and, under a bound, vulnerability."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from search.supernet import Supernet
from search.supernet_settings import SupernetConfig
from wsrnas.attacks import attack_mode
from wsrnas.evaluation.vulnerability import network_vulnerability


@torch.no_grad()
def measure(supernet: Supernet, columns: Iterable[Tensor], labels: Tensor, config: SupernetConfig,
            clean: Tensor | None = None) -> Tensor:
    """Sums over a batch for each of N sets of images (B, C, H, W), by the current path in evaluation mode: (2, N).

    Loss in nats and number of correct predictions; under a bound a third row, B times the vulnerability.

    Args:
        clean: images (B, C, H, W) that the vulnerability compares with; None takes the first column.
    """
    rows: list[list[Tensor]] = []
    reference: list[Tensor] = []
    with attack_mode(supernet):
        if config.bounded and clean is not None:
            supernet(clean.contiguous(memory_format=torch.channels_last), reference)
        for images in columns:
            outputs: list[Tensor] | None = [] if config.bounded else None
            logits = supernet(images.contiguous(memory_format=torch.channels_last), outputs)
            rows.append([F.cross_entropy(logits, labels, reduction="sum"), (logits.argmax(1) == labels).sum()])
            if outputs is not None:
                reference = reference or outputs
                vulnerability = network_vulnerability(reference, outputs, config.distance, config.standardize)
                rows[-1].append(len(labels) * vulnerability)
    return torch.stack([torch.stack([value.double() for value in row]) for row in rows], 1)
