"""Judge test images in chunks that are shared between processes, stored when done, and halved when memory is short."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from wsrnas.data.loader import BatchLoader
from wsrnas.evaluation.journal import UNKNOWN, Journal, Stored
from wsrnas.runtime.distributed import World, all_sum
from wsrnas.runtime.errors import InputError, out_of_memory
from wsrnas.runtime.preemption import until_asked
from wsrnas.runtime.progress import progress

# Function from a batch (images, labels, indices) to which images withstand (B,), or a number for each, and to warnings.
Judge = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, list[str]]]


class ChunkedMeasurement:
    """Flags of test images, measured chunk by chunk; stored chunks are not measured again.

    Args:
        loader: loader of the test images (``images_at``).
        world: the processes that share the chunks.
        batch_size: number of images of a chunk.
        journal: store of finished chunks; None: nothing is stored.
        name: first words of the progress line.
        log: function that prints a line.
        stop: function that is asked before every chunk, in one process alone; once it returns True the measurement
            ends with ``Preempted``.
    """

    def __init__(self, loader: BatchLoader, world: World, batch_size: int, journal: Journal | None, name: str,
                 log: Callable[[str], None], stop: Callable[[], bool]) -> None:
        self.loader, self.world, self.batch_size, self.journal = loader, world, batch_size, journal
        self.name, self.log, self.stop = name, log, stop
        self.images = len(loader.image_set)
        self.part = batch_size  # images that are judged at once; halved when memory is short
        self.spent = torch.zeros(2, dtype=torch.int64)  # passes of the chunk at hand, which judges add to
        self.passes: dict[str, Tensor] = {}  # by attack, (N, 2) for each image
        self.seconds: dict[str, float] = {}
        self.warnings: dict[str, list[str]] = {}

    def each(self, images: Tensor, judge: Judge) -> Tensor:
        """Return the result of ``judge`` for these images, in parts that fit into memory; nothing is stored.

        Args:
            images: (n,) indices of test images.
            judge: function that judges a batch.

        Returns:
            (n,) bool.
        """
        chunks = images.split(self.batch_size)
        flags = [self._in_parts(judge, pixels, labels, chunk)[0].cpu()
                 for chunk, (pixels, labels) in zip(chunks, self.loader.images_at(chunks), strict=True)]
        return torch.cat(flags) if flags else torch.zeros(0, dtype=torch.bool)

    def stage(self, key: str, stage: str, images: Tensor, judge: Judge, label: str, together: bool = False) -> Tensor:
        """Judge some images in chunks; arguments as for ``values``.

        Returns:
            (N,) bool on every process: which of the images withstand.
        """
        return self.values(key, stage, images, judge, label, together) == 1

    def values(self, key: str, stage: str, images: Tensor, judge: Judge, label: str, together: bool = False) -> Tensor:
        """Measure some images in chunks, except those that are in the journal.

        Args:
            key: name under which the journal stores the attack.
            stage: name of the attack's part.
            images: (n,) indices of test images.
            judge: function that judges a batch, or finds a number for each of its images.
            label: name of the attack in the progress line.
            together: whether an image's result depends on the others of its chunk: only equal chunks are known.

        Returns:
            (N,) float64 on every process: what was found, 0 for images that were not asked for.
        """
        every = images.split(self.batch_size)
        known = self._known(key, stage, [chunk.tolist() for chunk in every] if together else None)
        chunks = [chunk for chunk in every if (known.values[chunk] == UNKNOWN).any()]
        mine = chunks[self.world.rank::self.world.size]
        seconds, warnings = known.seconds, known.warnings
        # Columns: the value and the passes. A chunk is measured as a whole.
        found = torch.cat([known.values[:, None], known.passes], 1)
        for chunk in chunks:
            found[chunk] = 0
        batches = until_asked(zip(mine, self.loader.images_at(mine), strict=True), self.stop,
                              f"{self.name}: stopped during {label}")
        for chunk, (pixels, labels) in progress(batches, f"{self.name}: {label}", self.world, len(mine)):
            begin = time.perf_counter()
            values, said = self._in_parts(judge, pixels, labels, chunk)
            found[chunk, 0] = values.to("cpu", torch.float64)
            found[chunk, 1:] = self.spent.double() / len(chunk)
            took = time.perf_counter() - begin
            seconds, warnings = seconds + took, warnings + said
            if self.journal:
                self.journal.append(key, stage, chunk.tolist(), values.tolist(), took, said, self.spent.tolist())
        return self._shared(key, stage, images, found, chunks, seconds, warnings)

    def _known(self, key: str, stage: str, chunks: list[list[int]] | None) -> Stored:
        """Return what earlier runs measured, as the main process read it: all processes must agree on what is left."""
        if self.journal is None:
            nothing = torch.full((self.images,), UNKNOWN, dtype=torch.float64)
            return Stored(nothing, torch.zeros(self.images, 2, dtype=torch.float64), 0.0, [])
        found = self.journal.read(key, stage, self.images, chunks)
        if self.world.size == 1:
            return found
        columns = torch.cat([found.values[:, None], found.passes], 1).to(self.world.device)
        columns = all_sum(columns if self.world.is_main else torch.zeros_like(columns), self.world).cpu()
        return Stored(columns[:, 0], columns[:, 1:], found.seconds if self.world.is_main else 0.0, found.warnings)

    def _shared(self, key: str, stage: str, images: Tensor, found: Tensor, chunks: list[Tensor], seconds: float,
                warnings: list[str]) -> Tensor:
        """Return the values that all processes measured, and add up their passes, seconds and warnings."""
        if self.world.size > 1:
            total = torch.zeros(self.images + 1, 3, dtype=torch.float64, device=self.world.device)
            for chunk in chunks[self.world.rank::self.world.size]:
                total[chunk] = found[chunk].to(total)
            total[-1] = seconds
            total = all_sum(total, self.world).cpu()
            for chunk in chunks:
                found[chunk] = total[chunk]
            seconds = total[-1, 0].item()
            if self.journal:  # every process wrote its chunks before the sum above was complete
                warnings = self.journal.read(key, stage, self.images).warnings
        self.seconds[key] = self.seconds.get(key, 0.0) + seconds
        self.warnings[key] = sorted({*self.warnings.get(key, []), *warnings})
        self.passes.setdefault(key, torch.zeros(self.images, 2, dtype=torch.float64))[images] += found[images, 1:]
        result = torch.zeros(self.images, dtype=torch.float64)
        result[images] = found[images, 0]
        return result

    def _in_parts(self, judge: Judge, images: Tensor, labels: Tensor, indices: Tensor) -> tuple[Tensor, list[str]]:
        """Judge a chunk, in halves, quarters and so on where the GPU's memory is too small."""
        while True:
            self.spent.zero_()
            parts = zip(images.split(self.part), labels.split(self.part), indices.split(self.part), strict=True)
            try:
                judged = [judge(*part) for part in parts]
                return torch.cat([flags for flags, _ in judged]), [text for _, said in judged for text in said]
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                if self.part == 1:
                    raise InputError("the GPU is out of memory with a single image; free it, or use --device cpu"
                                     ) from None
            # After the handler: the exception keeps alive what filled the memory.
            self.part = max(1, min(self.part, len(images)) // 2)
            if images.device.type == "cuda":
                torch.cuda.empty_cache()
            self.log(f"the GPU is out of memory: going on with {self.part} images at a time")
