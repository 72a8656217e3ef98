"""The exponential moving average of a network's weights."""

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


@torch.no_grad()
def move_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Replace weights and BatchNorm statistics of ``average`` by decay * (their own) + (1 - decay) * (``network``'s).

    Counts are copied. torch's AveragedModel does the same, but waits for the device in every step.
    """
    averaged, current = ([*model.parameters(), *model.buffers()] for model in (average, network))
    pairs = list(zip(averaged, current, strict=True))
    floating = [pair for pair in pairs if pair[0].is_floating_point()]
    get_ema_multi_avg_fn(decay)([pair[0] for pair in floating], [pair[1] for pair in floating], None)
    counts = [pair for pair in pairs if not pair[0].is_floating_point()]
    if counts:
        torch._foreach_copy_([pair[0] for pair in counts], [pair[1] for pair in counts])
