"""Count what processes exchange in an iteration of a search."""
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from search.measurement import shared_batches
from search.strategy.supernet import WsrInSupernet
from search.wsr_nas_searcher import Searcher
from wsrnas.operations import BATCH_NORM
from wsrnas.quick.modules import modules_in_use
from wsrnas.training.losses import LOSSES

NUMBER = 8  # bytes of one integer, or of one number in float64
METRICS = 2  # of a training step with PGD, each a sum and a count


@dataclass(frozen=True)
class Traffic:
    """Describe some collectives.

    Args:
        calls: number of collectives, one after the other.
        bytes: bytes that each process puts into all of them together.
    """

    calls: int = 0
    bytes: int = 0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(self.calls + other.calls, self.bytes + other.bytes)

    def times(self, count: int) -> "Traffic":
        """Return ``count`` times as many of them."""
        return Traffic(count * self.calls, count * self.bytes)


def _of(tensors: Iterable[Tensor]) -> Traffic:
    """Return a collective for each tensor."""
    sizes = [tensor.numel() * tensor.element_size() for tensor in tensors]
    return Traffic(len(sizes), sum(sizes))


def _together(tensors: Iterable[Tensor]) -> Traffic:
    """Return one collective for all tensors."""
    return Traffic(1, _of(tensors).bytes)


def gradient_traffic(searcher: Searcher) -> Traffic:
    """Return the exchange of gradients in one training step: those of the current path, together."""
    supernet, architecture = searcher.supernet, set(searcher.supernet.architecture_parameters())
    return _together(parameter for module in modules_in_use(supernet) for parameter in module._parameters.values()
                     if parameter is not None and parameter not in architecture)


def normalisation_traffic(searcher: Searcher) -> Traffic:
    """Return the exchange of BatchNorm statistics in an iteration with ``sync_bn``, as by torch's SyncBatchNorm.

    Each layer sends mean and variance forward, and as much back. (``GlooBatchNorm`` sends back more: the gradients of
    all processes.)
    """
    config = searcher.config
    norms: list[Any] = [module for module in modules_in_use(searcher.supernet) if isinstance(module, BATCH_NORM)]
    once = Traffic(len(norms), sum(2 * norm.num_features * norm.running_mean.element_size() for norm in norms))
    loss, settings = LOSSES[config.adv_loss], config.loss_settings()
    (both, forward), trained = loss.attack_passes(settings), loss.objective_passes(settings)
    recalibrated = min(config.recalibration_batches, len(searcher.recalibration_loader))
    return once.times(len(searcher.train_loader) * (2 * both + forward + 2 * trained) + recalibrated)


def strategy_traffic(searcher: Searcher) -> Traffic:
    """Return what makes all processes go on with the same architecture: broadcasts of rank 0."""
    alphas = searcher.supernet.architecture_parameters()
    if not isinstance(searcher.strategy, WsrInSupernet):
        return _of(searcher.strategy.parts()["losses"].state_dict().values()) + _of(alphas)
    rows = searcher.space.num_rows
    # The path, the next one and the output (a number for each row), the prediction, A.
    return Traffic(5, NUMBER * (3 * rows + 1 + rows * len(searcher.space.operations)))


def traffic(searcher: Searcher) -> dict[str, Traffic]:
    """Return the collectives of one search iteration by purpose.

    An operation of the path whose output nothing reads has no gradient, but is counted.

    Args:
        searcher: search that trains with PGD and has a current path, the only one of the iteration.
    """
    config, steps = searcher.config, len(searcher.train_loader)
    refusals = steps // config.report_freq + 1
    asked = steps + 1 + shared_batches(searcher.validation_loader, searcher.world)  # whether to stop
    if searcher.checks:
        asked += shared_batches(searcher.check_loader, searcher.world)
    buffers = _together(buffer for buffer in searcher.supernet.buffers() if buffer.is_floating_point())
    columns = (2 + config.measures_vulnerability) * (1 + len(config.strengths))
    found = {
        "gradients": gradient_traffic(searcher).times(steps),
        "requests to stop, metrics": Traffic(asked + refusals + 1, NUMBER * (asked + refusals + 2 * METRICS)),
        "running statistics": buffers.times(2),  # of the recalibrated path, and at the end of the iteration
        "losses on D_v": Traffic(2, NUMBER * (columns + 1)),
        "strategy": strategy_traffic(searcher),
    }
    if searcher.learns_to_estimate:
        found["AN-Estimator"] = _of(searcher.estimator.state_dict().values())
    if searcher.checks:
        found["check of the estimates"] = Traffic(
            1, NUMBER * 2 * (2 + config.measures_vulnerability) * len(searcher.estimated))
    if config.sync_bn:
        found["BatchNorm of whole batches"] = normalisation_traffic(searcher)
    return found
