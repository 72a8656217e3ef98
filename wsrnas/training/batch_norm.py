"""BatchNorm across batches and processes: which statistics normalise a batch, and which ones are kept.

Ordinary BatchNorm normalises each process' share of the batch by itself: two processes train another function than
one does, and their running statistics drift apart. ``synchronize_batch_norm`` makes the number of processes invisible.
torch's SyncBatchNorm does so on CUDA (where the host waits for the device in each of its layers), but refuses to run on
a CPU; ``GlooBatchNorm`` is the same layer for processes on CPUs, so CPU tests are valid for GPUs.

Source: Ioffe and Szegedy, "Batch Normalization", ICML 2015, Alg. 1 and 2.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from wsrnas.operations import BATCH_NORM
from wsrnas.runtime.distributed import World, average

# -- across processes -----------------------------------------------------------------------------------------------


class _AllGather(torch.autograd.Function):
    """Gather a tensor of each process into (R, ...) on every process.

    The gradient is that of the sum of the processes' losses, for every process' outputs depend on every row.
    """

    @staticmethod
    def forward(ctx, values: Tensor, world: World) -> Tensor:
        ctx.rank = world.rank
        return _gather(values, world)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.clone(memory_format=torch.contiguous_format)  # autograd may still need what it passed in
        dist.all_reduce(total)
        return total[ctx.rank], None


def _gather(values: Tensor, world: World) -> Tensor:
    rows = [torch.empty_like(values) for _ in range(world.size)]
    dist.all_gather(rows, values)
    return torch.stack(rows)


class GlooBatchNorm(BATCH_NORM):
    """BatchNorm of (B, C) or (B, C, ...) whose training statistics are those of all processes' batches together.

    It takes over the parameters and buffers of ``norm`` themselves, its settings and its mode; the keys of its
    ``state_dict`` are the same. Evaluation mode needs no other process.

    The local batches must have equal sizes: the statistics are plain means over the processes.

    Args:
        norm: BatchNorm layer to replace.
        world: the processes whose batches are normalised together.
    """

    def __init__(self, norm: BATCH_NORM, world: World) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        self.world = world
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.training = norm.training

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected (B, C, ...), got a {input.dim()}-dimensional input")

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised input, of the same shape."""
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        values = input.to(torch.promote_types(input.dtype, torch.float32))  # as F.batch_norm computes under autocast
        others = [dimension for dimension in range(input.dim()) if dimension != 1]
        local_var, local_mean = torch.var_mean(values, others, correction=0)
        means, variances = _AllGather.apply(torch.stack([local_mean, local_var]), self.world).unbind(1)
        mean = means.mean(0)
        var = (variances + (means - mean).square()).mean(0)
        if self.track_running_stats:  # as in torch: off means the batch's statistics and no update
            self._update(mean, var, self.world.size * input.numel() // input.shape[1])
        scale = (var + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight
        channels = (-1, *[1] * (input.dim() - 2))
        output = (values - mean.view(channels)) * scale.view(channels)
        if self.bias is not None:
            output = output + self.bias.view(channels)
        return output.to(input.dtype)

    @torch.no_grad()
    def _update(self, mean: Tensor, var: Tensor, count: int) -> None:
        """Move the running statistics towards the (biased) statistics of ``count`` values a channel."""
        assert self.num_batches_tracked is not None and self.running_mean is not None and self.running_var is not None
        self.num_batches_tracked.add_(1)
        share = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        self.running_var.lerp_((var * (count / (count - 1))).to(self.running_var), share)


def synchronize_batch_norm(network: nn.Module, world: World) -> nn.Module:
    """Replace every BatchNorm layer of ``network`` by one whose training statistics are the whole batch's.

    Parameters and buffers stay the same objects; a single process gets its network back unchanged. Every process then
    needs the same forward and backward passes in training mode, on local batches of equal size. Passes in evaluation
    mode do not involve the other processes.

    With a mean as each process' loss, the gradients of its inputs are ``world.size`` times those of the mean over the
    whole batch, and the parameters' gradients, averaged over the processes, are exactly those of that mean.

    Returns:
        ``network``, changed in place, or the new layer where ``network`` itself is a BatchNorm layer.
    """
    if world.size == 1:
        return network
    if world.device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    layers: dict[nn.Module | None, nn.Module] = {
        module: GlooBatchNorm(module, world) for module in network.modules() if isinstance(module, BATCH_NORM)}
    for module in network.modules():
        for name, child in module._modules.items():
            module._modules[name] = layers.get(child) or child
    return layers.get(network) or network


def average_buffers(model: nn.Module, world: World) -> None:
    """Replace floating-point buffers (BatchNorm's running statistics) by their mean over the processes."""
    average([buffer for buffer in model.buffers() if buffer.is_floating_point()], world)


def _floating_buffers(models: Sequence[nn.Module]) -> list[Tensor]:
    return [buffer for model in models for buffer in model.buffers() if buffer.is_floating_point()]


def gather_buffers(models: Sequence[nn.Module], world: World) -> Tensor:
    """Return the floating-point buffers of ``models`` on all R processes: (R, n) on the CPU, in their own precision.

    Between two averages each process has running statistics of its own; a checkpoint in the middle of an epoch needs
    all of them. Other buffers (counts) are equal on all processes and left out.
    """
    buffers = _floating_buffers(models)
    flat = torch.cat([buffer.reshape(-1) for buffer in buffers]) if buffers else torch.empty(0, device=world.device)
    return (_gather(flat, world) if world.size > 1 else flat[None]).cpu()


@torch.no_grad()
def scatter_buffers(models: Sequence[nn.Module], stored: Tensor, world: World) -> None:
    """Load the buffers that ``gather_buffers`` returned.

    Args:
        models: networks, in the same order.
        stored: buffers (R, n). Each process takes its own row, or the mean if the number of processes has changed.
        world: current processes.

    Raises:
        RuntimeError: ``stored`` does not fit the buffers.
    """
    row = stored[world.rank] if len(stored) == world.size else stored.mean(0)
    buffers = _floating_buffers(models)
    for buffer, values in zip(buffers, row.split([b.numel() for b in buffers]), strict=True):
        buffer.copy_(values.view_as(buffer))


# -- across batches -------------------------------------------------------------------------------------------------


@contextmanager
def running_statistics_kept(model: nn.Module) -> Iterator[nn.Module]:
    """Keep the buffers of BatchNorm layers inside the context; those in training mode normalise by the batch."""
    tracking = {module: module.track_running_stats for module in model.modules()
                if isinstance(module, BATCH_NORM) and module.training}
    try:
        for norm in tracking:
            # Training mode without tracking is torch's "batch statistics, no update". nn.Module's own __setattr__
            # costs a supernet of thousands of modules a tenth of its time.
            object.__setattr__(norm, "track_running_stats", False)
        yield model
    finally:
        for norm, tracked in tracking.items():
            object.__setattr__(norm, "track_running_stats", tracked)


@torch.no_grad()
def recalibrate_batch_norm(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], world: World) -> None:
    """Replace BatchNorm's running statistics by the plain average over ``batches``.

    The running statistics of a freshly sampled path are those of other paths. They are reset, then averaged over the
    batches with equal weight (and over the processes), whatever the layers' momentum. Modes are restored.
    """
    modes = {module: module.training for module in model.modules()}
    momenta = {module: module.momentum for module in modes if isinstance(module, BATCH_NORM)}
    try:
        for norm in momenta:
            norm.reset_running_stats()
        model.train()
        for number, (images, _) in enumerate(batches, start=1):
            for norm in momenta:
                # The cumulative average. torch's own (momentum None) asks the device for its count in every layer.
                norm.momentum = 1 / number
            model(images)
    finally:
        for module, mode in modes.items():
            module.training = mode
        for norm, momentum in momenta.items():
            norm.momentum = momentum
    average_buffers(model, world)
