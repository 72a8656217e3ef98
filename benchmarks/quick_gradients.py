"""Measure what the quicker gradients of a cell save: CPU time of a step of PGD, with and without each of them.

    python -m benchmarks.quick_gradients
    python -m benchmarks.quick_gradients --arch RACL --init_channels 36 --batch 32

All variants attack the same images, by turns in one process on one thread; the table shows their shortest times.
"""

import argparse
import time
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

import wsrnas.network
import wsrnas.operations
from wsrnas.attacks import pgd
from wsrnas.models import build_model
from wsrnas.operations import DilatedDepthwise
from wsrnas.quick import gradients
from wsrnas.runtime.config import Parser, require
from wsrnas.runtime.markdown import markdown_table
from wsrnas.runtime.program import run_program
from wsrnas.runtime.seeding import generator, seeded_weights

VARIANTS = {"torch's own": (False, False, False), "dense gradients behind concatenations": (True, False, False),
            "dilated convolutions of stride 1": (False, True, False),
            "dilated convolutions of stride 2": (False, False, True), "all": (True, True, True)}
quick_convolution = DilatedDepthwise._convolved  # private: what the operation does once the precision is chosen
STEPS = 2  # of PGD in one measurement


def plain_concatenate(tensors: Sequence[Tensor]) -> Tensor:
    """Concatenate (B, C_i, H, W) as torch does."""
    return torch.cat(list(tensors), 1)


def plain_dilated_depthwise(x: Tensor, weight: Tensor, padding: int, dilation: int) -> Tensor:
    """Convolve x (B, C, H, W) as torch does."""
    return F.conv2d(x, weight, None, 1, padding, dilation, len(weight))


def plain_strided(layer: DilatedDepthwise, x: Tensor) -> Tensor:
    """Convolve as torch does where the stride is not 1."""
    return quick_convolution(layer, x) if layer.stride == (1, 1) else torch.nn.Conv2d.forward(layer, x)


def choose(dense: bool, dilated: bool, strided: bool) -> None:
    """Let all cells use the quicker gradients, or torch's own."""
    DilatedDepthwise._convolved = quick_convolution if strided else plain_strided  # type: ignore[method-assign,assignment]
    concatenate = gradients.concatenate if dense else plain_concatenate
    wsrnas.network.concatenate = wsrnas.operations.concatenate = concatenate
    wsrnas.operations.dilated_depthwise = gradients.dilated_depthwise if dilated else plain_dilated_depthwise


def main(argv: Sequence[str] | None = None) -> None:
    """Time every variant, and compare its images with those of torch's own gradients."""
    parser = Parser(prog="benchmarks.quick_gradients", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="WsrNet_Basic", help="name or file (default: WsrNet_Basic)")
    parser.add_argument("--init_channels", type=int, default=16, help="width C (default: 16)")
    parser.add_argument("--batch", type=int, default=64, help="images of 32 x 32 pixels (default: 64)")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each variant (default: 5)")
    arguments = parser.parse_args(argv)
    require(min(arguments.batch, arguments.repeats) >= 1, "--batch and --repeats: expected at least 1")
    torch.set_num_threads(1)

    source = generator(0, "benchmark")
    images, labels = torch.rand(arguments.batch, 3, 32, 32, generator=source), torch.arange(arguments.batch) % 10
    images = images.contiguous(memory_format=torch.channels_last)
    with seeded_weights(0):
        network = build_model(arguments.arch, init_channels=arguments.init_channels)
    network = network.to(memory_format=torch.channels_last).eval()
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    attacked = {}
    for _ in range(arguments.repeats):
        for name, chosen in VARIANTS.items():
            choose(*chosen)
            began = time.process_time()
            attacked[name] = pgd(network, images, labels, 8 / 255, STEPS)
            seconds[name].append((time.process_time() - began) / STEPS)
    first = next(iter(VARIANTS))
    print(markdown_table(("gradients", "CPU seconds a step", "of the first", "equal pixels"), (
        (name, f"{min(times):.3f}", f"{min(times) / min(seconds[first]):.2f}",
         f"{(attacked[name] == attacked[first]).double().mean():.2%}") for name, times in seconds.items())))


if __name__ == "__main__":
    run_program(main)
