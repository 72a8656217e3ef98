"""Predict the seconds of a search iteration on many GPUs, from counted passes and stated assumptions."""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.communication import Traffic
from search.cost import iteration_passes
from search.wsr_nas_searcher import Searcher
from wsrnas.attacks import attack_mode
from wsrnas.complexity import activation_bytes, multiply_adds
from wsrnas.training.losses import LOSSES


@dataclass(frozen=True)
class Machine:
    """Describe a GPU and the network between several: assumptions, nothing is measured.

    Args:
        multiply_adds: multiply-adds in a second.
        memory: bytes that are read or written in a second.
        launch: seconds from one operator to the next where the host is the slower one.
        latency: seconds of a message.
        bandwidth: bytes a second between two GPUs.
    """

    multiply_adds: float = 10e12
    memory: float = 3.4e12
    launch: float = 5e-6
    latency: float = 20e-6
    bandwidth: float = 40e9


@dataclass(frozen=True)
class Work:
    """Describe an iteration on one GPU, in seconds.

    Args:
        shared: arithmetic that processes share.
        replicated: what every process does in full.
        training: launches of the training, as many on every process however small its share of a batch is.
        measuring: launches of what is measured on D_v with the batches of one process; p times as large batches need
            a p-th of them.
    """

    shared: float
    replicated: float
    training: float
    measuring: float


class _Operators(TorchDispatchMode):
    """Count the operators that launch something."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def pass_operators(searcher: Searcher) -> int:
    """Return the operators of a forward and a backward pass of the current path."""
    supernet = searcher.supernet
    image = next(supernet.parameters()).new_zeros(1, *searcher.network[3]).requires_grad_(True)
    with attack_mode(supernet), torch.enable_grad(), _Operators() as operators:
        loss = F.cross_entropy(supernet(image), torch.zeros(1, dtype=torch.int64, device=image.device))
        torch.autograd.grad(loss, image)
    return operators.count


def work(searcher: Searcher, strategy: float, machine: Machine) -> Work:
    """Return the work of an iteration on one GPU, from its passes.

    A pass backward to the images is as much arithmetic as one forward, and so is the gradient of the weights. Each
    activation is written and read, then read again, and its gradient written and read. A forward pass has a third of
    the operators of both.

    Args:
        searcher: search with a current path.
        strategy: seconds of predictor and A, which run on the CPU.
        machine: the assumptions.
    """
    config, passes = searcher.config, iteration_passes(searcher)
    tasks = passes.pop("estimator", {})
    both, forward = (sum(count[kind] for count in passes.values()) for kind in ("forward_backward", "forward"))
    steps, image = len(searcher.train_loader), searcher.network[3]
    products = multiply_adds(searcher.supernet, image) * (2 * both + forward + steps * config.batch_size)
    moved = activation_bytes(searcher.supernet, image) * (5 * both + 2 * forward)

    (attack, before), trained = (LOSSES[config.adv_loss].attack_passes(config.loss_settings()),
                                 LOSSES[config.adv_loss].objective_passes(config.loss_settings()))
    asked = searcher.estimator.gradients(len(searcher.estimated)) if searcher.estimated else 0
    batch = config.measuring_steps + asked + (1 + len(config.strengths)) / 3
    groups = math.ceil(len(searcher.estimated) / config.num_pgd_strengths)
    checked = (1 + groups) * config.measuring_steps + asked + 2 * len(searcher.estimated) / 3
    learned = config.estimator_passes * math.ceil(config.estimator_memory / config.estimator_batch_size)
    launches = machine.launch * pass_operators(searcher)
    return Work(max(products / machine.multiply_adds, moved / machine.memory),
                strategy + launches * ((config.measuring_steps + learned) if tasks else 0),
                launches * (steps * (attack + before / 3 + trained) + config.recalibration_batches / 3),
                launches * (len(searcher.validation_loader) * batch + len(searcher.check_loader) * checked))


def exchange_seconds(exchanged: Traffic, processes: int, latency: float, bandwidth: float) -> float:
    """Return the seconds of collectives: the hops of a tree for each, and the bytes of rings."""
    hops, share = math.ceil(math.log2(processes)), 2 * (processes - 1) / processes
    return exchanged.calls * latency * hops + share * exchanged.bytes / bandwidth


def predicted_seconds(one: Work, exchanged: Traffic, processes: int, machine: Machine) -> float:
    """Return the seconds of an iteration on several GPUs: the same training batches, those of D_v p times as large.

    replicated + max(shared / p, training + measuring / p) + calls * latency * ceil(log2 p)
    + 2 (p - 1) / p * bytes / bandwidth
    """
    launched = one.training + one.measuring / processes
    return (one.replicated + max(one.shared / processes, launched)
            + exchange_seconds(exchanged, processes, machine.latency, machine.bandwidth))
