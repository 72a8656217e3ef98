"""Which images a network gets right under which attack: one network, in evaluation mode, is attacked and predicts."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from wsrnas.attacks import attack_mode, fgsm, mim, pgd, random_start
from wsrnas.data.loader import BatchLoader
from wsrnas.evaluation.autoattack import LEAST_CLASSES, autoattack_stage
from wsrnas.evaluation.carlini_wagner import carlini_wagner
from wsrnas.evaluation.journal import UNKNOWN, Journal
from wsrnas.evaluation.protocols import STAGES, Attack
from wsrnas.runtime.distributed import World, all_sum
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.preemption import until_asked
from wsrnas.runtime.progress import progress
from wsrnas.runtime.seeding import generator

# What becomes of the images of one batch: (images, labels, indices) -> withstood (B,), warnings.
Judge = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, list[str]]]


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Full float32 on a GPU, whose TF32 would round every product to 10 bits: for all numbers that are reported."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


class Evaluation:
    """One network on one set of test images; every number is a list of which images it got right.

    Chunks of images are shared over the processes and stored as soon as they are done; what is stored is not measured
    again. Random numbers belong to an image (seed, attack, start, index), so neither the size of the batches nor the
    number of processes changes a result; AutoAttack's own belong to a batch.

    Args:
        model: images (B, C, H, W) in [0, 1] -> logits (B, K), on the processes' device, in evaluation mode.
        loader: gives the test images (``images_at``).
        journal: where chunks are stored; None stores nothing.
        batch_size: images of a chunk, which is attacked at once, or in halves where the GPU is out of memory.
        source: the network whose adversarial images ``transfer`` shows to this one.
        source_name: its fingerprint.
        stop: asked before every chunk, of one process alone; the evaluation then ends with ``Preempted``.
    """

    def __init__(self, model: nn.Module, loader: BatchLoader, num_classes: int, world: World | None = None,
                 seed: int = 0, batch_size: int = 500, journal: Journal | None = None, source: nn.Module | None = None,
                 source_name: str = "", name: str = "evaluate", log: Callable[[str], None] = print,
                 stop: Callable[[], bool] = lambda: False) -> None:
        self.model, self.loader, self.num_classes = model, loader, num_classes
        self.source, self.source_name = source, source_name
        self.world = world or World()
        self.seed, self.batch_size, self.journal, self.name, self.log = seed, batch_size, journal, name, log
        self.stop = stop
        self.images, self.part = len(loader.image_set), batch_size
        self.seconds: dict[str, float] = {}
        self.warnings: dict[str, list[str]] = {}

    def clean(self) -> Tensor:
        """(N,) bool: which images are classified correctly as they are."""
        everything = torch.arange(self.images)
        return self._stage("clean", "clean", everything, lambda images, labels, _: (self._correct(images, labels), []))

    def robust(self, attack: Attack, among: Tensor) -> Tensor:
        """(N,) bool: which of the images ``among`` (indices) are still classified correctly under the attack.

        An image that falls to one start, or to one part of AutoAttack, is not attacked by the next.

        Raises:
            InputError: a transfer attack without a source, AutoAttack with fewer than four classes, not enough memory
                for one image.
        """
        if attack.method == "transfer" and self.source is None:
            raise InputError("a transfer attack needs another network to make its images: pass --source")
        if attack.method == "autoattack" and self.num_classes < LEAST_CLASSES:
            raise InputError(f"AutoAttack's targeted loss needs at least {LEAST_CLASSES} classes, and there are "
                             f"{self.num_classes}; attack with apgd-ce and square instead")
        key = self._key(attack)
        self.seconds.pop(key, None)
        withstood = torch.zeros(self.images, dtype=torch.bool)
        withstood[among] = True
        for number, stage in enumerate(attack.stages):
            left = withstood.nonzero().flatten()

            def judge(images: Tensor, labels: Tensor, indices: Tensor, stage: str = stage, start: int = number
                      ) -> tuple[Tensor, list[str]]:
                adversarial, warnings = self._attacked(attack, stage, start, images, labels, indices)
                return self._correct(adversarial, labels), warnings

            withstood = self._stage(key, stage, left, judge, str(attack))
        return withstood

    def cost(self, attack: Attack) -> tuple[float, list[str]]:
        """Seconds over all processes that an attack took when it was last run or stored, and its warnings."""
        return self.seconds.get(self._key(attack), 0.0), self.warnings.get(self._key(attack), [])

    def complete(self, attack: Attack) -> Attack:
        """The attack with its source, where that is another network."""
        return replace(attack, source=self.source_name) if attack.method == "transfer" else attack

    def each(self, images: Tensor, judge: Judge) -> Tensor:
        """(n,) bool: what ``judge`` says of the images (indices), in parts that fit into memory; nothing is stored."""
        chunks = images.split(self.batch_size)
        flags = [self._in_parts(judge, pixels, labels, chunk)[0].cpu()
                 for chunk, (pixels, labels) in zip(chunks, self.loader.images_at(chunks), strict=True)]
        return torch.cat(flags) if flags else torch.zeros(0, dtype=torch.bool)

    def _key(self, attack: Attack) -> str:
        """Where an attack is stored: with all that its result depends on."""
        batch = f"_batch{self.batch_size}" if attack.method in STAGES else ""  # AutoAttack draws for a whole batch
        return self.complete(attack).key + batch

    # -- one stage ------------------------------------------------------------------------------------------------

    def _stage(self, key: str, stage: str, images: Tensor, judge: Judge, label: str = "clean") -> Tensor:
        """Judge the images in chunks, those of the journal apart; (N,) bool on every process."""
        known, seconds, warnings = self._known(key, stage)
        chunks = [chunk for chunk in images.split(self.batch_size) if (known[chunk] == UNKNOWN).any()]
        mine = chunks[self.world.rank::self.world.size]
        withstood = known.clone()
        for chunk in chunks:
            withstood[chunk] = 0  # measured anew as a whole
        batches = until_asked(zip(mine, self.loader.images_at(mine), strict=True), self.stop,
                              f"{self.name}: stopped during {label}")
        for chunk, (pixels, labels) in progress(batches, f"{self.name}: {label}", self.world, len(mine)):
            begin = time.perf_counter()
            flags, said = self._in_parts(judge, pixels, labels, chunk)
            withstood[chunk] = flags.to("cpu", torch.int8)
            took = time.perf_counter() - begin
            seconds, warnings = seconds + took, warnings + said
            if self.journal:
                self.journal.append(key, stage, chunk.tolist(), flags.tolist(), took, said)
        return self._shared(key, stage, images, withstood, chunks, seconds, warnings)

    def _known(self, key: str, stage: str) -> tuple[Tensor, float, list[str]]:
        """What earlier runs measured; the main process' word, so that all agree on what is left."""
        if self.journal is None:
            return torch.full((self.images,), UNKNOWN, dtype=torch.int8), 0.0, []
        found, seconds, warnings = self.journal.read(key, stage, self.images)
        if self.world.size > 1:
            flags = found.to(self.world.device, torch.float32) if self.world.is_main else torch.zeros(
                self.images, device=self.world.device)
            found = all_sum(flags, self.world).to("cpu", torch.int8)
        return found, seconds if self.world.is_main else 0.0, warnings

    def _shared(self, key: str, stage: str, images: Tensor, withstood: Tensor, chunks: list[Tensor], seconds: float,
                warnings: list[str]) -> Tensor:
        """Everything that any process has measured."""
        if self.world.size > 1:
            total = torch.zeros(self.images + 1, dtype=torch.float64, device=self.world.device)
            for chunk in chunks[self.world.rank::self.world.size]:
                total[chunk] = withstood[chunk].to(total)
            total[-1] = seconds
            total = all_sum(total, self.world).cpu()
            for chunk in chunks:
                withstood[chunk] = total[chunk].to(torch.int8)
            seconds = total[-1].item()
            if self.journal:  # all have written theirs before the sum above was complete
                warnings = self.journal.read(key, stage, self.images)[2]
        self.seconds[key] = self.seconds.get(key, 0.0) + seconds
        self.warnings[key] = sorted({*self.warnings.get(key, []), *warnings})
        result = torch.zeros(self.images, dtype=torch.bool)
        result[images] = withstood[images] == 1
        return result

    def _in_parts(self, judge: Judge, images: Tensor, labels: Tensor, indices: Tensor) -> tuple[Tensor, list[str]]:
        """Judge a chunk, in halves of halves where the GPU's memory asks for it."""
        while True:
            parts = zip(images.split(self.part), labels.split(self.part), indices.split(self.part), strict=True)
            try:
                judged = [judge(*part) for part in parts]
                return torch.cat([flags for flags, _ in judged]), [text for _, said in judged for text in said]
            except torch.OutOfMemoryError:
                if self.part == 1:
                    raise InputError("the GPU is out of memory with a single image; free it, or use --device cpu"
                                     ) from None
            # Out of the handler: the exception holds on to what filled the memory.
            self.part = max(1, min(self.part, len(images)) // 2)
            if images.device.type == "cuda":
                torch.cuda.empty_cache()
            self.log(f"the GPU is out of memory: going on with {self.part} images at a time")

    # -- one batch ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _correct(self, images: Tensor, labels: Tensor) -> Tensor:
        """(B,) bool; logits that are no numbers are never correct."""
        with attack_mode(self.model):
            logits = self.model(images)
        return (logits.argmax(1) == labels) & logits.isfinite().all(1)

    def _attacked(self, attack: Attack, stage: str, start: int, images: Tensor, labels: Tensor, indices: Tensor
                  ) -> tuple[Tensor, list[str]]:
        """The images (B, C, H, W) after one stage of an attack, and its warnings."""
        epsilon, network = attack.epsilon, self.source if attack.method == "transfer" else self.model
        if attack.method in STAGES:
            return autoattack_stage(network, images, labels, stage, epsilon, self.num_classes, attack.norm, self.seed,
                                    attack.steps or 5000)
        if attack.method == "noise":
            return self._random_noise(attack, start, images, indices), []
        if attack.method == "cw-l2":
            return carlini_wagner(network, images, labels, steps=attack.steps), []
        if attack.method == "fgsm":
            return fgsm(network, images, labels, epsilon, attack.norm), []
        begin = self._random_starts(attack, start, images, indices) if attack.random_start else None
        arguments = {"steps": attack.steps, "step_size": attack.step_size, "norm": attack.norm, "loss": attack.loss,
                     "start": begin}
        return (mim if attack.method == "mim" else pgd)(network, images, labels, epsilon, **arguments), []

    def _random_starts(self, attack: Attack, start: int, images: Tensor, indices: Tensor) -> Tensor:
        """Uniform in the ball; drawn image by image on the CPU, so that no batch, device or process changes them."""
        drawn = [random_start(image[None], attack.epsilon, attack.norm, self._draws("start", attack, start, index))
                 for image, index in zip(images.cpu(), indices.tolist(), strict=True)]
        return torch.cat(drawn).to(images)

    def _random_noise(self, attack: Attack, start: int, images: Tensor, indices: Tensor) -> Tensor:
        """Every pixel up or down by the whole strength."""
        signs = [torch.randint(2, image.shape, generator=self._draws("noise", attack, start, index)) * 2 - 1
                 for image, index in zip(images, indices.tolist(), strict=True)]
        return (images + attack.epsilon * torch.stack(signs).to(images)).clamp(0, 1)

    def _draws(self, purpose: str, attack: Attack, start: int, index: int) -> torch.Generator:
        one = replace(attack, restarts=1)  # ten starts are the first two and eight more
        return generator(self.seed, "evaluation", purpose, one.key, start, index)
