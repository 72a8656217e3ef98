"""Checks that an evaluation can be believed: signs of gradients that hide a network's weakness instead of mending it.

After Athalye et al. (2018) and Carlini et al. (2019). Each check runs on a random part of the test images, and compares
the evaluation's own attacks on all of them. Two attacks are compared image by image: a check fails when an exact test
says that chance does not explain how many images escape the stronger one. Then the accuracies under attack are upper
bounds, and probably too high.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wsrnas.attacks import attack_mode, full_precision, input_gradient
from wsrnas.evaluation.intervals import share_test, sign_test
from wsrnas.evaluation.measurement import Evaluation
from wsrnas.evaluation.protocols import Attack, at_strength, parse_attack
from wsrnas.runtime.config import format_epsilon
from wsrnas.runtime.seeding import generator

SIGNIFICANCE = 0.001
LEAST_STRENGTH = 8 / 255  # below it, an honest attack may break too few images to be told from random noise
LARGEST_STRENGTH = 0.5  # every image can be turned into a grey one, which shows no class
VANISHING_ACCURACY = 0.01
ZERO_GRADIENT_SHARE = 0.01
ESCAPE_SHARE = 0.05  # of images that PGD on cross-entropy misses on honest networks; AutoAttack finds up to that many
FALLEN_IMAGES = 10  # so many must fall to an attack before it can be told from random noise
LEAST_IMAGES = 30  # correctly classified ones, for a comparison to mean anything
LOGIT_TOLERANCE = 1e-3  # relative to the largest logit: the rounding of a GPU's batched kernels stays far below
SQUARE_QUERIES = 500
WHITE_BOX = ("pgd", "mim", "cw-linf", "apgd-ce", "autoattack")  # those that search; one step of FGSM may overshoot


@dataclass(frozen=True)
class Part:
    """The images that the checks run on, with what they need of the whole evaluation.

    Args:
        images: indices of correctly classified test images.
        strength: L-inf radius in pixels of [0, 1] at which attacks are compared.
    """

    evaluation: Evaluation
    images: Tensor
    strength: float

    def withstood(self, name: str, strength: float | None = None) -> Tensor:
        """(n,) bool: which of the images withstand the attack of that short name."""
        attack = at_strength(parse_attack(name), strength or self.strength)
        return self.evaluation.robust(attack, self.images)[self.images]

    @property
    def white_box(self) -> Tensor:
        """(n,) bool: which of the images withstand both lengths of PGD."""
        return self.withstood("pgd-20") & self.withstood("pgd-100")


def choose_images(clean: Tensor, count: int, seed: int) -> Tensor:
    """So many of the correctly classified images, drawn at random, in the order of the data set."""
    correct = clean.nonzero().flatten()
    order = torch.randperm(len(correct), generator=generator(seed, "honesty"))
    return correct[order[:count]].sort().values


def choose_strength(rows: Sequence[dict[str, Any]], clean_accuracy: float) -> float:
    """The evaluated L-inf strength whose PGD accuracy is nearest to half the clean one; at least 8/255."""
    pgd = [row for row in rows if row["method"] == "pgd" and row["norm"] == "linf"]
    if not pgd:
        return LEAST_STRENGTH
    nearest = min(pgd, key=lambda row: (abs(row["accuracy"] - clean_accuracy / 2), -row["epsilon"]))
    return max(nearest["epsilon"], LEAST_STRENGTH)


def honesty_checks(evaluation: Evaluation, part: Part, rows: Sequence[tuple[Attack, Tensor]]
                   ) -> list[dict[str, Any]]:
    """Run every check.

    Args:
        rows: the evaluation's attacks with the (N,) flags of the images that withstood them.

    Returns:
        One row a check: ``check``, ``passed`` (None where it could not be run), ``says`` and ``numbers``.
    """
    few = len(part.images) < LEAST_IMAGES
    checks: list[dict[str, Any]] = [deterministic_logits(evaluation, part)]
    for name, check in (("gradients are not zero", zero_gradients), ("more steps are not weaker", more_steps),
                        ("larger strengths are not easier", larger_strengths),
                        ("accuracy vanishes at a large strength", vanishing_accuracy),
                        ("gradients are stronger than random noise", random_noise),
                        ("white box is not weaker than Square", square),
                        ("white box is not weaker than transfer", transfer)):
        if few:
            checks.append(_row(name, None, f"only {len(part.images)} images to check are classified correctly"))
        else:
            checks.append(check(name, part, rows))
    return checks


def _row(check: str, passed: bool | None, says: str, **numbers: Any) -> dict[str, Any]:
    return {"check": check, "passed": passed, "says": says, "numbers": numbers}


def _percent(flags: Tensor) -> str:
    return f"{100 * flags.double().mean().item():.1f} %"


def _compare(check: str, stronger: Tensor, weaker: Tensor, names: tuple[str, str]) -> dict[str, Any]:
    """Fail if images escape what should be the stronger attack: more of them than fall to it alone, or many at all."""
    escaped = int((stronger & ~weaker).sum())  # withstood what should be stronger, fell to what should be weaker
    caught = int((weaker & ~stronger).sum())
    more, many = sign_test(escaped, caught), share_test(escaped, len(stronger), ESCAPE_SHARE)
    says = (f"accuracy {_percent(stronger)} under {names[0]}, {_percent(weaker)} under {names[1]}; {escaped} of "
            f"{len(stronger)} images fall to the latter alone")
    return _row(check, min(more, many) >= SIGNIFICANCE, says, images=len(stronger), fell_only_to_weaker=escaped,
                fell_only_to_stronger=caught, probability=min(more, many))


def _worst(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The most suspicious of several comparisons speaks for all."""
    return min(results, key=lambda result: result["numbers"]["probability"])


Rows = Sequence[tuple[Attack, Tensor]]


# -- the checks -----------------------------------------------------------------------------------------------------

@torch.no_grad()
def deterministic_logits(evaluation: Evaluation, part: Part) -> dict[str, Any]:
    """Twice the same images, the same logits; and an image alone has those that it has among others."""
    chosen = part.images if len(part.images) else torch.arange(evaluation.images)
    images, _ = next(iter(evaluation.loader.images_at([chosen[:min(16, evaluation.part)]])))
    with attack_mode(evaluation.model) as model:
        first, second = model(images), model(images)
        alone = torch.cat([model(image[None]) for image in images])
    scale = first.abs().max().clamp_min(1)
    again, company = ((first - other).abs().max().item() / scale.item() for other in (second, alone))
    says = f"largest relative change of a logit: {again:.1e} when asked again, {company:.1e} when asked alone"
    return _row("logits are deterministic", max(again, company) <= LOGIT_TOLERANCE, says, again=again, alone=company)


def zero_gradients(check: str, part: Part, _: Rows) -> dict[str, Any]:
    """A saturated softmax or a step function gives PGD nothing to climb, and it does not follow what is no number."""
    def judge(images: Tensor, labels: Tensor, _: Tensor) -> tuple[Tensor, list[str]]:
        with attack_mode(part.evaluation.model) as model:
            gradient = input_gradient(model, images, labels, _cross_entropy).flatten(1)
        return (gradient == 0).all(1) | ~gradient.isfinite().all(1), []

    useless = int(part.evaluation.each(part.images, judge).sum())
    share = useless / len(part.images)
    return _row(check, share <= ZERO_GRADIENT_SHARE, "the cross-entropy's gradient is zero, or no number, on "
                f"{useless} of {len(part.images)} images", share=share)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(full_precision(logits), labels, reduction="sum")


def more_steps(check: str, part: Part, rows: Rows) -> dict[str, Any]:
    """Five times the steps, each a fifth as long, must not leave more images standing; PGD not more than FGSM."""
    results = [_compare(check, part.withstood("pgd-100"), part.withstood("pgd-20"), ("PGD-100", "PGD-20"))]
    climbing = [(attack, flags) for attack, flags in rows if attack.method in ("fgsm", "pgd")]
    for (few, weaker), (many, stronger) in itertools.permutations(climbing, 2):
        same = (few.norm, few.epsilon) == (many.norm, many.epsilon)
        if same and few.steps < many.steps and few.restarts <= many.restarts:
            results.append(_compare(check, stronger, weaker, (str(many), few.label)))
    return _worst(results)


def larger_strengths(check: str, part: Part, rows: Rows) -> dict[str, Any]:
    """A larger ball contains the smaller: PGD-20 at twice the strength, and all neighbouring strengths evaluated."""
    twice = min(2 * part.strength, 1.0)
    results = [_compare(check, part.withstood("pgd-20", twice), part.withstood("pgd-20"),
                        (f"PGD-20 at {format_epsilon(twice)}", f"PGD-20 at {format_epsilon(part.strength)}"))]
    families: dict[Attack, list[tuple[Attack, Tensor]]] = {}
    for attack, flags in rows:
        if attack.method in (*WHITE_BOX, "square"):
            families.setdefault(attack.family, []).append((attack, flags))
    for family in families.values():
        ordered = sorted(family, key=lambda pair: pair[0].epsilon)
        for (small, weaker), (large, stronger) in itertools.pairwise(ordered):
            results.append(_compare(check, stronger, weaker, (str(large), str(small))))
    return _worst(results)


def vanishing_accuracy(check: str, part: Part, _: Rows) -> dict[str, Any]:
    """No network can know a picture that may be changed into a grey one; one image is forgiven."""
    flags = part.withstood("pgd-50", LARGEST_STRENGTH)
    left, allowed = int(flags.sum()), max(1, int(VANISHING_ACCURACY * len(flags)))
    return _row(check, left <= allowed, f"{left} of {len(flags)} images withstand PGD-50 at "
                f"{format_epsilon(LARGEST_STRENGTH)}, at most {allowed} may", accuracy=left / len(flags))


def random_noise(check: str, part: Part, _: Rows) -> dict[str, Any]:
    """The gradient must find what ten random noises of the full strength do not, where it finds anything."""
    strengths = sorted({part.strength, min(2 * part.strength, 1.0), max(part.strength, LARGEST_STRENGTH)})
    fallen = (part.withstood("pgd-20", strength).logical_not().sum() for strength in strengths)
    strength = next((s for s, count in zip(strengths, fallen, strict=True) if count >= FALLEN_IMAGES), strengths[-1])
    gradient, noise = part.withstood("pgd-20", strength), part.withstood("noise-10", strength)
    caught, escaped = int((noise & ~gradient).sum()), int((gradient & ~noise).sum())
    probability = sign_test(caught, escaped)
    says = (f"at {format_epsilon(strength)}, {caught} images fall to PGD-20 alone and {escaped} to ten random noises "
            "alone")
    return _row(check, probability < SIGNIFICANCE, says, images=len(gradient), fell_only_to_gradient=caught,
                fell_only_to_noise=escaped, probability=probability)


def square(check: str, part: Part, rows: Rows) -> dict[str, Any]:
    """An attack that sees only logits must not beat one that sees the network."""
    results = [_compare(check, part.white_box, part.withstood(f"square-{SQUARE_QUERIES}"),
                        ("PGD-20 and PGD-100", f"Square with {SQUARE_QUERIES} queries"))]
    return _worst([*results, *_against_white_box(check, rows, "square")])


def transfer(check: str, part: Part, rows: Rows) -> dict[str, Any]:
    """Another network's adversarial images must not beat the network's own."""
    if part.evaluation.source is None:
        return _row(check, None, "no other network to make images with (--source)")
    results = [_compare(check, part.white_box, part.withstood("transfer-20"), ("PGD-20 and PGD-100", "transfer"))]
    return _worst([*results, *_against_white_box(check, rows, "transfer")])


def _against_white_box(check: str, rows: Rows, method: str) -> list[dict[str, Any]]:
    """The evaluation's own black-box attack, on all images, against its white-box ones of the same strength together.

    Together: on an honest network, too, a short attack may miss what Square finds.
    """
    results = []
    for black, weaker in rows:
        against = [(white.label, flags) for white, flags in rows if white.method in WHITE_BOX
                   and (white.norm, white.epsilon) == (black.norm, black.epsilon)]
        if black.method == method and against:
            stronger = torch.stack([flags for _, flags in against]).all(0)
            names = " and ".join(label for label, _ in against)
            results.append(_compare(check, stronger, weaker, (names, str(black))))
    return results
