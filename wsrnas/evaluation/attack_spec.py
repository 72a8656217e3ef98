"""One attack with all its parameters, and the short names that people write for it."""

import difflib
import re
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from wsrnas.evaluation.attack_table import ATTACKS, OWN_ATTACK, AttackEntry
from wsrnas.runtime.config import format_epsilon
from wsrnas.runtime.errors import InputError

FORM = "METHOD[-l2][-STEPS][xRESTARTS]"
_SHORT_NAME = re.compile(r"(?P<method>[a-z][a-z0-9_+-]*?)(?P<l2>-l2)?(-(?P<steps>\d+))?(x(?P<restarts>\d+))?")
_ENDING = re.compile(r"(-l2|-linf|-?\d+|x\d+)+$")  # what may follow a method, in any order
_LABEL = re.compile(r"(?P<label>.+?)(?P<numbers>(-\d+)?(x\d+)?)(?P<l2> l2)?")


@dataclass(frozen=True)
class Attack:
    """One attack at one strength, with every parameter that its result depends on.

    Args:
        method: name in ``ATTACKS``.
        epsilon: radius in pixels of [0, 1] (for ``"l2"`` the norm over all pixels); None for unbounded attacks, and
            as long as no strength is chosen.
        norm: ``"linf"`` or ``"l2"``.
        steps: number of gradient steps of one start, of Square's queries or of random noises.
        step_size: length of a step in the unit of ``epsilon``; None where the attack chooses it.
        restarts: number of independent starts; an image is robust if it withstands all.
        random_start: whether the attack starts uniformly in the ball; restarts beyond the first always do.
        loss: name of the loss that is maximised, in ``ATTACK_LOSSES``; empty where the attack has its own.
        source: fingerprint of the network that the images of a transfer attack are made on.
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
    def entry(self) -> AttackEntry:
        """What the table of attacks says about the method."""
        return ATTACKS[self.method]

    @property
    def label(self) -> str:
        """Name in stored results, without strength: ``PGD-20``, ``PGD-50x10 L2``, ``C&W-100 L2``."""
        return self._named(least_steps=2)

    def _named(self, least_steps: int) -> str:
        steps = f"-{self.steps}" if self.entry.steps and self.steps >= least_steps else ""
        times = f"x{self.restarts}" if self.restarts > 1 else ""
        return self.entry.label + steps + times + (" L2" if self.norm == "l2" else "")

    @property
    def key(self) -> str:
        """File name that differs where any parameter does."""
        return "_".join(str(value) for value in asdict(self).values())

    @property
    def family(self) -> "Attack":
        """The attack without its strength: equal for attacks that differ in nothing else."""
        ratio = round(self.step_size / self.epsilon, 6) if self.step_size and self.epsilon else None
        return replace(self, epsilon=None, step_size=ratio)

    @property
    def stages(self) -> tuple[str, ...]:
        """The parts that run one after another, each on the images that withstood the earlier ones."""
        starts = self.steps if self.entry.step_is_stage else self.restarts
        return self.entry.stages or tuple(f"start {number + 1}" for number in range(starts))

    @property
    def passes(self) -> tuple[int, int]:
        """Passes per image, forward with backward and forward alone; an upper bound."""
        return self.entry.passes(self.steps, self.restarts)

    @property
    def passes_of_a_stage(self) -> tuple[int, int]:
        """Passes of an image that goes through one of the stages, forward with backward and forward alone."""
        return self.entry.passes(1 if self.entry.step_is_stage else self.steps, 1)

    def describe(self) -> dict[str, Any]:
        """Return the name and every parameter, for the record."""
        return {"attack": self.label, **asdict(self)}

    def __str__(self) -> str:
        # A single step is written out here, unlike in `label`: the name alone would be parsed as the default number.
        name = self._named(least_steps=1) + (f" from {self.source[:6]}" if self.source else "")
        if self.epsilon is None:
            return name
        return f"{name}  eps " + (f"{self.epsilon:.4g}" if self.norm == "l2" else format_epsilon(self.epsilon))


def attack_of(row: dict[str, Any]) -> Attack:
    """Return the attack that a stored row describes."""
    return Attack(**{field.name: row[field.name] for field in fields(Attack)})


def parse_attack(text: str) -> Attack:
    """Return the attack, without strength, that a short name or a label means.

    Args:
        text: ``METHOD[-l2][-STEPS][xRESTARTS]``: ``pgd-50x10`` is PGD with 50 steps and 10 random starts,
            ``pgd-l2-20`` its L2 form. The text of an attack without strength (``PGD-50x10``, ``PGD-20 L2``) is
            understood, too.

    Raises:
        InputError: The name is unknown, or the method takes no steps, restarts or norm.
    """
    match = _SHORT_NAME.fullmatch(_short_name(text.lower()))
    name = match["method"] + (match["l2"] or "") if match else text
    l2 = name not in ATTACKS and name.endswith("-l2")
    name = name.removesuffix("-l2") if l2 else name
    if match is None or name not in ATTACKS:
        close = difflib.get_close_matches(_ENDING.sub("", text.lower()), ATTACKS, n=1, cutoff=0.4)
        raise InputError(f"unknown attack {text!r}" + (f"; did you mean {close[0]}?" if close else "") + f"; expected "
                         f"{FORM}, such as pgd-50x10, METHOD being one of "
                         f"{', '.join(known for known, entry in ATTACKS.items() if entry.help != OWN_ATTACK)}")
    entry = ATTACKS[name]
    several_norms = len(entry.norms) > 1
    steps = int(match["steps"]) if match["steps"] else entry.steps
    restarts = int(match["restarts"]) if match["restarts"] else 1
    if (match["steps"] and not entry.steps) or (match["restarts"] and not entry.restarts) or (l2 and not several_norms):
        takes = [word for word, can in (("steps", entry.steps), ("restarts", entry.restarts), ("-l2", several_norms))
                 if can]
        raise InputError(f"attack {text!r}: {name} takes {' and '.join(takes) or 'neither steps nor restarts'} only")
    if (entry.steps and steps < 1) or restarts < 1:
        raise InputError(f"attack {text!r}: expected at least one step and one start")
    norm = "l2" if l2 else entry.norms[0]
    return Attack(name, None, norm, steps, restarts=restarts, random_start=restarts > 1, loss=entry.loss)


def attack_help() -> str:
    """Return the form of an attack's short name and one line per method, for the command line."""
    methods = "; ".join(f"{name} ({entry.help})" for name, entry in ATTACKS.items())
    return f"{FORM}, such as pgd-50x10 or pgd-l2-20. Methods: {methods}"


def _short_name(text: str) -> str:
    """Return the short name of an attack's label in lower case; any other text unchanged."""
    match = _LABEL.fullmatch(text)
    name = next((name for name, entry in ATTACKS.items() if match and entry.label.lower() == match["label"]), None)
    if match is None or name is None:
        return text
    return name + ("-l2" if match["l2"] and ATTACKS[name].norms[0] != "l2" else "") + match["numbers"]


def at_strength(attack: Attack, epsilon: float, step_ratio: float = 0.0, random_start: bool = False) -> Attack:
    """Return the attack at a strength.

    Args:
        attack: the attack, of any strength; an unbounded one is returned unchanged.
        epsilon: radius in pixels of [0, 1] (for ``"l2"`` the norm over all pixels).
        step_ratio: step size as a share of the strength; 0: the attack's own rule (``step_factor / steps``).
        random_start: whether to start uniformly in the ball. It and ``step_ratio`` apply to attacks whose step size
            can be chosen.
    """
    entry = attack.entry
    if entry.unbounded:
        return attack
    own = entry.step_factor / max(attack.steps, 1)
    ratio = step_ratio if step_ratio and entry.takes_step_size else own
    return replace(attack, epsilon=epsilon, step_size=ratio * epsilon if entry.step_factor else None,
                   random_start=attack.random_start or (random_start and entry.takes_step_size))
