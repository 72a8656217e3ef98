"""The named lists of attacks that an evaluation can use, one entry each."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from wsrnas.evaluation.attack_spec import Attack, at_strength, parse_attack
from wsrnas.evaluation.curve import Curve
from wsrnas.runtime.config import require

# Tables 1 and 2 of Wsr-NAS: "average robust accuracy" is the plain mean over these; Table 4 has ImageNet's.
PAPER_STRENGTHS = (0.03, 0.10, 0.17, 0.25)
IMAGENET_STRENGTHS = (0.015, 0.03, 0.045, 0.06, 0.075, 0.09)
RNAS_STRENGTH = 8 / 255
SPECTRUM_STRENGTHS = tuple(n / 255 for n in range(2, 33, 2))
SPECTRUM_AUTOATTACK_STRENGTHS = tuple(n / 255 for n in (4, 8, 12, 16))
CURVE_L2_STRENGTHS = tuple(n / 8 for n in range(1, 17))
CUSTOM, CURVE = "custom", "curve"


@dataclass(frozen=True)
class Protocol:
    """A named list of attacks.

    Args:
        help: explanation in one line, for the command line and the documents.
        attacks: the attacks in the order of their table.
        published_way: whether to measure in the way of the published code, too.
        in_race: whether a race offers the protocol.
        curve: the curve that is measured before the attacks; None: none.
        spares_the_fallen: whether images that fell at a smaller strength of an attack are not attacked again, where
            the attack allows it. The protocols of the papers attack every image at every strength.
    """

    help: str
    attacks: tuple[Attack, ...]
    published_way: bool = False
    in_race: bool = True
    spares_the_fallen: bool = False
    curve: Curve | None = None


def _at(strengths: Iterable[float], name: str, step_ratio: float = 0.0) -> tuple[Attack, ...]:
    return tuple(at_strength(parse_attack(name), strength, step_ratio) for strength in strengths)


PROTOCOLS: dict[str, Protocol] = {
    "paper": Protocol(
        "FGSM and PGD-20 at 0.03, 0.10, 0.17, 0.25, and the mean of PGD, as in Wsr-NAS, Tables 1 and 2",
        (*_at(PAPER_STRENGTHS, "fgsm"), *_at(PAPER_STRENGTHS, "pgd-20"))),
    "imagenet": Protocol(
        "PGD-10 with steps of ε/2 at six strengths from 0.015 to 0.09, as in Wsr-NAS, Table 4",
        _at(IMAGENET_STRENGTHS, "pgd-10", 0.5), in_race=False),
    "rnas": Protocol(
        "FGSM, PGD-20 with steps of 2/255, C&W margin and AutoAttack at 8/255, and the unbounded C&W, as in RNAS, "
        "Tables 1, 3 and 4",
        (*_at([RNAS_STRENGTH], "fgsm"), *_at([RNAS_STRENGTH], "pgd-20", 0.25), parse_attack("cw-l2-100"),
         *_at([RNAS_STRENGTH], "cw-linf-100"), *_at([RNAS_STRENGTH], "autoattack"))),
    "curve": Protocol(
        "each image's smallest noise, by FMN and a few steps of PGD on the margin: accuracy at every strength, the "
        "exact area up to 32/255 (--norm l2: up to 2) and the median; with --anchors also AutoAttack",
        (), spares_the_fallen=True, curve=Curve("linf", SPECTRUM_STRENGTHS)),
    "spectrum": Protocol(
        "C&W margin-20 at 2/255 to 32/255 with the normalised area under the curve, and AutoAttack at 4, 8, 12, 16/255",
        (*_at(SPECTRUM_STRENGTHS, "cw-linf-20"), *_at(SPECTRUM_AUTOATTACK_STRENGTHS, "autoattack")),
        spares_the_fallen=True),
    "official": Protocol(
        "PGD-20 at the strengths of paper, and the accuracy that the published code would report, usually too high",
        _at(PAPER_STRENGTHS, "pgd-20"), published_way=True, in_race=False),
    CUSTOM: Protocol("the attacks of --attacks at strengths of your choice", (), spares_the_fallen=True),
}


def protocol_attacks(protocol: str) -> tuple[Attack, ...]:
    """Return the attacks of a named protocol, in the order of its table."""
    return PROTOCOLS[protocol].attacks


def curve_of(norm: str, strengths: Sequence[float] = ()) -> Curve:
    """Return a curve of a norm over some strengths, in any order; none: the protocol's own, up to 32/255 or 2.

    Raises:
        InputError: two strengths have one name in tables and files.
    """
    own = CURVE_L2_STRENGTHS if norm == "l2" else SPECTRUM_STRENGTHS
    found = Curve(norm, tuple(sorted(set(strengths))) or own)
    names_apart(tuple(Attack(CURVE, strength, norm) for strength in found.strengths))
    return found


def in_order(curve: Curve | None, attacks: Iterable[Attack]) -> list[Attack | Curve]:
    """Return all that is measured, in this order: the curve, if there is one, then the attacks."""
    return [*([curve] if curve else []), *attacks]


def passes_of(attacks: Iterable[Attack | Curve]) -> tuple[int, int]:
    """Return the passes of an image that withstands all attacks: forward with backward, and forward alone."""
    both, forward = zip((0, 0), *(attack.passes for attack in attacks), strict=True)
    return sum(both), sum(forward)


def fallen_in_words(protocol: str) -> str:
    """Return what a protocol does with images that fell at a smaller strength of an attack."""
    return "not attacked again" if PROTOCOLS[protocol].spares_the_fallen else "attacked again, as published"


def require_strengths(names: Sequence[str], strengths: Sequence[float], l2_strengths: Sequence[float],
                      asked: Collection[str]) -> None:
    """Refuse attacks without a strength of their norm, and strengths that no attack has the norm of.

    Args:
        names: short names of attacks.
        strengths: L-inf radii in pixels of [0, 1].
        l2_strengths: L2 radii.
        asked: ``strengths`` or ``l2_strengths``, or both, if somebody has asked for them; others are defaults.

    Raises:
        InputError: the sentence names the attacks or the strengths.
    """
    kinds = {name: kind for name, kind in zip(names, map(parse_attack, names), strict=True)
             if not kind.entry.unbounded}
    for norm, radii, argument in (("linf", strengths, "strengths"), ("l2", l2_strengths, "l2_strengths")):
        there = [name for name, kind in kinds.items() if kind.norm == norm]
        require(not there or bool(radii), f"there is no strength for {', '.join(there)}; expected {argument}")
        require(bool(there) or argument not in asked, f"{argument} are given, but none of the attacks "
                f"{', '.join(names)} has that norm")


def custom_attacks(names: Sequence[str], strengths: Sequence[float], l2_strengths: Sequence[float],
                   step_ratio: float = 0.0, random_start: bool = False) -> tuple[Attack, ...]:
    """Return every named attack at every strength of its norm, each once.

    Args:
        names: short names of attacks.
        strengths: L-inf radii in pixels of [0, 1].
        l2_strengths: L2 radii, norms over all pixels.
        step_ratio: step size as a share of the strength, as in ``at_strength``.
        random_start: whether to start uniformly in the ball, as in ``at_strength``.

    Raises:
        InputError: two strengths have one name in tables and files, where one would hide the other.
    """
    attacks: list[Attack] = []
    for kind in map(parse_attack, names):
        radii = l2_strengths if kind.norm == "l2" else strengths
        every = [at_strength(kind, epsilon, step_ratio, random_start) for epsilon in radii]
        attacks += [kind] if kind.entry.unbounded else every
    return names_apart(tuple(dict.fromkeys(attacks)))


def names_apart(attacks: tuple[Attack, ...]) -> tuple[Attack, ...]:
    """Return different attacks as they are.

    Raises:
        InputError: two strengths have one name in tables and files, where one would hide the other.
    """
    twice = next((name for name, count in Counter(map(str, attacks)).items() if count > 1), None)
    require(twice is None, f"two strengths are both shown as {twice}; expected strengths that differ by more")
    return attacks
