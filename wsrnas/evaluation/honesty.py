"""Checks for masked gradients, which make attacks fail on networks that are not robust.

After Athalye et al. (2018) and Carlini et al. (2019). Each check runs on a random part of the test images, and compares
the evaluation's own attacks on all that are classified correctly. Two attacks are compared image by image: a check
fails if significantly more images survive the stronger attack and fall to the weaker one than the reverse (exact test).
The accuracies under attack are then upper bounds only, and probably too high. The quick checks run no attack of more
than 20 steps, and none that asks for logits alone; they, too, compare the evaluation's own attacks.

To add a check, write a function ``(part, rows) -> Verdict`` and add one entry to ``CHECKS``, at the end of this file.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from wsrnas.attacks import attack_mode, full_precision, input_gradient
from wsrnas.evaluation.active_test import own_attacks, planted_examples
from wsrnas.evaluation.attack_spec import Attack, at_strength, parse_attack
from wsrnas.evaluation.attack_table import ATTACKS, AttackEntry
from wsrnas.evaluation.check_levels import FULL, QUICK
from wsrnas.evaluation.intervals import share_test, sign_test
from wsrnas.evaluation.verdicts import ESCAPE_SHARE, LEFT_OUT, SIGNIFICANCE, Verdict, compare, worst
from wsrnas.runtime.config import format_epsilon
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.seeding import generator

with deferred_imports():
    import torch
    from torch import Tensor
    from torch.nn import functional as F

    from wsrnas.evaluation.measurement import Evaluation

LEAST_STRENGTH = 8 / 255  # below it, an honest attack may break too few images to be told from random noise
LARGEST_STRENGTH = 0.5  # at this strength every image can be turned into a grey one, which shows no class
VANISHING_ACCURACY = 0.01
ZERO_GRADIENT_SHARE = 0.01
FALLEN_IMAGES = 10  # fewer images that fall to an attack cannot be told from random noise
LEAST_IMAGES = 30  # fewer correctly classified images make a comparison meaningless
LOGIT_TOLERANCE = 1e-3  # relative to the largest logit: the rounding of a GPU's batched kernels stays far below
CHECK_QUERIES = 500  # of Square in its check; an evaluation's own Square takes more

Rows: TypeAlias = "Sequence[tuple[Attack, Tensor]]"


@dataclass(frozen=True)
class Part:
    """The images that the checks run on, and the evaluation that they belong to.

    Args:
        evaluation: the evaluation of the network.
        images: (n,) indices of correctly classified test images.
        strength: L-inf radius in pixels of [0, 1] at which attacks are compared.
        level: key of ``CHECK_LEVELS``, except ``none``.
        spared: whether images that fell at a smaller strength of an attack were not attacked again, where the attack
            allows it; they count as fallen, whatever the network does.
        known: which images withstand the attacks so far, because several checks ask for the same one.
    """

    evaluation: Evaluation
    images: Tensor
    strength: float
    level: str = FULL
    spared: bool = False
    known: dict[Attack, Tensor] = field(default_factory=dict)

    def withstood(self, name: str, strength: float | None = None) -> Tensor:
        """Return which of the images withstand an attack, (n,) bool.

        Args:
            name: short name of the attack.
            strength: L-inf radius in pixels of [0, 1]; None: the part's own.
        """
        attack = at_strength(parse_attack(name), strength or self.strength)
        if attack not in self.known:
            self.known[attack] = self.evaluation.robust(attack, self.images)[self.images]
        return self.known[attack]

    @property
    def white_box(self) -> Tensor:
        """Which of the images withstand PGD of 20 and of 100 steps, (n,) bool."""
        return self.withstood("pgd-20") & self.withstood("pgd-100")


@dataclass(frozen=True)
class Check:
    """One entry of the table of checks.

    Args:
        judge: function from the part and the evaluation's attacks, as ``honesty_checks`` has them, to the verdict.
        least_images: smallest number of correctly classified images that the check makes sense with.
        follows_gradient: whether the check attacks with the network's gradient.
    """

    judge: Callable[[Part, Rows], Verdict]
    least_images: int = LEAST_IMAGES
    follows_gradient: bool = True


def choose_images(clean: Tensor, count: int, seed: int) -> Tensor:
    """Return at most ``count`` correctly classified images, drawn at random, in the order of the data set.

    Args:
        clean: (N,) bool, which images are classified correctly.
        count: number of images.
        seed: seed of the choice.
    """
    correct = clean.nonzero().flatten()
    order = torch.randperm(len(correct), generator=generator(seed, "honesty"))
    return correct[order[:count]].sort().values


def choose_strength(rows: Sequence[dict[str, Any]], clean_accuracy: float) -> float:
    """Return the evaluated L-inf strength whose PGD accuracy is nearest to half the clean one; at least 8/255."""
    pgd = [row for row in rows if ATTACKS[row["method"]].averaged and row["norm"] == "linf"]
    if not pgd:
        return LEAST_STRENGTH
    nearest = min(pgd, key=lambda row: (abs(row["accuracy"] - clean_accuracy / 2), -row["epsilon"]))
    return max(nearest["epsilon"], LEAST_STRENGTH)


def honesty_checks(part: Part, rows: Rows) -> list[dict[str, Any]]:
    """Run every check.

    Args:
        part: the images to check.
        rows: the evaluation's attacks; for each, which of the correctly classified test images withstand it, (n,) bool.

    Returns:
        One row per check: ``check``, ``passed`` (None where it could not be run), ``says`` and ``numbers``.
    """
    checks = []
    for name, check in CHECKS.items():
        if check.follows_gradient and not part.evaluation.has_gradient:
            verdict = Verdict(None, "the network has no gradient for its images")
        elif len(part.images) < check.least_images and part.evaluation.has_gradient:
            verdict = Verdict(None, f"only {len(part.images)} images to check are classified correctly")
        else:
            verdict = check.judge(part, rows)
        checks.append({"check": name, "passed": verdict.passed, "says": verdict.says, "numbers": verdict.numbers})
    return checks


# -- comparisons ----------------------------------------------------------------------------------------------------

def _against_white_box(rows: Rows, is_weaker: Callable[[AttackEntry], bool]) -> list[Verdict]:
    """Compare black-box attacks of the evaluation with all its white-box attacks of the same strength together.

    Together, because on an honest network, too, a single short attack may miss what Square finds.
    """
    verdicts = []
    for black, weaker in rows:
        against = [(white.label, flags) for white, flags in rows if white.entry.is_reference
                   and (white.norm, white.epsilon) == (black.norm, black.epsilon)]
        if is_weaker(black.entry) and against:
            stronger = torch.stack([flags for _, flags in against]).all(0)
            names = " and ".join(label for label, _ in against)
            verdicts.append(compare(stronger, weaker, (names, str(black))))
    return verdicts


# -- the checks -----------------------------------------------------------------------------------------------------

def deterministic_logits(part: Part, rows: Rows) -> Verdict:
    """Check that the same images give the same logits twice, and an image alone the same as in a batch."""
    evaluation = part.evaluation
    chosen = part.images if len(part.images) else torch.arange(evaluation.images)
    images, _ = next(iter(evaluation.loader.images_at([chosen[:min(16, evaluation.part)]])))
    with torch.no_grad(), attack_mode(evaluation.model) as model:
        first, second = model(images), model(images)
        alone = torch.cat([model(image[None]) for image in images])
    scale = first.abs().max().clamp_min(1)
    again, company = ((first - other).abs().max().item() / scale.item() for other in (second, alone))
    says = f"largest relative change of a logit: {again:.1e} when asked again, {company:.1e} when asked alone"
    passed = again <= LOGIT_TOLERANCE and company <= LOGIT_TOLERANCE  # not where one is no number
    return Verdict(passed, says, {name: value if math.isfinite(value) else None
                                  for name, value in (("again", again), ("alone", company))})


def zero_gradients(part: Part, rows: Rows) -> Verdict:
    """Check that gradients are neither zero nor NaN: a saturated softmax or a step function gives PGD no direction."""
    if not part.evaluation.has_gradient:
        return Verdict(False, "no gradient leads from the logits to the images", {"share": 1.0})

    def judge(images: Tensor, labels: Tensor, _: Tensor) -> tuple[Tensor, list[str]]:
        with attack_mode(part.evaluation.model) as model:
            gradient = input_gradient(model, images, labels, _cross_entropy).flatten(1)
        return (gradient == 0).all(1) | ~gradient.isfinite().all(1), []

    useless = int(part.evaluation.each(part.images, judge).sum())
    share = useless / len(part.images)
    return Verdict(share <= ZERO_GRADIENT_SHARE, "the gradient of the cross-entropy is zero, NaN or infinite on "
                   f"{useless} of {len(part.images)} images", {"share": share})


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(full_precision(logits), labels, reduction="sum")


def more_steps(part: Part, rows: Rows) -> Verdict:
    """Check that PGD with five times the steps, each a fifth as long, is not weaker, nor PGD weaker than FGSM."""
    verdicts = [] if part.level == QUICK else [
        compare(part.withstood("pgd-100"), part.withstood("pgd-20"), ("PGD-100", "PGD-20"))]
    climbing = [(attack, flags) for attack, flags in rows if attack.entry.climbs]
    for (few, weaker), (many, stronger) in itertools.permutations(climbing, 2):
        same = (few.norm, few.epsilon) == (many.norm, many.epsilon)
        if same and few.steps < many.steps and few.restarts <= many.restarts:
            verdicts.append(compare(stronger, weaker, (str(many), few.label)))
    return worst(verdicts)


def larger_strengths(part: Part, rows: Rows) -> Verdict:
    """Check that a larger ball is not easier to withstand: twice the strength, and all strengths of an attack.

    Where images that fell are not attacked again, an attack's own strengths say nothing.
    """
    twice = min(2 * part.strength, 1.0)
    verdicts = [compare(part.withstood("pgd-20", twice), part.withstood("pgd-20"),
                         (f"PGD-20 at {format_epsilon(twice)}", f"PGD-20 at {format_epsilon(part.strength)}"))]
    families: dict[Attack, list[tuple[float, Attack, Tensor]]] = {}
    for attack, flags in rows:
        spared = part.spared and attack.entry.spares_the_fallen
        if attack.entry.searches and attack.epsilon is not None and not spared:
            families.setdefault(attack.family, []).append((attack.epsilon, attack, flags))
    for family in families.values():
        ordered = sorted(family, key=lambda measured: measured[0])
        for (_, small, weaker), (_, large, stronger) in itertools.pairwise(ordered):
            verdicts.append(compare(stronger, weaker, (str(large), str(small))))
    return worst(verdicts)


def vanishing_accuracy(part: Part, rows: Rows) -> Verdict:
    """Check that almost no image withstands a strength at which every image may become a grey one."""
    if part.level == QUICK:
        return LEFT_OUT
    flags = part.withstood("pgd-50", LARGEST_STRENGTH)
    left, allowed = int(flags.sum()), max(1, int(VANISHING_ACCURACY * len(flags)))
    return Verdict(left <= allowed, f"{left} of {len(flags)} images withstand PGD-50 at "
                   f"{format_epsilon(LARGEST_STRENGTH)}; at most {allowed} may", {"accuracy": left / len(flags)})


def random_noise(part: Part, rows: Rows) -> Verdict:
    """Check that the gradient breaks images that ten random noises of full strength do not break."""
    tried = []
    for strength in sorted({part.strength, min(2 * part.strength, 1.0), max(part.strength, LARGEST_STRENGTH)}):
        gradient, noise = part.withstood("pgd-20", strength), part.withstood("noise-10", strength)
        caught, escaped = int((noise & ~gradient).sum()), int((gradient & ~noise).sum())
        tried.append((sign_test(caught, escaped), strength, caught, escaped, int((~gradient).sum())))
        if tried[-1][0] < SIGNIFICANCE:  # one strength at which so many images decide is enough
            break
    probability, strength, caught, escaped, fallen = min(tried)
    says = (f"at {format_epsilon(strength)}, {caught} images fall to PGD-20 alone and {escaped} to ten random noises "
            "alone")
    passed: bool | None = probability < SIGNIFICANCE
    if not passed and not escaped and fallen >= FALLEN_IMAGES:
        passed, says = None, f"{says}, too few to tell"
    return Verdict(passed, says, {"images": len(part.images), "fell_only_to_gradient": caught,
                                  "fell_only_to_noise": escaped, "probability": probability})


def square(part: Part, rows: Rows) -> Verdict:
    """Check that attacks that see logits alone do not beat attacks that see gradients."""
    verdicts = [] if part.level == QUICK else [
        compare(part.white_box, part.withstood(f"square-{CHECK_QUERIES}"),
                 ("PGD-20 and PGD-100", f"Square with {CHECK_QUERIES} queries"))]
    return worst([*verdicts, *_against_white_box(rows, lambda entry: entry.searches and not entry.white_box)])


def transfer(part: Part, rows: Rows) -> Verdict:
    """Check that images made on another network do not beat those made on the network itself."""
    if part.evaluation.source is None:
        return Verdict(None, "no other network to make images with (--source)")
    verdicts = [] if part.level == QUICK else [
        compare(part.white_box, part.withstood("transfer-20"), ("PGD-20 and PGD-100", "transfer"))]
    return worst([*verdicts, *_against_white_box(rows, lambda entry: entry.needs_source)])


def planted(part: Part, rows: Rows) -> Verdict:
    """Check that the evaluation's own attacks find adversarial examples that are planted for them."""
    attacks = own_attacks([attack for attack, _ in rows], part.strength, part.level)
    if not attacks:
        return Verdict(None, f"no attack follows gradients, and --checks {QUICK} leaves out the others")
    evaluation = part.evaluation
    chosen: list[Tensor] = []
    found: list[Tensor] = []
    for number, (images, labels) in enumerate(evaluation.loader.images_at(
            parts := part.images.split(evaluation.part))):
        results = planted_examples(evaluation, images, labels, parts[number], attacks)
        for flags, result in zip((chosen, found), results, strict=True):
            flags.append(result.cpu())
    count, missed = int(torch.cat(chosen).sum()), int((torch.cat(chosen) & ~torch.cat(found)).sum())
    if count < LEAST_IMAGES:
        return Verdict(None, f"an example could be planted for {count} of {len(part.images)} images only")
    probability = share_test(missed, count, ESCAPE_SHARE)
    names = " and ".join([*(attack.label for attack in attacks[:-1]), str(attacks[-1])])
    return Verdict(probability >= SIGNIFICANCE, f"{names} miss{'es' * (len(attacks) == 1)} {missed} of {count} planted "
                   "adversarial examples", {"images": count, "missed": missed, "probability": probability})


# The names are stored in results.
CHECKS: dict[str, Check] = {
    "logits are deterministic": Check(deterministic_logits, least_images=0, follows_gradient=False),
    "gradients are not zero": Check(zero_gradients, follows_gradient=False),
    "more steps are not weaker": Check(more_steps),
    "larger strengths are not easier": Check(larger_strengths),
    "accuracy vanishes at a large strength": Check(vanishing_accuracy),
    "gradients are stronger than random noise": Check(random_noise),
    "planted examples are found": Check(planted),
    "white box is not weaker than Square": Check(square),
    "white box is not weaker than transfer": Check(transfer),
}
