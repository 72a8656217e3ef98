"""The attacks that an evaluation can use, one entry each.

To add an attack, write a function that turns an ``AttackTask`` into adversarial images, and add one entry to
``ATTACKS``. The short names, the help text, the cost, the honesty checks, the model card and the table in
docs/EVALUATE.md (``python -m docs.write_tables``) all read that entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from wsrnas.attacks import PGD_STEP, fgsm, mim, pgd, rows_at_once
from wsrnas.evaluation.autoattack import LEAST_CLASSES, autoattack_stage
from wsrnas.evaluation.carlini_wagner import carlini_wagner
from wsrnas.evaluation.curve import FMN_STEPS, MARGIN_STEPS, ROUNDS, Curve, smallest_noise
from wsrnas.evaluation.minimum_norm import fmn
from wsrnas.runtime.deferred import deferred_imports

with deferred_imports():
    import torch
    from torch import Tensor, nn

    from wsrnas.evaluation.counting import Counted

SQUARE_QUERIES = 5000  # as in AutoAttack's standard version


@dataclass
class AttackTask:
    """One batch of images and everything that one stage of an attack may need.

    Args:
        model: the network that the gradients or logits come from (of a transfer attack, the source).
        images: (B, C, H, W) in [0, 1], classified correctly.
        labels: (B,) classes.
        epsilon: radius in pixels of [0, 1] (for ``"l2"`` the norm over all pixels), infinite for unbounded attacks.
        norm: ``"linf"`` or ``"l2"``.
        steps: number of steps, queries or draws; 0 where the attack has its own number.
        step_size: length of a step in the unit of ``epsilon``; None where the attack chooses it.
        loss: name of the loss that is maximised.
        stage: name of the stage.
        num_classes: number of classes.
        seed: seed of the evaluation.
        start: (B, C, H, W) random starting points, or None to start from the images.
        generators: function that maps a purpose (any word) to one CPU generator per image. They depend on the seed,
            the attack, the stage and the image alone, so that neither batches nor processes change a result.
        warnings: list to which the attack may append sentences; the evaluation stores and prints them.
        spent: passes of the whole batch, forward with backward and forward alone, which an attack sets whose number
            of passes is not that of its entry; None: it is.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    epsilon: float
    norm: str
    steps: int
    step_size: float | None
    loss: str
    stage: str
    num_classes: int
    seed: int
    start: Tensor | None
    generators: Callable[[str], list[torch.Generator]]
    warnings: list[str] = field(default_factory=list)
    spent: tuple[int, int] | None = None


def gradient_passes(steps: int, restarts: int) -> tuple[int, int]:
    """Return the passes of a gradient attack per image: one per step, and one prediction per start."""
    return restarts * max(steps, 1), restarts


def forward_passes(steps: int, restarts: int) -> tuple[int, int]:
    """Return the passes of an attack that needs one prediction per step and no gradient."""
    return 0, steps


OWN_ATTACK = "a function of the user"  # what the help of such an entry says


@dataclass(frozen=True)
class AttackEntry:
    """Everything that the project knows about one kind of attack.

    Args:
        label: name in tables.
        help: explanation in one line, for the command line and the documents.
        run: function from an ``AttackTask`` to adversarial images (B, C, H, W), in the ball and in [0, 1].
        steps: default number of steps; 0 where the short name may not carry one.
        norms: norms that the attack can be bounded by, the default first.
        restarts: whether the short name may ask for several random starts.
        loss: name in ``wsrnas.attacks.ATTACK_LOSSES``; empty where the attack has its own.
        step_factor: a step is this number times ``epsilon / steps``; 0 where the attack chooses its steps.
        passes: function from steps and restarts to the passes per image, forward with backward and forward alone; an
            upper bound where the attack may stop early.
        stages: parts that run one after another, each on the images that withstood the earlier ones; empty where the
            parts are the restarts.
        step_is_stage: whether each of the steps is a part of its own, as each draw of random noise.
        white_box: whether the attack uses the gradients of the attacked network.
        searches: whether the attack improves its images step by step on the attacked network, so a larger epsilon
            must not raise accuracy. The honesty checks rely on it.
        climbs: whether the attack takes plain gradient steps, so that more of them must not be weaker; the honesty
            checks rely on it.
        averaged: whether its L-inf accuracies are averaged over the strengths, if it has more of them than others.
        stands_for_autoattack: whether it is a cheaper attack in AutoAttack's place: where both ran, results list the
            images on which they disagree.
        leaderboard: whether its accuracy is the one that RobustBench ranks by.
        needs_source: whether the images are made on another network (``--source``).
        unbounded: whether the attack has no strength.
        random_per_batch: whether random numbers belong to a batch instead of an image; the batch size is then part of
            the name under which results are stored.
        least_classes: smallest number of classes that the attack works with.
        in_words: function from the number of steps to the parameters in words, for the model card; None describes
            steps, starts and loss of a gradient attack.
        detail: further parameter in words of a gradient attack.
    """

    label: str
    help: str
    run: Callable[[AttackTask], Tensor]
    steps: int = 0
    norms: tuple[str, ...] = ("linf",)
    restarts: bool = False
    loss: str = ""
    step_factor: float = 0.0
    passes: Callable[[int, int], tuple[int, int]] = gradient_passes
    stages: tuple[str, ...] = ()
    step_is_stage: bool = False
    white_box: bool = True
    searches: bool = True
    climbs: bool = False
    averaged: bool = False
    stands_for_autoattack: bool = False
    leaderboard: bool = False
    needs_source: bool = False
    unbounded: bool = False
    random_per_batch: bool = False
    least_classes: int = 2
    in_words: Callable[[int], str] | None = None
    detail: str = ""

    @property
    def takes_step_size(self) -> bool:
        """Whether the step size and the start can be chosen."""
        return self.step_factor > 0 and self.steps > 0

    @property
    def is_reference(self) -> bool:
        """Whether a black-box attack stronger than this one signals masked gradients."""
        return self.white_box and self.searches and not self.unbounded

    @property
    def spares_the_fallen(self) -> bool:
        """Whether images that fell at a smaller strength need not be attacked again.

        What fools the network inside the small ball is inside the large one, too. But an attack that does not search
        means one point of each ball, and random numbers of a batch would change with the images in it.
        """
        return self.searches and not self.unbounded and not self.random_per_batch


# -- the functions --------------------------------------------------------------------------------------------------

def in_rows(task: AttackTask) -> Iterator[tuple[Tensor, Tensor]]:
    """Return images and labels in parts of as many as an attack takes at once (``rows_at_once``)."""
    rows = rows_at_once(task.images) or max(len(task.images), 1)
    return zip(task.images.split(rows), task.labels.split(rows), strict=True)


def run_fgsm(task: AttackTask) -> Tensor:
    """Attack by one step of the whole strength."""
    return fgsm(task.model, task.images, task.labels, task.epsilon, task.norm, rows=rows_at_once(task.images))


def run_pgd(task: AttackTask) -> Tensor:
    """Attack by projected gradient ascent on the entry's loss."""
    return pgd(task.model, task.images, task.labels, task.epsilon, task.steps, task.step_size, norm=task.norm,
               loss=task.loss, start=task.start, rows=rows_at_once(task.images))


def run_mim(task: AttackTask) -> Tensor:
    """Attack by gradient ascent with momentum."""
    return mim(task.model, task.images, task.labels, task.epsilon, task.steps, task.step_size, norm=task.norm,
               loss=task.loss, start=task.start, rows=rows_at_once(task.images))


def run_carlini_wagner(task: AttackTask) -> Tensor:
    """Attack by the unbounded penalty method."""
    return torch.cat([carlini_wagner(task.model, *part, steps=task.steps) for part in in_rows(task)])


def run_fmn(task: AttackTask) -> Tensor:
    """Attack by the fast minimum-norm method, and keep the noise that the ball holds."""
    found = [fmn(task.model, *part, task.norm, task.steps) for part in in_rows(task)]
    held = torch.cat([part.distances for part in found]) <= task.epsilon
    return torch.where(held.view(-1, 1, 1, 1), torch.cat([part.adversarial for part in found]), task.images)


def run_curve(task: AttackTask) -> Tensor:
    """Attack by FMN and a few steps on the margin, and keep the noise that the ball holds."""
    found, spent = smallest_noise(task.model, task.images, task.labels, Curve(task.norm, (task.epsilon,), task.steps))
    task.spent = spent[0], spent[1] + len(task.images)  # and the evaluation's prediction
    return torch.where((found.distances <= task.epsilon).view(-1, 1, 1, 1), found.adversarial, task.images)


def run_noise(task: AttackTask) -> Tensor:
    """Move every pixel up or down by the whole strength, at random."""
    signs = [torch.randint(2, image.shape, generator=generator) * 2 - 1
             for image, generator in zip(task.images, task.generators("noise"), strict=True)]
    return (task.images + task.epsilon * torch.stack(signs).to(task.images)).clamp(0, 1)


def run_autoattack(task: AttackTask) -> Tensor:
    """Attack by one stage of the original AutoAttack."""
    model = Counted(task.model)
    adversarial, warnings = autoattack_stage(model, task.images, task.labels, task.stage, task.epsilon,
                                             task.num_classes, task.norm, task.seed, task.steps or SQUARE_QUERIES)
    task.warnings.extend(warnings)
    task.spent = model.both, model.forward_alone + len(task.images)  # and the evaluation's prediction
    return adversarial


def run_gradient_attacks(task: AttackTask) -> Tensor:
    """Attack by some steps of PGD on the margin, which leave fewer images to the next stages, or by such a stage."""
    if task.stage != FIRST_STEPS:
        return run_autoattack(task)
    task.spent = FIRST_PASSES * len(task.images), len(task.images)
    return pgd(task.model, task.images, task.labels, task.epsilon, FIRST_PASSES, PGD_STEP * task.epsilon / FIRST_PASSES,
               norm=task.norm, loss="margin", rows=rows_at_once(task.images))


# -- the table ------------------------------------------------------------------------------------------------------

def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun: ``1 step``, ``5,000 queries``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _noise_in_words(draws: int) -> str:
    worst = f"the worst of {draws:,} random noises" if draws > 1 else "one random noise"
    return f"{worst}, every pixel up or down by the whole strength"


BOTH_NORMS = ("linf", "l2")
# AutoAttack tries nine target classes with a hundred steps each, by two of its parts.
APGD_PASSES, TARGETED_PASSES, FAB_PASSES = 100, 900, 3000
FIRST_STEPS, FIRST_PASSES = "pgd-margin", 10  # what falls to them needs no hundred steps

ATTACKS: dict[str, AttackEntry] = {
    "fgsm": AttackEntry(
        "FGSM", "one gradient step of the whole strength", run_fgsm, norms=BOTH_NORMS, loss="ce", step_factor=1.0,
        searches=False, climbs=True),
    "pgd": AttackEntry(
        "PGD", "projected gradient ascent", run_pgd, 20, BOTH_NORMS, restarts=True, loss="ce", step_factor=PGD_STEP,
        climbs=True, averaged=True),
    "mim": AttackEntry(
        "MIM", "PGD with momentum", run_mim, 20, loss="ce", step_factor=1.0, detail="momentum 1"),
    "cw-l2": AttackEntry(
        "C&W", "Carlini and Wagner's penalty attack with c = 0.5, unbounded, as in RNAS", run_carlini_wagner, 100,
        ("l2",), unbounded=True, in_words=lambda steps: f"{counted(steps, 'step')} of Adam (learning rate 0.01), "
        "penalty c = 0.5, from the image"),
    "cw-linf": AttackEntry(
        "C&W margin", "PGD on the margin between the logits", run_pgd, 100, restarts=True, loss="margin",
        step_factor=PGD_STEP, averaged=True),
    "fmn": AttackEntry(
        "FMN", "the fast minimum-norm attack (Pintor et al. 2021): an image falls whose smallest noise is in the ball",
        run_fmn, 100, BOTH_NORMS, loss="margin",
        in_words=lambda steps: f"{counted(steps, 'step')} on the margin, in a ball that adapts"),
    "curve": AttackEntry(
        "curve", f"FMN of STEPS steps, then at most {ROUNDS} times {MARGIN_STEPS} steps of PGD on the margin from the "
        "nearest point found: of --protocol curve, at all strengths at once", run_curve, FMN_STEPS, BOTH_NORMS,
        loss="margin", passes=lambda steps, restarts: (steps + ROUNDS * MARGIN_STEPS, ROUNDS + 1), averaged=True,
        stands_for_autoattack=True,
        in_words=lambda steps: f"smallest noise found by {counted(steps, 'step')} of FMN and a few of PGD on the "
        "margin"),
    "noise": AttackEntry(
        "random noise", "the worst of STEPS random noises of full strength", run_noise, 10, passes=forward_passes,
        step_is_stage=True, white_box=False, searches=False, in_words=_noise_in_words),
    "transfer": AttackEntry(
        "transfer PGD", "PGD on the network of --source, then shown to this one", run_pgd, 20, loss="ce",
        step_factor=PGD_STEP, white_box=False, searches=False, needs_source=True),
    "apgd-ce": AttackEntry(
        "APGD-CE", "the first part of AutoAttack, which is fast", run_autoattack, norms=BOTH_NORMS,
        passes=lambda steps, restarts: (APGD_PASSES, 0), stages=("apgd-ce",), random_per_batch=True,
        in_words=lambda steps: "as in AutoAttack's standard version: 100 steps of adaptive size, a random start, "
        "cross-entropy loss"),
    "apgd-ce+t": AttackEntry(
        "APGD-CE+T", f"{FIRST_PASSES} steps of PGD on the margin, then the two gradient attacks of AutoAttack, APGD-CE "
        "and targeted APGD: fast and nearly as strong", run_gradient_attacks, norms=BOTH_NORMS,
        passes=lambda steps, restarts: (FIRST_PASSES + APGD_PASSES + TARGETED_PASSES, 1),
        stages=(FIRST_STEPS, "apgd-ce", "apgd-t"), random_per_batch=True, least_classes=LEAST_CLASSES,
        stands_for_autoattack=True,
        in_words=lambda steps: f"{FIRST_PASSES} steps of PGD on the margin, then APGD-CE and targeted APGD as in "
        "AutoAttack's standard version"),
    "autoattack": AttackEntry(
        "AutoAttack", "the original AutoAttack, standard version, by pyautoattack", run_autoattack, norms=BOTH_NORMS,
        passes=lambda steps, restarts: (APGD_PASSES + 2 * TARGETED_PASSES, FAB_PASSES + SQUARE_QUERIES),
        stages=("apgd-ce", "apgd-t", "fab-t", "square"), random_per_batch=True, least_classes=LEAST_CLASSES,
        leaderboard=True,
        in_words=lambda steps: "standard version: APGD-CE, APGD-T, FAB-T, Square"),
    "square": AttackEntry(
        "Square", "black-box attack that sees logits alone; STEPS is its number of queries", run_autoattack,
        SQUARE_QUERIES, BOTH_NORMS, passes=forward_passes, stages=("square",), white_box=False, random_per_batch=True,
        in_words=lambda steps: f"{counted(steps, 'query', 'queries')}, of logits alone"),
}
