"""What an evaluation attacks with: an attack with all its parameters, its short name, and the lists that papers use."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from wsrnas.runtime.config import format_epsilon
from wsrnas.runtime.errors import InputError

# Tables 1 and 2 of Wsr-NAS: "average robust accuracy" is the plain mean over these; Table 4 has ImageNet's.
PAPER_STRENGTHS = (0.03, 0.10, 0.17, 0.25)
IMAGENET_STRENGTHS = (0.015, 0.03, 0.045, 0.06, 0.075, 0.09)
RNAS_STRENGTH = 8 / 255
SPECTRUM_STRENGTHS = tuple(n / 255 for n in range(2, 33, 2))
SPECTRUM_AUTOATTACK_STRENGTHS = tuple(n / 255 for n in (4, 8, 12, 16))

# The stages that an attack consists of where they are not its restarts; each meets the images that survived so far.
STAGES = {"autoattack": ("apgd-ce", "apgd-t", "fab-t", "square"), "apgd-ce": ("apgd-ce",), "square": ("square",)}
UNBOUNDED = ("cw-l2",)


@dataclass(frozen=True)
class Attack:
    """One attack at one strength: everything that its number has to be read with.

    Args:
        method: one of ``METHODS``.
        epsilon: radius in pixels of [0, 1] (for ``"l2"`` the norm over all pixels); None for the unbounded ``cw-l2``.
        norm: ``"linf"`` or ``"l2"``.
        steps: gradient steps of one start; queries of Square; draws of random noise.
        step_size: length of a step in the unit of ``epsilon``; None where the attack chooses it.
        restarts: independent starts; an image is robust if it withstands all.
        random_start: start uniformly in the ball; restarts beyond the first always do.
        loss: what is maximised, a name in ``ATTACK_LOSSES``; empty where the attack has its own.
        source: of a transfer attack, the fingerprint of the network that its images are made on.
    """

    method: str
    epsilon: float | None
    norm: str = "linf"
    steps: int = 0
    step_size: float | None = None
    restarts: int = 1
    random_start: bool = False
    loss: str = ""
    source: str = ""

    @property
    def label(self) -> str:
        """Its name in tables, without the strength: ``PGD-20``, ``PGD-50x10 L2``, ``C&W-100 (margin)``."""
        times = f"x{self.restarts}" if self.restarts > 1 else ""
        norm = " L2" if self.norm == "l2" else ""
        name = METHODS[self.method].label
        return name + (f"-{self.steps}" if METHODS[self.method].steps and self.steps > 1 else "") + times + norm

    @property
    def key(self) -> str:
        """A file name that differs where any parameter does."""
        return "_".join(str(value) for value in asdict(self).values())

    @property
    def family(self) -> "Attack":
        """The attack without its strength: equal for attacks that differ in nothing else."""
        ratio = round(self.step_size / self.epsilon, 6) if self.step_size and self.epsilon else None
        return replace(self, epsilon=None, step_size=ratio)

    @property
    def stages(self) -> tuple[str, ...]:
        """The parts that run one after another, each on the images that the earlier ones left."""
        starts = self.steps if self.method == "noise" else self.restarts
        return STAGES.get(self.method) or tuple(f"start {n + 1}" for n in range(starts))

    @property
    def passes(self) -> tuple[int, int]:
        """Passes an image: forward and backward, and forward alone; an upper bound where an attack may stop early."""
        starts = self.restarts * max(self.steps, 1)
        apgd, targeted = (100, 0), (900, 3000)  # AutoAttack tries nine targets of a hundred steps each, twice
        return {"noise": (0, self.steps), "square": (0, self.steps), "apgd-ce": apgd,
                "autoattack": (apgd[0] + 2 * targeted[0], targeted[1] + 5000)}.get(self.method, (starts, self.restarts))

    def describe(self) -> dict[str, Any]:
        """Its name and every parameter, for the record."""
        return {"attack": self.label, **asdict(self)}

    def __str__(self) -> str:
        label = f"{self.label} from {self.source[:6]}" if self.source else self.label
        if self.epsilon is None:
            return label
        return f"{label}  eps " + (f"{self.epsilon:.4g}" if self.norm == "l2" else format_epsilon(self.epsilon))


def attack_of(row: dict[str, Any]) -> Attack:
    """The attack that a stored row describes."""
    return Attack(**{field.name: row[field.name] for field in fields(Attack)})


@dataclass(frozen=True)
class Method:
    """A kind of attack: its name in tables and what its short name may carry."""

    label: str
    steps: int = 0  # the default number; 0: the attack has its own
    restarts: bool = False
    l2: bool = False
    loss: str = ""
    help: str = ""


METHODS = {
    "fgsm": Method("FGSM", l2=True, loss="ce", help="one step of the whole strength"),
    "pgd": Method("PGD", 20, restarts=True, l2=True, loss="ce", help="projected gradient ascent"),
    "mim": Method("MIM", 20, loss="ce", help="PGD with momentum"),
    "cw-l2": Method("C&W", 100, loss="", help="Carlini and Wagner's penalty attack, c = 0.5: unbounded, as in RNAS"),
    "cw-linf": Method("C&W margin", 100, restarts=True, loss="margin", help="PGD on the margin of the logits"),
    "noise": Method("random noise", 10, help="the worst of so many random noises of full strength"),
    "transfer": Method("transfer PGD", 20, loss="ce", help="PGD on --source, then shown to the network"),
    "apgd-ce": Method("APGD-CE", l2=True, help="the first part of AutoAttack"),
    "autoattack": Method("AutoAttack", l2=True, help="the original, standard version"),
    "square": Method("Square", 5000, l2=True, help="black box; so many queries"),
}


def parse_attack(text: str) -> Attack:
    """An attack without its strength from its short name: ``METHOD[-l2][-STEPS][xRESTARTS]``.

    ``pgd-50x10`` is PGD with 50 steps and 10 random starts, ``pgd-l2-20`` the L2 attack.

    Raises:
        InputError: it is no such name, or the method does not take steps, restarts or a norm.
    """
    match = re.fullmatch(r"(?P<method>[a-z-]+?)(?P<l2>-l2)?(-(?P<steps>\d+))?(x(?P<restarts>\d+))?", text.lower())
    name = match["method"] + (match["l2"] or "") if match else text
    l2 = name not in METHODS and name.endswith("-l2")
    name = name.removesuffix("-l2") if l2 else name
    if name not in METHODS:
        close = difflib.get_close_matches(text, METHODS, n=1, cutoff=0.4)
        raise InputError(f"unknown attack {text!r}" + (f"; did you mean {close[0]}?" if close else "") + "; expected "
                         f"METHOD[-l2][-STEPS][xRESTARTS], such as pgd-50x10, METHOD being one of {', '.join(METHODS)}")
    method = METHODS[name]
    steps = int(match["steps"]) if match["steps"] else method.steps
    restarts = int(match["restarts"]) if match["restarts"] else 1
    if (match["steps"] and not method.steps) or (match["restarts"] and not method.restarts) or (l2 and not method.l2):
        takes = [word for word, can in (("steps", method.steps), ("restarts", method.restarts), ("-l2", method.l2))
                 if can]
        raise InputError(f"attack {text!r}: {name} takes {' and '.join(takes) or 'neither steps nor restarts'} only")
    if (method.steps and steps < 1) or restarts < 1:
        raise InputError(f"attack {text!r}: expected at least one step and one start")
    norm = "l2" if l2 or name in UNBOUNDED else "linf"
    return Attack(name, None, norm, steps, restarts=restarts, random_start=restarts > 1, loss=method.loss)


def at_strength(attack: Attack, epsilon: float, step_ratio: float = 0.0, random_start: bool = False) -> Attack:
    """The attack at a strength; a step is ``step_ratio`` of it, or, at 0, the attack's own rule.

    PGD's is ``2.5 / steps``, the papers'; MIM's is ``1 / steps``.
    """
    if attack.method in UNBOUNDED:
        return attack
    own = {"fgsm": 1.0, "mim": 1 / max(attack.steps, 1)}.get(attack.method, 2.5 / max(attack.steps, 1))
    stepping = attack.method in ("pgd", "mim", "cw-linf", "transfer")
    ratio = step_ratio if step_ratio and stepping else own
    gradient = stepping or attack.method == "fgsm"
    return replace(attack, epsilon=epsilon, step_size=ratio * epsilon if gradient else None,
                   random_start=attack.random_start or (random_start and stepping))


def protocol_attacks(protocol: str) -> tuple[Attack, ...]:
    """The attacks of a named protocol, in the order of its table.

    ``paper``: FGSM and PGD-20 at four strengths (Wsr-NAS, Tables 1 and 2).
    ``imagenet``: PGD-10 with steps of ε/2 at six strengths (Wsr-NAS, Table 4).
    ``rnas``: FGSM, PGD-20 with steps of 2/255, C&W and AutoAttack at 8/255 (RNAS, Tables 1, 3, 4); its C&W is the
    unbounded penalty attack, beside which stands the bounded one.
    ``spectrum``: PGD-20 up to 32/255, AutoAttack at four strengths.
    ``official``: PGD-20 at the paper's strengths, beside which stands the published way.
    """
    fgsm, pgd = parse_attack("fgsm"), parse_attack("pgd-20")
    at = {
        "paper": [at_strength(kind, e) for kind in (fgsm, pgd) for e in PAPER_STRENGTHS],
        "imagenet": [at_strength(parse_attack("pgd-10"), e, 0.5) for e in IMAGENET_STRENGTHS],
        "rnas": [at_strength(fgsm, RNAS_STRENGTH), at_strength(pgd, RNAS_STRENGTH, 0.25), parse_attack("cw-l2-100"),
                 *(at_strength(parse_attack(name), RNAS_STRENGTH) for name in ("cw-linf-100", "autoattack"))],
        "spectrum": [at_strength(pgd, e) for e in SPECTRUM_STRENGTHS]
        + [at_strength(parse_attack("autoattack"), e) for e in SPECTRUM_AUTOATTACK_STRENGTHS],
        "official": [at_strength(pgd, e) for e in PAPER_STRENGTHS],
    }
    return tuple(at[protocol])


def custom_attacks(names: Sequence[str], strengths: Sequence[float], l2_strengths: Sequence[float],
                   step_ratio: float = 0.0, random_start: bool = False) -> tuple[Attack, ...]:
    """Every named attack at every strength of its norm."""
    attacks: list[Attack] = []
    for kind in map(parse_attack, names):
        radii = l2_strengths if kind.norm == "l2" else strengths
        every = [at_strength(kind, e, step_ratio, random_start) for e in radii]
        attacks += [kind] if kind.method in UNBOUNDED else every
    return tuple(dict.fromkeys(attacks))  # each once
