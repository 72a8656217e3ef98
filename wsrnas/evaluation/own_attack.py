"""An attack that a user writes as a function in Python: it becomes an entry of the table of attacks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor, nn

from wsrnas.attacks import attack_mode
from wsrnas.evaluation.attack_spec import parse_attack
from wsrnas.evaluation.attack_table import ATTACKS, OWN_ATTACK, AttackEntry, AttackTask
from wsrnas.evaluation.counting import Counted
from wsrnas.runtime.errors import InputError, named_line, out_of_memory

OwnAttack = Callable[[nn.Module, Tensor, Tensor, float], Tensor]


def named_attack(attack: str | OwnAttack) -> str:
    """Return the short name of an attack; a function gets an entry under its own name first.

    A second function of the same name takes the place of the first, as in a notebook.

    Args:
        attack: short name, or function from network, images, labels and L-inf radius to adversarial images.

    Raises:
        InputError: the function has no name, or that of another attack.
    """
    if isinstance(attack, str):
        return attack
    name = str(getattr(attack, "__name__", "")).lower()
    there = ATTACKS.get(name)
    if not name.isidentifier() or (there and there.help != OWN_ATTACK):
        raise InputError(f"an attack of your own is called {name or type(attack).__name__!r}; expected a function with "
                         "a name that no other attack has")
    ATTACKS[name] = AttackEntry(attack.__name__, OWN_ATTACK, _run(attack), searches=False, averaged=True)
    try:
        parse_attack(name)
    except InputError:  # such as curve_x2, which would mean two starts of curve_
        del ATTACKS[name]
        raise InputError(f"an attack of your own is called {name!r}; expected a name that does not begin with _ or end "
                         "in x and digits") from None
    return name


def tensors_of(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Return the parameters and buffers of a network."""
    return [*model.named_parameters(), *model.named_buffers()]


def numbers_of(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of the parameters and buffers of a network."""
    return {name: value.detach().clone() for name, value in tensors_of(model)}


def changed_since(model: nn.Module, before: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the parameters and buffers that have other numbers than before."""
    return [name for name, value in tensors_of(model)
            if not torch.equal(torch.nan_to_num(value), torch.nan_to_num(before[name]))]


def put_back(model: nn.Module, before: Mapping[str, Tensor], names: Collection[str]) -> None:
    """Give parameters and buffers their numbers back, except those of another shape, which the network itself makes."""
    with torch.no_grad():
        for name, value in tensors_of(model):
            if name in names and value.shape == before[name].shape:
                value.copy_(before[name])


def refuse_changes(attack: str, model: nn.Module, before: Mapping[str, Tensor], images: Tensor) -> None:
    """Refuse an attack that has changed the network, after giving the network its numbers back.

    Args:
        attack: name of the attack.
        model: the network, in evaluation mode.
        before: its numbers before the attack.
        images: images (B, C, H, W) of the attack. What the network itself changes when it is asked about others, such
            as a count of its calls, is not the attack's doing, and stays.

    Raises:
        InputError: it has.
    """
    changed = changed_since(model, before)
    if not changed:
        return
    after = numbers_of(model)
    with torch.no_grad():
        model(1 - images)
    itself = changed_since(model, after)
    changed = [name for name in changed if name not in itself]
    put_back(model, before, changed)
    if changed:
        raise InputError(f"the attack {attack} changes the network ({', '.join(changed[:3])}); expected one that only "
                         "asks it: without model.train(), which changes BatchNorm's statistics, and without steps of "
                         "an optimiser")


def _run(attack: OwnAttack) -> Callable[[AttackTask], Tensor]:
    def run(task: AttackTask) -> Tensor:
        model = Counted(task.model)
        before = numbers_of(task.model)
        try:
            with attack_mode(model), torch.enable_grad():
                # Copies: an attack that works in place would move the images that its ball is measured from.
                adversarial = attack(model, task.images.clone(), task.labels.clone(), task.epsilon)
        except BaseException as error:
            put_back(task.model, before, changed_since(task.model, before))
            too_large = isinstance(error, RuntimeError) and out_of_memory(error)  # half of the images are tried then
            if too_large or isinstance(error, InputError | MemoryError) or not isinstance(error, Exception):
                raise
            raise InputError(f"the attack {attack.__name__} raised {named_line(error)}; expected a function of "
                             "network, images, labels and L-inf radius that returns the adversarial images") from error
        refuse_changes(attack.__name__, task.model, before, task.images[:2])
        task.spent = model.both, model.forward_alone + len(task.images)  # and the evaluation's prediction
        return adversarial

    return run
