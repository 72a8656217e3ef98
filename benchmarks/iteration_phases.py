"""Time the phases of one search iteration: ours by the methods that the search runs, the published procedure's part."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks.clock import Clock
from benchmarks.published_procedure import STRENGTHS, PublishedSearch, repetitions
from search.spaces.supernet import gumbel_noise, gumbel_softmax
from search.strategy.step import Step
from search.wsr_nas_searcher import Searcher
from search.wsr_nas_settings import SearchConfig, schedule
from wsrnas.data.image_set import Augmentation, DataSet, ImageSet
from wsrnas.runtime.distributed import World
from wsrnas.runtime.seeding import generator

IMAGES = 25_000  # of D_t, and of D_v, in the paper
CLASSES, SIDE = 10, 32
MEASURED = 100  # architectures in M_v
FEWEST_CHECKED = 50  # images


@dataclass(frozen=True)
class Scale:
    """The size of the measurement.

    Args:
        data: share of the paper's images of D_t and D_v that are used.
        width: share of the paper's width C = 16.
        fewest_checked: images that estimates are checked on, at least; in smaller batches each one costs more.
    """

    data: float
    width: float
    fewest_checked: int = FEWEST_CHECKED

    @property
    def images(self) -> int:
        """Number of images of D_t, and of D_v; at least one batch."""
        return max(64, round(self.data * IMAGES))

    def of(self, config: SearchConfig) -> SearchConfig:
        """Return a configuration with the width of this scale, and with fewer images to check."""
        fewer = max(self.fewest_checked, round(self.data * config.check_images))
        return replace(config, init_channels=max(1, round(self.width * config.init_channels)),
                       check_images=min(config.check_images, fewer),
                       max_validation=config.max_validation if config.max_validation < self.images else 0)


def random_images(count: int) -> DataSet:
    """Return a data set of ``count`` random images like CIFAR-10's, to be augmented as those are."""
    draw = generator(0, "benchmark images")
    pixels = torch.randint(256, (count, SIDE, SIDE, 3), dtype=torch.uint8, generator=draw).permute(0, 3, 1, 2)
    images = ImageSet(pixels, torch.arange(count) % CLASSES)
    return DataSet("random", images, images, tuple(map(str, range(CLASSES))), Augmentation(4, True))


def path_noise(turn: int, shape: tuple[int, ...]) -> Tensor:
    """Return the Gumbel noise of a turn: all procedures run the same path in it, or the cell of that path."""
    return gumbel_noise(shape, generator(0, "benchmark path", turn))


def turn_gates(searcher: Searcher, turn: int) -> Tensor:
    """Return the path of a turn in a search, as the gates of its supernet."""
    space = searcher.space
    gates = gumbel_softmax(torch.zeros(space.shape), path_noise(turn, space.shape), searcher.supernet.tau)
    if searcher.config.path_kind == "cell":  # this search runs cells, so it gets that of the path
        gates = space.gates(space.discrete(gates.unsqueeze(0))[0]).to(gates).view(space.shape)
    return gates


class TimedSearcher(Searcher):
    """A searcher that also times the attacks and the estimates within a phase."""

    clock: Clock

    def _attack(self, images: Tensor, labels: Tensor, epsilons: Tensor) -> Tensor:
        with self.clock("attack"):
            return super()._attack(images, labels, epsilons)

    def _estimate(self, images: Tensor, labels: Tensor, attacked: Tensor) -> Tensor:
        with self.clock("estimate"):
            return super()._estimate(images, labels, attacked)


def run_phases(searcher: TimedSearcher, step: Step, clock: Clock) -> dict[str, Tensor]:
    """Run a step of the search once its paths are chosen, as ``search.wsr_nas`` does, and time every phase.

    Returns:
        What was measured of the first path on D_v; nothing in the warm-up.
    """
    searcher.clock = clock
    with clock("train"):
        searcher.train_supernet(step)
    if step.phase == "warm-up":
        return {}
    measured = []
    for first in searcher.each_path():
        with clock("recalibrate"):
            searcher.recalibrate(step)
        if first and searcher.learns_to_estimate:
            with clock("remember_noise"):
                searcher.update_estimator_memory(step)
            with clock("train_estimator"):
                searcher.train_estimator(step)
        with clock("validate"):
            measured.append(searcher.validate(step))
        if first and searcher.checks:
            with clock("check"):
                searcher.check_estimator(step)
    with clock("remember_losses"):
        searcher.remember(step, measured)
    if step.trains_losses:
        with clock("train_losses"):
            searcher.train_loss_estimator(step)
    if step.moves:
        with clock("move"):
            searcher.update_architecture(step)
    return measured[0]


class Iteration:
    """The search of one preset in the middle of its run: M_a is full, M_v holds ``MEASURED`` architectures.

    Args:
        config: the preset.
        scale: size of the measurement.
        world: this process.
    """

    def __init__(self, config: SearchConfig, scale: Scale, world: World) -> None:
        self.full, self.config = config, scale.of(config)
        data = random_images(2 * scale.images)
        halves = torch.arange(2 * scale.images).chunk(2)
        self.searcher = TimedSearcher(self.config, data, (halves[0], halves[1]), world)
        self.steps = [step for step in schedule(self.config) if step.phase == "search"]
        self._fill_memories()

    def _fill_memories(self) -> None:
        searcher = self.searcher
        draw = generator(0, "benchmark memory")
        choices = searcher.space.sample(MEASURED, draw)
        gates = searcher.space.gates(choices).float().to(searcher.world.device)
        losses = 1 + torch.rand(MEASURED, 1 + len(self.config.strengths), generator=draw).sort(1).values
        searcher.loss_memory.append(0, gates=gates, losses=losses.to(gates))
        if searcher.learns_to_estimate:
            searcher.clock = Clock(searcher.world.device)
            searcher.supernet.sample(draw)
            searcher.update_estimator_memory(self.steps[0])
            rows = {name: rows for name, rows in searcher.estimator_memory.rows.items() if name != "iteration"}
            while len(searcher.estimator_memory) < self.config.estimator_memory:
                searcher.estimator_memory.append(0, **rows)

    def run(self, turn: int) -> Clock:
        """Run the phases of one iteration, as ``search.wsr_nas`` does, on the path of a turn."""
        searcher, step = self.searcher, self.steps[turn]
        clock = Clock(searcher.world.device)
        with clock("sample"):
            searcher.sample(step)
        searcher.paths = [searcher.supernet.use(turn_gates(searcher, turn))]
        run_phases(searcher, step, clock)
        if searcher.estimated:
            self._estimate_twice_as_many(clock)
        return clock

    def _estimate_twice_as_many(self, clock: Clock) -> None:
        """Time the estimates of a batch, and those at twice as many strengths."""
        searcher, targets = self.searcher, self.searcher.target_epsilons
        images, labels = next(iter(searcher.validation_loader.batches()))
        attacked = (images.unsqueeze(1) + searcher.source_epsilons.view(1, -1, 1, 1, 1)).clamp(0, 1)
        for phase, asked in (("estimate_once", targets), ("estimate_twice", torch.cat([targets, 1.01 * targets]))):
            searcher.target_epsilons = asked
            with torch.no_grad(), clock(phase):
                Searcher._estimate(searcher, images, labels, attacked)  # private: without its own clock
        searcher.target_epsilons = targets

    def factors(self, images: int = IMAGES) -> dict[str, float]:
        """Return by how much ``images`` images of D_t, and as many of D_v, multiply the time of a phase.

        A preset that measures on fewer images of D_v counts those alone.
        """
        searcher, batch = self.searcher, self.full.batch_size
        validated = min(images, self.full.max_validation or images)
        first = min(len(searcher.validation_loader.image_set), self.config.eval_batch_size)  # images of the first batch
        recalibrated = min(self.full.recalibration_batches, len(searcher.recalibration_loader))
        return {"train": images // batch / len(searcher.train_loader),
                "recalibrate": self.full.recalibration_batches / recalibrated,
                "validate": validated / len(searcher.validation_loader.image_set),
                "estimate_once": validated / first, "estimate_twice": validated / first,
                "check": self.full.check_images / max(1, len(searcher.check_loader.image_set))}

    def phases(self, clock: Clock, images: int = IMAGES) -> dict[str, float]:
        """Return the seconds of every phase of an iteration on ``images`` images of D_t, and as many of D_v."""
        factors = self.factors(images)
        return {name: seconds * factors.get(name.split("/")[0], 1.0) for name, seconds in clock.seconds.items()}


def columns(phases: dict[str, float]) -> dict[str, float]:
    """Return the seconds of an iteration by the columns of Table 6.

    Args:
        phases: seconds of the phases; ``validate`` includes ``validate/attack`` and ``validate/estimate``.
    """
    def of(*names: str) -> float:
        return sum(phases.get(name, 0.0) for name in names)

    measured = of("validate") - of("validate/attack", "validate/estimate")
    return {"adversarial_training": of("sample", "train", "recalibrate"), "attacks": of("validate/attack"),
            "searcher": measured + of("remember_losses", "train_losses", "move"),
            "estimator": of("remember_noise", "train_estimator", "validate/estimate", "check")}


def percent_per_strength(phases: dict[str, float], attacked: int, estimated: int) -> float:
    """Return the cost of one more estimated strength in percent of an iteration.

    It is a forward pass over D_v, a share of the check, and what its estimates add to those of the other strengths: the
    difference between the estimates of twice as many strengths and of as many, for each of these.

    Args:
        phases: seconds of the phases of an iteration.
        attacked: N1.
        estimated: N2.
    """
    measured = phases["validate"] - phases["validate/attack"] - phases.get("validate/estimate", 0.0)
    alone = phases["estimate_twice"] - phases["estimate_once"] + phases.get("check", 0.0)
    return 100 * (alone / estimated + measured / (1 + attacked + estimated)) / sum(columns(phases).values())


class PublishedIteration:
    """The parts of the published procedure, each on one batch; an iteration repeats them.

    Args:
        scale: size of the measurement; only its width counts here.
        targets: numbers of estimated strengths whose estimates are timed.
        world: this process.
    """

    def __init__(self, scale: Scale, targets: set[int], world: World) -> None:
        config = scale.of(SearchConfig())
        self.search = PublishedSearch(config.init_channels, config.layers, CLASSES, world.device)
        self.targets, self.world = sorted(targets - {0}), world
        draw = generator(0, "benchmark batch")
        self.images = torch.rand(config.batch_size, 3, SIDE, SIDE, generator=draw).to(world.device)
        self.labels = (torch.arange(config.batch_size) % CLASSES).to(world.device)

    def run(self, turn: int) -> Clock:
        """Run every part once on the path of a turn."""
        search, images, labels, clock = self.search, self.images, self.labels, Clock(self.world.device)
        search.supernet.noises = [noise.to(self.world.device) for noise in path_noise(turn, (2, 14, 8))]
        with clock("train"):
            search.train(images, labels)
        with clock("attack"):
            adversarial = search.attack(images, labels, STRENGTHS[-1])
        sources = torch.tensor(STRENGTHS, device=self.world.device)
        noises = (adversarial.detach() - images).unsqueeze(1) * (sources / sources[-1]).view(1, -1, 1, 1, 1)
        with clock("tasks"):
            search.make_tasks(images, torch.cat([noises, 1.2 * noises[:, -1:]], 1),
                              torch.cat([sources, 1.2 * sources[-1:]]))
        while len(search.tasks) < (search.tasks.maxlen or 0):
            search.tasks.append(search.tasks[0])
        for count in self.targets:
            with clock(f"estimate {count}"):
                search.estimate(images, noises, sources, torch.linspace(
                    0.04, 0.1, count, device=self.world.device))
        with clock("judge"):
            search.judge(adversarial, labels)
        with clock("clean"):
            search.clean(images, labels)
        del adversarial  # and its graph
        with clock("train_estimator"):
            search.train_estimator()
        with clock("train_losses"):
            search.train_losses()
        with clock("move"):
            search.move()
        return clock


def published_columns(clock: Clock, attacked: int, estimated: int) -> dict[str, float]:
    """Return the seconds of a published iteration on the paper's data by the columns of Table 6.

    Args:
        clock: the parts.
        attacked: N1.
        estimated: N2.
    """
    measured = {"attack_for_tasks": "attack", "estimate": f"estimate {estimated}"}
    parts = {name: count * clock.seconds.get(measured.get(name, name), 0.0)
             for name, count in repetitions(attacked, estimated, IMAGES).items()}
    return {"adversarial_training": parts["train"], "attacks": parts["attack"],
            "searcher": parts["judge"] + parts["clean"] + parts["train_losses"] + parts["move"],
            "estimator": parts["attack_for_tasks"] + parts["tasks"] + parts["estimate"] + parts["train_estimator"]}
