"""What tests with several processes share: two processes that see each other, and waiting for something to happen."""

import contextlib
import importlib
import multiprocessing
import os
import socket
import time
from collections.abc import Callable
from multiprocessing.context import ForkContext, ForkServerContext
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
# Seconds after which something is taken for hanging: a busy machine takes twenty times as long as a free one.
PATIENCE = 1200
# Imported once, by this process or by the server of which the others are copies: this is what takes the time.
PRELOADED = ["torch._dynamo", "search.wsr_nas", "retrain.train_cifar"]


def copies() -> ForkContext | ForkServerContext:
    """How to start processes that need not import torch anew."""
    if torch.cuda.is_available():  # a copy of this process could not differentiate, for CUDA has threads
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        return context
    for name in PRELOADED:
        importlib.import_module(name)
    return multiprocessing.get_context("fork")


def run_twice(main: Callable[[Path], None], folder: Path, seconds: float = PATIENCE) -> None:
    """Call ``main(folder)`` in two processes (gloo) with the environment that torchrun would give them."""
    context = copies()
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    logs = [folder / f"log.{rank}.txt" for rank in range(2)]
    processes = [context.Process(target=_one_of_two, args=(main, folder, rank, port, logs[rank])) for rank in range(2)]
    for process in processes:
        process.start()
    end = time.monotonic() + seconds
    while any(process.exitcode is None for process in processes) and time.monotonic() < end:
        if any(process.exitcode for process in processes):
            end = min(end, time.monotonic() + 10)  # the other one has noticed, or waits for ever
        time.sleep(0.02)
    for process in processes:
        process.kill()
        process.join()
    said = "\n".join(log.read_text()[-2000:] for log in logs if log.exists())
    assert [process.exitcode for process in processes] == [0, 0], said


def _one_of_two(main: Callable[[Path], None], folder: Path, rank: int, port: int, log: Path) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
                   "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    with open(log, "w") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        os.dup2(file.fileno(), 2)  # a traceback of multiprocessing, words of gloo
        main(folder)


def wait_for(condition, seconds=PATIENCE):
    """The first true value of ``condition()``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.002)
    raise AssertionError("nothing happened")
