"""Anyone's network as an evaluation takes it: opened from where it is kept, and checked on real images first.

A network is a checkpoint of retraining, a function in a Python file, a TorchScript or torch.export file, or the name of
an architecture with a file of weights. The names of the kinds of file do not count, their contents do.
"""

import hashlib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wsrnas.attacks import ATTACK_LOSSES, attack_mode
from wsrnas.genotype import Genotype
from wsrnas.models import load_model, load_weights, weights_in
from wsrnas.network import IMAGENET_MEAN, IMAGENET_STD
from wsrnas.runtime import checkpoint, run_files
from wsrnas.runtime.errors import InputError
from wsrnas.subjects.stored_program import kind_of_file, load_exported, load_script, pickled_object, trained_operation
from wsrnas.subjects.user_function import call_function, first_line

FUNCTION = re.compile(r"(?P<file>.+\.py)(?::(?P<name>[^:/]*))?")

# A network is refused where in another range than [0, 1] it gets more right by this share of the images, by this share
# of its mistakes (untrained networks, right by accident, differ by less), and by more than chance: both one-sided tests
# of `_significantly_better` below this level, divided by the number of ranges tried.
GAIN = 0.10
MISTAKES_MENDED = 0.25
SIGNIFICANCE = 1e-3
# Mean and standard deviation of the channels, as commonly used for normalisation.
STATISTICS = {
    "CIFAR-10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "CIFAR-100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "SVHN": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "ImageNet": (IMAGENET_MEAN, IMAGENET_STD),
    "MNIST": ((0.1307,), (0.3081,)),
}

# Names of files that tell nothing about the network in them: the folder's name does.
UNTELLING = ("best", "checkpoint", "genotype", "model")


@dataclass(frozen=True)
class ModelSource:
    """A network and where it is from.

    Args:
        model: images (B, C, H, W) in [0, 1] -> logits (B, K); on the CPU, parameters frozen, in the mode that it was
            given in (``check_model`` refuses training mode).
        source: what it was read from, for a reader of the results.
        name: short, without a slash.
        fingerprint: a hash that differs where the weights or what is known of their architecture does (of a function
            in a file, the code that ``call_function`` names).
        network: ``models.description``; None where the architecture is neither a genotype nor hand-designed.
        folder: the run directory that it belongs to, None for others.
    """

    model: nn.Module
    source: str
    name: str
    fingerprint: str
    network: dict[str, Any] | None = None
    folder: Path | None = None


def open_model(given: str, weights: str = "best", genotype: Genotype | str | None = None, state_dict: str = "",
               num_classes: int = 10, init_channels: int | None = None, layers: int | None = None,
               dataset: str = "cifar10", image_shape: tuple[int, int, int] = (3, 32, 32)) -> ModelSource:
    """Open the network that a user names.

    Args:
        given: a run directory of a retraining, a file (a checkpoint of retraining, TorchScript or torch.export),
            ``FILE.py:FUNCTION`` (called without arguments: it returns the network), or the name of ``genotype``.
        weights: ``"best"`` or ``"last"``, which checkpoint of a run directory.
        genotype: of the named architecture, or the name of a hand-designed one, whose weights are in the file
            ``state_dict``; the arguments after it are as for ``models.load_weights`` and count for such networks alone.

    Raises:
        InputError: there is no such network, or it cannot be read; the sentence says why.
    """
    if genotype is not None:
        if not state_dict:
            raise InputError(f"{given} is an architecture without weights; expected a file of them as state_dict")
        model, network = load_weights(state_dict, genotype, num_classes, init_channels, layers, dataset, image_shape)
        return _source(model, f"{given} with {state_dict}", _short_name(Path(given)), network)
    if state_dict:
        raise InputError(f"a state_dict ({state_dict}) needs the name of its architecture, but {given} is a network "
                         "of its own")
    if found := FUNCTION.fullmatch(given):
        file, name = Path(found["file"]), found["name"] or ""
        model, code = call_function(file, name)
        return _source(model, given, f"{file.stem}.{name}", code=code)
    path = find_checkpoint(given, weights)
    kind = kind_of_file(path)
    if kind != "checkpoint":
        model = load_script(path) if kind == "TorchScript" else load_exported(path)
        return _source(model, str(path), _short_name(path), code=path.read_bytes())
    model, network = _load_checkpoint(path)
    of_a_run = Path(given).is_dir() or (path.parent / run_files.CONFIG).is_file()
    name = path.absolute().parent.name if of_a_run else _short_name(path)
    return _source(model, str(path), name, network, path.parent if of_a_run else None)


def find_checkpoint(given: str, weights: str = "best") -> Path:
    """A file as given, or the chosen checkpoint (``"best"`` or ``"last"``) of a run directory.

    Raises:
        InputError: there is none.
    """
    path = Path(given)
    candidate = path / (run_files.BEST if weights == "best" else run_files.CHECKPOINT) if path.is_dir() else path
    searched = (path / run_files.GENOTYPE).is_file()  # a search keeps a checkpoint, too
    if not candidate.is_file() and (path / run_files.CHECKPOINT).is_file() and not searched:
        raise InputError(f"{path} has no best.pt: no selection has taken place; --weights last evaluates checkpoint.pt")
    if not candidate.is_file():
        raise InputError(f"no checkpoint at {candidate}; expected a file, or a run directory of a retraining, or "
                         "FILE.py:FUNCTION, or the name of an architecture with its weights as --state_dict")
    return candidate


def _source(model: nn.Module, source: str, name: str, network: dict[str, Any] | None = None,
            folder: Path | None = None, code: bytes = b"") -> ModelSource:
    for module in model.modules():
        if not hasattr(module, "training"):  # torch.jit.freeze removes it, and an attack sets and restores it
            object.__setattr__(module, "training", False)
    try:
        model = model.cpu()
        for parameter in model.parameters():  # one by one: a ScriptModule has no requires_grad_
            parameter.requires_grad_(False)
        described = network or {}
        fingerprint = _fingerprint(model, code or described.get("genotype", described.get("arch", "")).encode())
    except (RuntimeError, NotImplementedError, ValueError) as error:  # lazy modules, the meta device
        raise InputError(f"the weights of {source} cannot be read ({first_line(error)})") from None
    return ModelSource(model, source, name, fingerprint, network, folder)


def _fingerprint(model: nn.Module, code: bytes) -> str:
    """A hash over parameters and buffers, with their names, and over ``code``."""
    digest = hashlib.blake2b(code, digest_size=8)
    for name, value in sorted([*model.named_parameters(), *model.named_buffers()], key=lambda item: item[0]):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _short_name(path: Path) -> str:
    return path.absolute().parent.name if path.stem in UNTELLING and len(path.parts) > 1 else path.stem


def _load_checkpoint(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    try:
        payload = checkpoint.read(path)
    except InputError:
        if name := pickled_object(path):
            raise InputError(f"{path} holds a pickled {name}, and reading it could run any code; expected a "
                             "state_dict with the name of its architecture, FILE.py:FUNCTION, or a TorchScript or "
                             "torch.export file") from None
        raise
    if "network" not in payload and weights_in(payload):
        raise InputError(f"{path} holds weights without their architecture; expected the name of the architecture as "
                         "the model and this file as its state_dict, or FILE.py:FUNCTION that builds the network")
    return load_model(path)


# -- checks ---------------------------------------------------------------------------------------------------------


def check_model(model: nn.Module, images: Tensor, labels: Tensor, num_classes: int,
                range_is_known: bool = False, batch_size: int | None = None) -> None:
    """Refuse a network whose evaluation would mean nothing; the sentence does not name it.

    Args:
        images: (B, C, H, W) in [0, 1], real ones, on the network's device. Of 64 or more, of mixed classes, nearly
            every network that expects another range is noticed; of fewer than a dozen, or of one class, none.
        labels: (B,) classes.
        range_is_known: the network does take [0, 1], as all that retraining wrote. Of others, one trained for a few
            dozen steps only may look as if it did not.
        batch_size: images at a time, None for all at once; it is halved for as long as memory runs out.

    Raises:
        InputError: a label outside the classes; a sub-module in training mode; no logits (B, num_classes) from images
            (B, C, H, W), or no gradient back to them; NaN or infinite logits, or gradients of the cross-entropy;
            images that the forward pass changes; inputs expected in another range than [0, 1].
        torch.OutOfMemoryError: a single image is too much.
    """
    for label in labels[(labels < 0) | (labels >= num_classes)].tolist()[:1]:
        raise InputError(f"an image has the label {label}, but there are {num_classes} classes; expected 0 to "
                         f"{num_classes - 1}")
    _check_mode(model)
    passes = _in_portions(lambda *portion: _there_and_back(model, *portion, num_classes), images, labels, batch_size)
    logits, gradient_is_finite = (torch.cat(parts) for parts in zip(*passes, strict=True))
    _check_finite(logits, gradient_is_finite)
    if not range_is_known:
        _check_range(model, images, labels, logits, batch_size)


def _in_portions(compute: Callable[[Tensor, Tensor], Any], images: Tensor, labels: Tensor, size: int | None) -> list:
    """``compute(images, labels)`` for portions of ``size`` or, where memory runs out, half as many, down to one."""
    results, done, size = [], 0, min(size or len(images), len(images))
    while done < len(images) or not results:
        try:
            results.append(compute(images[done:done + size], labels[done:done + size]))
            done += size
        except Exception as error:  # TorchScript raises a RuntimeError that quotes what ran out of memory
            if size <= 1 or not (isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error)):
                raise
            size //= 2  # and leave: the error holds the tensors of the failed pass
    return results


def _check_mode(model: nn.Module) -> None:
    for path, module in model.named_modules():
        if module.training:
            kind = getattr(module, "original_name", type(module).__name__)
            which = f"the network's sub-module {path} ({kind})" if path else "the network"
            raise InputError(f"{which} is in training mode; expected evaluation mode: call .eval() on the network "
                             "before it is returned or saved")
        if isinstance(module, torch.fx.GraphModule) and (name := trained_operation(module)):
            raise InputError(f"the network was exported in training mode (its {name} is switched to it); expected "
                             ".eval() before torch.export.export")


def _there_and_back(model: nn.Module, images: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Logits (B, K), and whether an attack has a finite gradient at each image (B,)."""
    shape, leaf = tuple(images.shape), images.clone().requires_grad_(True)
    try:
        with torch.enable_grad(), attack_mode(model):
            logits = model(leaf)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # the user's code
        raise InputError(f"the network cannot take images of shape {shape} ({first_line(error)})") from None
    if not torch.equal(leaf, images):
        raise InputError("the network changes the images that it is given; expected operations that make new tensors")
    _check_logits(logits, len(images), num_classes)
    gradient = torch.zeros_like(images)
    try:
        with torch.enable_grad():
            loss = ATTACK_LOSSES["ce"](logits, labels)
            if loss.requires_grad:
                gradient, = torch.autograd.grad(loss, leaf, allow_unused=True, materialize_grads=True)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise InputError(f"the network has no gradient for its images ({first_line(error)}); expected differentiable "
                         "operations") from None
    return logits.detach(), gradient.isfinite().flatten(1).all(1)


def _check_logits(logits: Any, count: int, num_classes: int) -> None:
    expected = f"expected logits of shape ({count}, {num_classes})"
    if isinstance(logits, (tuple, list)):
        raise InputError(f"the network returns a {type(logits).__name__} of {len(logits)}, such as logits and "
                         f"auxiliary logits; {expected} alone")
    if not isinstance(logits, Tensor):
        raise InputError(f"the network returns a {type(logits).__name__}; {expected}")
    if logits.ndim == 2 and len(logits) == count and logits.shape[1] != num_classes:
        raise InputError(f"the network has logits for {logits.shape[1]} classes, but the data set has {num_classes} "
                         f"classes; {expected}")
    if logits.shape != (count, num_classes):
        raise InputError(f"the network returns a tensor of shape {tuple(logits.shape)} for {count} images; {expected}")
    if not logits.is_floating_point():
        raise InputError(f"the network returns {logits.dtype}; {expected} in floating point")


def _check_finite(logits: Tensor, gradient_is_finite: Tensor) -> None:
    count, broken = len(logits), (~logits.isfinite().all(1)).sum().item()
    if broken:
        raise InputError(f"the network's logits are NaN or infinite for {broken} of {count} images; expected finite "
                         "numbers")
    # The sign of NaN is 0: the network would look robust.
    if broken := (~gradient_is_finite).sum().item():
        raise InputError(f"the gradient of the network's cross-entropy is NaN or infinite for {broken} of {count} "
                         "images, and attacks cannot follow it; expected finite numbers (torch.where lets through the "
                         "NaN of the branch that it does not take, such as the square root's at 0)")


def _check_range(model: nn.Module, images: Tensor, labels: Tensor, logits: Tensor, batch_size: int | None) -> None:
    here, ranges = logits.argmax(1), _other_ranges(images)
    found = []
    for name, (center, scale) in ranges.items():
        def answer(pixels: Tensor, _: Tensor, center: Tensor = center, scale: Tensor = scale) -> Tensor:
            return model((pixels - center) / scale)

        try:
            with torch.no_grad():
                other = torch.cat(_in_portions(answer, images, labels, batch_size))
        except torch.OutOfMemoryError:
            raise
        except Exception:  # a network may refuse what is outside [0, 1], and is right then
            continue
        there = torch.where(other.isfinite().all(1), other.argmax(1), -1)
        if _significantly_better(here, there, labels, logits.shape[1], SIGNIFICANCE / len(ranges)):
            found.append(((there == labels).double().mean().item(), name))
    if found:
        best, name = max(found, key=lambda item: item[0])
        raise InputError(f"the network gets {100 * best:.0f} % of {len(images)} images right when they are {name}, and "
                         f"{100 * (here == labels).double().mean().item():.0f} % in [0, 1]; expected a network that "
                         "takes [0, 1]: make this its first layer")


def _other_ranges(images: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Center and scale, (C, 1, 1) or (1, 1, 1), of what other conventions expect: (image - center) / scale."""
    ranges: dict[str, tuple[Any, Any]] = {"scaled to [0, 255]": (0.0, 1 / 255), "scaled to [-1, 1]": (0.5, 0.5)}
    for name, (mean, std) in STATISTICS.items():
        if len(mean) == images.shape[1]:
            ranges[f"normalised with {name}'s mean and standard deviation"] = (mean, std)
    return {name: (images.new_tensor(center).view(-1, 1, 1), images.new_tensor(scale).view(-1, 1, 1))
            for name, (center, scale) in ranges.items()}


def _significantly_better(here: Tensor, there: Tensor, labels: Tensor, classes: int, level: float) -> bool:
    """Whether the predictions ``there`` (B,) are right far more often than ``here`` (B,), and not by chance.

    Two tests. The sign test, over the images that exactly one of the two gets right. And a permutation test (Hoeffding
    1951, its normal approximation) of the gain against labels in random order: a network that knows nothing may answer
    another class in another range, which is a gain where that class is more frequent among the images.
    """
    right, wrong = (there == labels) & (here != labels), (there != labels) & (here == labels)
    wins, losses = right.sum().item(), wrong.sum().item()
    gain = wins - losses
    mistakes = (here != labels).sum().item()
    if gain <= max(GAIN * len(labels), MISTAKES_MENDED * mistakes):
        return False
    discordant = wins + losses
    tail = sum(math.comb(discordant, k) for k in range(wins, discordant + 1)) / 2**discordant
    mean, deviation = _gain_by_chance(here, there, labels, classes)
    score = (gain - mean) / deviation if deviation > 1e-9 else 0.0
    return tail < level and math.erfc(score / math.sqrt(2)) / 2 < level


def _gain_by_chance(here: Tensor, there: Tensor, labels: Tensor, classes: int) -> tuple[float, float]:
    """Mean and standard deviation, over all orders of the labels, of how many more images ``there`` gets right."""
    every = torch.arange(classes, device=labels.device)
    # What image i would add to the gain if its label were k.
    gains = (there[:, None] == every).double() - (here[:, None] == every).double()
    frequency = (labels[:, None] == every).double().mean(0)
    by_image = gains @ frequency
    residual = gains - by_image[:, None] - gains.mean(0) + by_image.mean()
    count = len(labels)
    variance = count / max(count - 1, 1) * (residual.square() @ frequency).sum().item()
    return count * by_image.mean().item(), math.sqrt(variance)
