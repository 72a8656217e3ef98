"""Measure the accuracy of a network of any origin under attacks, from Python."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import nn

from wsrnas.attacks import attack_mode
from wsrnas.complexity import count_parameters
from wsrnas.data.image_set import DataSet, ImageSet
from wsrnas.data.loader import BatchLoader
from wsrnas.data.own import as_image_set
from wsrnas.data.splits import balanced_subset
from wsrnas.evaluation.attack_spec import Attack
from wsrnas.evaluation.caveats import chance
from wsrnas.evaluation.check_levels import CHECK_LEVELS, QUICK
from wsrnas.evaluation.curve import Curve
from wsrnas.evaluation.measurement import Evaluation, check_classes, refuse_gradient_attacks
from wsrnas.evaluation.own_attack import OwnAttack, named_attack
from wsrnas.evaluation.protocols import (
    CUSTOM,
    PAPER_STRENGTHS,
    PROTOCOLS,
    curve_of,
    custom_attacks,
    in_order,
    protocol_attacks,
    require_strengths,
)
from wsrnas.evaluation.results import FORMAT, measure, table
from wsrnas.runtime.arithmetic import exact_arithmetic
from wsrnas.runtime.config import require
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import type_in_words
from wsrnas.subjects.fitting import Fit, adapted
from wsrnas.subjects.images import spread
from wsrnas.training.strengths import Strengths, read_strengths


@exact_arithmetic()
def evaluate(model: nn.Module, data: Any, strengths: Strengths | None = None,
             attacks: str | OwnAttack | Sequence[str | OwnAttack] | None = None, *, protocol: str = CUSTOM,
             l2_strengths: Strengths = (),
             images: int = 0, checks: str = QUICK, check_images: int = 100, batch_size: int = 500, seed: int = 0,
             name: str = "network", log: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Measure the accuracy of a network without noise and under attacks, with 95 % intervals and honesty checks.

    Network and attacks are in evaluation mode, on the device of the network. Nothing is stored;
    ``python -m retrain.evaluate`` resumes, uses several GPUs and writes a page.

    Args:
        model: network from images (B, C, H, W) in [0, 1] to logits (B, K).
        data: data set, whose test images are used; or images and labels as ``own_data`` takes them.
        strengths: L-inf radii in pixels of [0, 1], one or several, as numbers or texts such as ``"8/255"``; None: 0.03,
            0.10, 0.17 and 0.25, and for a curve 2/255 to 32/255.
        attacks: short names of attacks, such as ``fgsm``, ``autoattack``, ``pgd-l2-50x10``, or functions from network,
            images, labels and L-inf radius to adversarial images, one or several; none: ``pgd-20``.
        protocol: list of attacks in place of ``attacks``, such as ``curve``: the smallest noise of each image, and so
            the accuracy at every strength.
        l2_strengths: L2 radii (norm over all pixels) of the attacks with ``-l2``, or of a curve in that norm.
        images: number of test images, a class-balanced choice; 0: all.
        checks: honesty checks: ``none``, ``quick`` or ``full``.
        check_images: number of images for the checks.
        batch_size: images at a time.
        seed: seed of the choice of images, of random starts and checks.
        name: name of the network in tables and figures.
        log: function that takes a line for each attack.

    Returns:
        What the result file of ``retrain.evaluate`` holds, as plain values: ``clean`` and a row for each of
        ``attacks`` with ``accuracy``, ``interval`` and one character (1 or 0) per image in ``robust``;
        ``average_robust`` and ``area``, ``curve``, ``checks``, ``failed_checks``. ``result_table`` prints it,
        ``draw_curve`` draws it.

    Raises:
        InputError: an attack is unknown, needs more classes or a gradient that the network does not have, a number is
            out of range, or the network does not return logits of images in [0, 1]: it passes the same door as those of
            ``retrain.evaluate``, but for its mode.
    """
    require(checks in CHECK_LEVELS, f"checks is {checks!r}; expected one of {', '.join(CHECK_LEVELS)}")
    _require_arguments(model, {"check_images": check_images, "batch_size": batch_size})
    curve, asked = chosen_attacks(protocol, attacks, strengths, l2_strengths)
    device = next(itertools.chain(model.parameters(), model.buffers()), torch.zeros(())).device
    part = (data.test if isinstance(data, DataSet) else as_image_set(data)).to(device)
    classes = number_of_classes(model, part)
    if images:
        part = part.subset(balanced_subset(part.labels, images, seed, "images", classes))
    loader = BatchLoader(part, batch_size, seed, "test")
    fit = fit_to(model, loader, classes, in_order(curve, asked), name, log)
    evaluation = Evaluation(fit.model, loader, classes, World(device=device), seed, batch_size, name=name, log=log,
                            has_gradient=fit.has_gradient)
    about = {"format": FORMAT, "name": name, "protocol": protocol, "seed": seed,
             "dataset": data.name if isinstance(data, DataSet) else "own", "image_set": part.fingerprint(),
             "chance": chance(part.labels.tolist(), classes),
             "model": {"source": "Python", "parameters": count_parameters(model)}, "notes": list(fit.notes),
             "batch_size": batch_size}
    return about | measure(evaluation, asked, check_images, spare_fallen=PROTOCOLS[protocol].spares_the_fallen,
                           level=checks, curve=curve)


def _require_arguments(model: Any, counts: Mapping[str, Any]) -> None:
    """Refuse what is no network, and what is no number of images."""
    for name, count in counts.items():
        require(isinstance(count, Integral) and int(count) >= 1, f"{name} is {count!r}; expected at least 1, whole")
    require(isinstance(model, nn.Module), f"the network is {type_in_words(model)}; expected a torch.nn.Module, such "
            "as open_model(...).model")


def chosen_attacks(protocol: str, attacks: str | OwnAttack | Sequence[str | OwnAttack] | None,
                   strengths: Strengths | None, l2_strengths: Strengths) -> tuple[Curve | None, tuple[Attack, ...]]:
    """Return the curve, if there is one, and the attacks that the arguments of ``evaluate`` ask for.

    Raises:
        InputError: they contradict one another, or a strength is out of range.
    """
    offered = [name for name, entry in PROTOCOLS.items() if not entry.published_way]
    require(protocol in offered, f"protocol is {protocol!r}; expected one of {', '.join(offered)}")
    if isinstance(attacks, str) or callable(attacks):
        attacks = (attacks,)
    require(attacks is None or hasattr(attacks, "__iter__"), f"attacks is {attacks!r}; expected a name, a function, or "
            "several of them")
    asked = None if attacks is None else tuple(attacks)
    require(asked is None or len(asked) > 0, "attacks is empty; expected at least one, or no attacks for PGD-20")
    strengths = None if strengths is None else read_strengths("strengths", strengths)
    l2_strengths = read_strengths("l2_strengths", l2_strengths, "l2")
    if protocol == CUSTOM:
        own: dict[str, object] = {}
        for attack in filter(callable, asked or ()):
            name = str(getattr(attack, "__name__", "")).lower()
            require(own.setdefault(name, attack) is attack, f"two attacks of your own are called {name!r}; expected "
                    "functions with different names")
        names = [named_attack(attack) for attack in asked or ("pgd-20",)]
        radii = PAPER_STRENGTHS if strengths is None else sorted(strengths)
        given = {"strengths": strengths is not None, "l2_strengths": bool(l2_strengths)}
        require_strengths(names, radii, l2_strengths, [name for name, there in given.items() if there])
        return None, custom_attacks(names, radii, sorted(l2_strengths))
    require(asked is None, f"the protocol {protocol} has its own attacks; expected protocol or attacks")
    if PROTOCOLS[protocol].curve is None:
        require(strengths is None and not l2_strengths, f"the protocol {protocol} has its own strengths; expected none")
        return None, protocol_attacks(protocol)
    require(not strengths or not l2_strengths, "a curve has one norm; expected strengths or l2_strengths")
    return curve_of("l2", l2_strengths) if l2_strengths else curve_of("linf", strengths or ()), ()


def fit_to(model: nn.Module, loader: BatchLoader, classes: int, attacks: Sequence[Attack | Curve], name: str,
           log: Callable[[str], None]) -> Fit:
    """Return a network as the attacks need it, after the door that every network passes.

    Raises:
        InputError: it is refused, or an attack does not fit it.
    """
    for attack in attacks:
        if isinstance(attack, Attack):
            check_classes(attack, classes, "the network has")
    with attack_mode(model):
        fit = adapted(model, *spread(loader), classes, batch_size=loader.batch_size)
    if not fit.has_gradient:
        refuse_gradient_attacks(attacks, name)
    say_each(fit.notes, name, log)
    return fit


def say_each(notes: Sequence[str], name: str, log: Callable[[str], None]) -> None:
    """Log what the door found out about a network."""
    for note in notes:
        log(f"{name}: {note}")


def number_of_classes(model: nn.Module, part: ImageSet) -> int:
    """Return the number of logits; where the network does not return any, the classes of the images.

    The door then says what is wrong with it.
    """
    images = next(BatchLoader(part, 1, 0, "shape").batches())[0]
    try:
        with torch.no_grad(), attack_mode(model):
            logits = model(images)
        if logits.ndim == 2:
            return int(logits.shape[1])
    except torch.OutOfMemoryError:
        raise
    except Exception:  # the user's code, or no tensor
        pass
    return int(part.labels.max()) + 1


def result_table(*results: Mapping[str, Any]) -> str:
    """Return results of ``evaluate`` as a text table with a column for each network, after what the numbers hide.

    Raises:
        InputError: something is no result, or two networks have the same name.
    """
    require(bool(results), "there is no result to show; expected results of evaluate, one after the other")
    for number, result in enumerate(results, start=1):
        require(isinstance(result, Mapping) and {"name", "clean", "attacks"} <= set(result), f"result {number} is "
                f"{type_in_words(result)}, and no result of evaluate; expected what evaluate returns")
    names = [result["name"] for result in results]
    require(len(set(names)) == len(names), f"the networks are called {', '.join(names)}; expected different names")
    return table({result["name"]: dict(result) for result in results})
