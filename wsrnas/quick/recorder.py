"""Record what a call launches on a GPU as a CUDA graph, and leave torch as it was where that fails."""

import gc
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any, Protocol

import torch

_FAILED: list[torch.cuda.CUDAGraph] = []  # torch may still ask them whose an allocation is, so they live on


class Recorder(Protocol):
    """What records calls on a device."""

    device: torch.device

    def record(self, call: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        """Run a call a few times, record it, and return what repeats it and the tensors that it fills."""

    def free(self, recordings: dict[Hashable, Any]) -> None:
        """Wait for the device, forget recordings, and give back their memory."""


class CudaRecorder:
    """Record calls as CUDA graphs, each with memory of its own."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream: torch.cuda.Stream | None = None  # one for all: cuBLAS keeps memory for every stream

    def record(self, call: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        """Run a call twice on a stream of its own, then record it there.

        The second run fails where the host would wait for the device. So does a recording, but less cleanly.
        """
        free, _ = torch.cuda.mem_get_info(self.device)
        if free < torch.cuda.memory_reserved(self.device):  # which has held the features of this step
            raise MemoryError("the GPU has too little free memory to hold the features of a step twice")
        torch.cuda.synchronize(self.device)
        self.stream = self.stream or torch.cuda.Stream(self.device)
        mode = torch.cuda.get_sync_debug_mode()
        with torch.cuda.stream(self.stream):
            call()
            torch.cuda.set_sync_debug_mode("error")
            try:
                call()
            finally:
                torch.cuda.set_sync_debug_mode(mode)
            self.free({})
            graph, result = self._recorded(call)
        torch.cuda.synchronize(self.device)
        return graph.replay, result

    def _recorded(self, call: Callable[[], Any]) -> tuple[torch.cuda.CUDAGraph, Any]:
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        random = torch.cuda.get_rng_state(self.device)
        try:
            # Other threads (loaders, NCCL) may go on using the GPU.
            graph.capture_begin(pool, capture_error_mode="thread_local")
            result = call()
            graph.capture_end()
        except BaseException:
            self._clear_up(graph, pool, random)
            raise
        return graph, result

    def _clear_up(self, graph: torch.cuda.CUDAGraph, pool: Any, random: torch.Tensor) -> None:
        """End what torch leaves begun after a failed recording: the recording, its memory, its random numbers."""
        _FAILED.append(graph)

        def renew_generator() -> None:
            """Give the device's own generator, which would go on to count its draws for the recording, a new state."""
            fresh = torch.Generator(self.device)
            fresh.set_state(random)
            torch.cuda.default_generators[self.device.index].graphsafe_set_state(fresh)

        for end in (graph.capture_end, lambda: torch._C._cuda_endAllocateToPool(self.device.index, pool),
                    renew_generator):
            with suppress(Exception):
                end()

    def free(self, recordings: dict[Hashable, Any]) -> None:
        """Wait for the device, forget recordings, and give back their memory."""
        torch.cuda.synchronize(self.device)
        recordings.clear()
        gc.collect()
        torch.cuda.empty_cache()
