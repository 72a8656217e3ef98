"""Measure what makes attacks quick: folding, one ReLU a state, Winograd's convolution, few images, a path's modules.

    python -m benchmarks.quick_attacks
    python -m benchmarks.quick_attacks --networks resnet18 wrn_28_10 --width 32 --batch 32

All variants take turns in one process on one thread; the tables show their shortest CPU times. ``supernet`` is a path
of the search's supernet.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import wsrnas.attacks
import wsrnas.quick.folding
from search.supernet import Supernet
from wsrnas.attacks import attack_mode, pgd
from wsrnas.models import build_model
from wsrnas.quick.folding import folded
from wsrnas.quick.modules import modules_in_use
from wsrnas.quick.states import SharedReLU
from wsrnas.quick.winograd import suits
from wsrnas.runtime.config import Parser, require
from wsrnas.runtime.markdown import markdown_table
from wsrnas.runtime.program import run_program
from wsrnas.runtime.seeding import generator, seeded_weights

SUPERNET = "supernet"
shared_forward = SharedReLU.forward
VARIANTS = ((False, False, False), (False, True, False), (True, False, False), (True, True, False), (True, True, True))
"""Folded; one ReLU for each state; Winograd's convolution where a network is folded."""
WIDTH = 16  # of the supernet in the tables about it
STEPS = 2  # of PGD in one measurement
STRENGTH = 8 / 255
VALIDATED = 300  # images of D_v at a time: 100 at three strengths
ROWS = (300, 150, 100, 50, 32, 16)


def shortest(repeats: int, calls: Mapping[Any, Callable[[], Any]]) -> dict[Any, float]:
    """Return the shortest CPU seconds of each call; they take turns."""
    seconds: dict[Any, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            began = time.process_time()
            call()
            seconds[name].append(time.process_time() - began)
    return {name: min(times) for name, times in seconds.items()}


def network(name: str, width: int) -> nn.Module:
    """Build a network with random weights and random BatchNorm statistics, in evaluation mode."""
    with seeded_weights(0):
        model = Supernet(width) if name == SUPERNET else build_model(name, init_channels=width)
    if isinstance(model, Supernet):
        model.sample(generator(0, "path"))
    source = generator(0, "statistics")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.uniform_(-0.5, 0.5, generator=source)
            module.running_var.uniform_(0.5, 2, generator=source)
    return model.to(memory_format=torch.channels_last).eval()


def batch(count: int) -> tuple[Tensor, Tensor]:
    """Draw images (B, 3, 32, 32) and labels."""
    images = torch.rand(count, 3, 32, 32, generator=generator(0, "images"))
    return images.contiguous(memory_format=torch.channels_last), torch.arange(count) % 10


def attack(fold: bool, share: bool, fewer_products: bool, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Attack images by PGD, with or without what a variant has."""
    wsrnas.attacks.folded = folded if fold else nullcontext  # type: ignore[assignment]
    wsrnas.quick.folding.suits = suits if fewer_products else lambda module: False
    SharedReLU.forward = shared_forward if share else nn.ReLU.forward  # type: ignore[method-assign]
    try:
        return pgd(model, images, labels, STRENGTH, STEPS)
    finally:
        wsrnas.attacks.folded, SharedReLU.forward = folded, shared_forward  # type: ignore[method-assign]
        wsrnas.quick.folding.suits = suits


def enter(context: Callable[..., AbstractContextManager], *arguments: Any, **named: Any) -> None:
    """Enter and leave a context."""
    with context(*arguments, **named):
        pass


def folding(names: Iterable[str], width: int, count: int, repeats: int) -> str:
    """Return a table: a step of PGD as the layers are, the ratios of the variants to it, and the time to fold."""
    rows = []
    for name in names:
        model, (images, labels) = network(name, width), batch(count)
        calls = {chosen: partial(attack, *chosen, model, images, labels) for chosen in VARIANTS}
        plain, *quick = shortest(repeats, calls).values()
        with attack_mode(model):
            alone, = shortest(repeats, {"fold": partial(enter, folded, model)}).values()
        equal = (calls[VARIANTS[-1]]() == calls[VARIANTS[0]]()).double().mean()
        rows.append((name, f"{plain / STEPS:.3f}", *(f"{seconds / plain:.2f}" for seconds in quick),
                     f"{1000 * alone:.1f} ms", f"{equal:.1%}"))
    return markdown_table(("network", "seconds of a step", "one ReLU a state", "folded", "both", "and Winograd",
                           "to fold", "equal pixels"), rows)


def rows_at_a_time(width: int, repeats: int) -> str:
    """Return a table: an attack on a path of the supernet by the number of images at a time."""
    model, (images, labels) = network(SUPERNET, width), batch(VALIDATED)
    seconds = shortest(repeats, {rows: partial(pgd, model, images, labels, STRENGTH, 1, rows=rows) for rows in ROWS})
    return markdown_table(("images at a time", "seconds of a step", "ratio"), (
        (str(rows), f"{taken:.2f}", f"{taken / seconds[ROWS[0]]:.2f}") for rows, taken in seconds.items()))


def walks(repeats: int) -> str:
    """Return a table: entering and leaving ``attack_mode``, on the whole supernet and on its path alone."""
    model = network(SUPERNET, 2).train()
    calls = {alone: partial(enter, attack_mode, model, path_alone=alone) for alone in (False, True)}
    whole, path = shortest(10 * repeats, calls).values()
    return markdown_table(("modules", "of", "milliseconds"), (
        ("all", str(len(list(model.modules()))), f"{1000 * whole:.2f}"),
        ("of the path", str(len(modules_in_use(model))), f"{1000 * path:.2f}")))


def main(argv: Sequence[str] | None = None) -> None:
    """Print the three tables."""
    parser = Parser(prog="benchmarks.quick_attacks", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["WsrNet_Basic", SUPERNET], metavar="NAME",
                        help=f"names or files of architectures, or {SUPERNET} (default: WsrNet_Basic {SUPERNET})")
    parser.add_argument("--width", type=int, help="width C of all networks (default: 16)", default=16)
    parser.add_argument("--batch", type=int, default=64, help="images of 32 x 32 pixels (default: 64)")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each variant (default: 5)")
    arguments = parser.parse_args(argv)
    require(min(arguments.width, arguments.batch, arguments.repeats) >= 1,
            "--width, --batch and --repeats: expected at least 1")
    torch.set_num_threads(1)
    print(folding(arguments.networks, arguments.width, arguments.batch, arguments.repeats))
    print(rows_at_a_time(WIDTH, arguments.repeats))
    print(walks(arguments.repeats))


if __name__ == "__main__":
    run_program(main)
