"""A-ANE-plus: E-ANE with wide depth-wise separable blocks and BatchNorm.

Shapes: N any number, C channels, H W image. In training mode BatchNorm mixes the images of a batch; in eval
mode it uses running statistics, and every image is estimated on its own.
"""

from torch import nn

from wsrnas.estimators.encoding import EANE, QUERY, EncodingEstimator
from wsrnas.estimators.recurrence import zeroed

WIDTH = 300


class AANEPlus(EANE):
    """Estimate as the reference's `AN_estimator_plus` does (A-ANE-plus).

    This is the "modified AN-Estimator" for WsrNet-Plus, whose design the paper does not give.
    It has 137,670 parameters for 3 channels. The reference has 138,504, of which 3,072 serve 32x32 only.
    """

    def __init__(self, channels: int = 3) -> None:
        EncodingEstimator.__init__(self, _cell(channels), _cell(channels))
        self.query = nn.Sequential(_block(2 * channels, QUERY), nn.ReLU())
        self.key = nn.Sequential(_block(2 * channels, QUERY), nn.ReLU())
        # Deviation: the reference ends values in BatchNorm, too. Its one scale a channel leaves zero too slowly.
        self.value = nn.Sequential(*_block(2 * channels, channels)[:-2], zeroed(nn.Conv2d(WIDTH, channels, 1)))


def _cell(channels: int) -> nn.Sequential:
    """Return a hidden cell: state, strength map and noise (N, 2C + 1, H, W) -> state (N, C, H, W)."""
    # Deviation: the reference has BatchNorm here, too. But a cell runs once for every source and once for the
    # query, on inputs of different statistics; one running average fits none of them, and what is learned in
    # training mode is lost in eval mode.
    return nn.Sequential(
        nn.Conv2d(2 * channels + 1, WIDTH, 3, padding=1),
        nn.ReLU6(inplace=True),
        nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH),
        nn.ReLU6(inplace=True),
        nn.Conv2d(WIDTH, channels, 1),
        nn.Tanh(),
    )


def _block(channels: int, out: int) -> nn.Sequential:
    """Return a block (N, C, H, W) -> (N, out, H, W): widen, filter every channel on its own, mix."""
    # Deviation: the reference narrows before it filters, which puts two ReLU6 on as few channels as a noise
    # has and loses its sign; we filter at full width, for as many parameters.
    return nn.Sequential(
        nn.Conv2d(channels, WIDTH, 3, padding=1, bias=False),
        nn.BatchNorm2d(WIDTH),
        nn.ReLU6(inplace=True),
        nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH, bias=False),
        nn.BatchNorm2d(WIDTH),
        nn.ReLU6(inplace=True),
        nn.Conv2d(WIDTH, out, 1, bias=False),
        nn.BatchNorm2d(out),
    )
