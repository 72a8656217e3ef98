"""The unbounded L2 attack of Carlini and Wagner (2017) with a fixed penalty."""

from __future__ import annotations

from wsrnas.attacks import many_attack_steps, margins, require_gradients
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.errors import InputError

with deferred_imports():
    import torch
    from torch import Tensor, nn


def carlini_wagner(model: nn.Module, images: Tensor, labels: Tensor, penalty: float = 0.5, steps: int = 100,
                   learning_rate: float = 0.01, confidence: float = 0.0) -> Tensor:
    """Minimise ``||noise||^2 + penalty * max(-margin, -confidence)`` with Adam and keep the closest success.

    The noise is penalised, not bounded, so the accuracy under this attack belongs to no strength. The optimisation runs
    in the space of ``atanh(2 * image - 1)``, in which every point is an image; pixels near 0 and 1 hardly move there.
    There is no search for the penalty. The defaults are those of RNAS: c = 0.5 and 100 steps from the paper, the rest
    from torchattacks.

    Deviation: torchattacks ends the whole batch when its summed cost has risen, so that an image's result depends on
    the others; here, every image has all ``steps``, which can only bring it closer. It takes a logit of zero for the
    largest other one where all others are negative, and for the label's where that is negative; here, the margin is the
    paper's, which does not change when a constant is added to the logits.

    Args:
        model: network from images (B, C, H, W) in [0, 1] to logits (B, K); attacked in ``attack_mode``.
        images: (B, C, H, W) in [0, 1].
        labels: (B,) classes.
        penalty: weight c of the margin against the squared L2 norm in pixels of [0, 1].
        steps: number of points that are tried; the first is the image.
        learning_rate: learning rate of Adam, in the space of atanh.
        confidence: the margin (largest other logit minus the label's) above which a point counts as a success.

    Returns:
        For each image the successful point with the least noise, or the image itself where there was none; inside
        [0, 1], detached.

    Raises:
        InputError: Steps or confidence are negative, penalty or learning rate are not positive, or the caller is inside
            ``torch.inference_mode``.
    """
    for name, value, expected in (("number of steps", steps, steps >= 0), ("confidence", confidence, confidence >= 0)):
        if not expected:
            raise InputError(f"the C&W attack's {name} is {value}; expected at least 0")
    for name, value in (("penalty", penalty), ("learning rate", learning_rate)):
        if not value > 0:
            raise InputError(f"the C&W attack's {name} is {value}; expected more than 0")
    require_gradients()
    images = images.detach()
    inside = 1 - max(1e-6, torch.finfo(images.dtype).eps)  # atanh is infinite for pixels of exactly 0 and 1
    point = torch.atanh((2 * images - 1).clamp(-inside, inside)).requires_grad_(True)
    optimizer = torch.optim.Adam([point], learning_rate)
    closest, least = images, images.new_full((len(images),), torch.inf)
    with many_attack_steps(model), torch.enable_grad():
        for _ in range(steps):
            adversarial = (point.tanh() + 1) / 2
            squared_norm = (adversarial - images).square().sum((1, 2, 3))
            margin = margins(model(adversarial), labels)
            cost = squared_norm + penalty * (-margin).clamp_min(-confidence)
            point.grad, = torch.autograd.grad(cost.sum(), point)
            optimizer.step()
            squared_norm = squared_norm.detach()
            better = (margin > confidence) & (squared_norm < least)
            least = torch.where(better, squared_norm, least)
            closest = torch.where(better.view(-1, 1, 1, 1), adversarial.detach(), closest)
    return closest
