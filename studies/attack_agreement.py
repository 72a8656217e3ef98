"""Make tests/reference/attack_agreement.npz: the results of torchattacks and foolbox on a small network, for our tests.

    python -m venv ENVIRONMENT
    ENVIRONMENT/bin/pip install -r requirements.txt torchattacks==3.5.1 foolbox==3.3.4
    ENVIRONMENT/bin/python -m studies.attack_agreement

It needs an environment of its own, because torchattacks pins an old requests. Under a minute on one core.

The file holds a network trained here on the embedded digits (8x8, real), its test images, and for every case of
``DETERMINISTIC`` the other library's adversarial images, made in float64 so that no sign of a gradient hangs on
rounding; for every case of ``RANDOM`` which images stayed right in each of ``RUNS`` runs; and for every case of
``MINIMUM_NORM`` the images with the smallest noise found, in float64, too. Our attacks take no part.

Differences of convention, which the cases avoid:
- foolbox gives steps as shares of the strength (``rel_stepsize``); ``abs_stepsize`` is our ``step_size``.
- torchattacks divides an L2 gradient by its norm + 1e-10, and the gradient is that of the batch's mean loss: for
  confident networks its steps are shorter. This network's gradients are far above that.
- torchattacks draws an L2 random start with a uniform radius, so more often near the image; foolbox and we draw it
  uniformly in the ball. After ten steps of a quarter of the radius, its accuracy is still lower (44.4 %, ours 45.6 %,
  five standard deviations): no case.
- foolbox's MI-FGSM accumulates signs (L-inf) or L2-normalised gradients, not the paper's L1-normalised ones: no case.
- torchattacks.CW ends a whole batch when its cost has risen, so it attacks one image at a time here, and the file
  says how many steps each image had. It masks the label with zero, which is right only for positive logits: it sees
  the network with a constant added to them. Its success ignores ``kappa``.
- torchattacks.CW never moves pixels of exactly 0 and 1, whose atanh is infinite; we put them 5e-7 inside, and so does
  this script for torchattacks. foolbox multiplies all pixels, as values in [-1, 1], by 0.999999.
- foolbox's L2FMNAttack never projects: its factor is min(1, norms / norms), with the same norms twice. This script
  gives it the projection of the paper, onto the ball of each image (``mended_l2_fmn``).
"""

import argparse
import copy
import importlib.util
import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGES, RUNS, EPOCHS = 32, 16, 15
LINF, L2 = 0.1, 0.6


@dataclass(frozen=True)
class Case:
    """Describe one attack of another library, and the equivalent call of ours.

    Args:
        library: ``torchattacks`` or ``foolbox``.
        attack: name of the attack's class there.
        theirs: arguments of the class.
        ours: name of our function.
        arguments: arguments of our function, in addition to model, images and labels.
    """

    library: str
    attack: str
    theirs: dict[str, Any]
    ours: str
    arguments: dict[str, Any]


def gradient_cases(steps: int, linf_step: float, l2_step: float, random_start: bool) -> list[Case]:
    """Return the cases of PGD, of both libraries in both norms."""
    linf = {"epsilon": LINF, "steps": steps, "step_size": linf_step, "random_start": random_start}
    l2 = {"epsilon": L2, "steps": steps, "step_size": l2_step, "random_start": random_start, "norm": "l2"}
    return [
        Case("torchattacks", "PGD", {"eps": LINF, "alpha": linf_step, "steps": steps, "random_start": random_start},
             "pgd", linf),
        Case("torchattacks", "PGDL2", {"eps": L2, "alpha": l2_step, "steps": steps, "random_start": random_start},
             "pgd", l2),
        Case("foolbox", "LinfPGD", {"abs_stepsize": linf_step, "steps": steps, "random_start": random_start},
             "pgd", linf),
        Case("foolbox", "L2PGD", {"abs_stepsize": l2_step, "steps": steps, "random_start": random_start}, "pgd", l2),
    ]


DETERMINISTIC = [
    Case("torchattacks", "FGSM", {"eps": LINF}, "fgsm", {"epsilon": LINF}),
    Case("foolbox", "LinfFastGradientAttack", {}, "fgsm", {"epsilon": LINF}),
    Case("foolbox", "L2FastGradientAttack", {}, "fgsm", {"epsilon": L2, "norm": "l2"}),
    *gradient_cases(10, LINF / 4, L2 / 4, False),
    Case("torchattacks", "MIFGSM", {"eps": LINF, "alpha": LINF / 8, "steps": 10, "decay": 0.9},
         "mim", {"epsilon": LINF, "steps": 10, "step_size": LINF / 8, "momentum": 0.9}),
    Case("torchattacks", "CW", {"c": 0.5, "kappa": 0, "steps": 100, "lr": 0.01}, "carlini_wagner", {}),
    *(Case("foolbox", "L2CarliniWagnerAttack", {"binary_search_steps": 1, "steps": 100, "stepsize": 0.01,
                                                "confidence": confidence, "initial_const": penalty,
                                                "abort_early": False},
           "carlini_wagner", {"penalty": penalty, "confidence": confidence})
      for penalty, confidence in ((0.5, 0.0), (1.0, 0.5))),
]

# Few steps, where the start decides, and many; torchattacks' L2 start is another distribution.
RANDOM = [case for steps in (2, 10) for case in gradient_cases(steps, LINF / 4, L2 / 4, True)
          if case.attack != "PGDL2"]

# Of 60 steps from images of other classes, for a point that sits on the boundary hangs on rounding.
MINIMUM_NORM = [Case("foolbox", attack, {"steps": steps, "max_stepsize": size, "gamma": 0.05, "binary_search_steps": 0},
                     "fmn", {"norm": norm, "steps": steps, "step_size": size, "growth": 0.05, "as_published": True})
                for steps, size in ((20, 0.2), (60, 1.0))
                for attack, norm in (("LInfFMNAttack", "linf"), ("L2FMNAttack", "l2"))]


def small_network() -> nn.Module:
    """Build a network: images (B, 1, 8, 8) -> logits (B, 10)."""
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.Flatten(),
                         nn.Linear(256, 10))


def images_of_other_classes(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return for each image one to which the network gives another class than the image's label, (B, 1, 8, 8)."""
    given = network(images).argmax(1)
    return torch.stack([images[(given != label).nonzero()[place % 3, 0]] for place, label in enumerate(labels)])


class Shifted(nn.Module):
    """Add a constant to the logits of a network; no prediction, cross-entropy or margin changes."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network, self.forwards = network, 0

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits plus a constant, and count the call."""
        self.forwards += 1
        return self.network(images) + 1000


def load_digits() -> tuple[Tensor, Tensor, Tensor]:
    """Load all embedded digits: values 0 to 16 (1797, 1, 8, 8), labels, and whether each is a test image."""
    import wsrnas
    with np.load(Path(wsrnas.__file__).with_name("assets") / "digits.npz") as stored:
        values, labels = torch.from_numpy(stored["images"]), torch.from_numpy(stored["labels"]).long()
    return values.unsqueeze(1), labels, torch.arange(len(labels)) % 5 == 2


def train(images: Tensor, labels: Tensor) -> nn.Module:
    """Train a network for a few epochs on images with small noise, so that its gradients are not saturated."""
    torch.manual_seed(0)
    network = small_network()
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(images)).split(64):
            noisy = (images[rows] + 0.1 * torch.randn_like(images[rows])).clamp(0, 1)
            loss = F.cross_entropy(network(noisy), labels[rows], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval()


def by_torchattacks(case: Case, network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, list[int]]:
    """Return adversarial images; for C&W also the number of steps of each image."""
    import torchattacks
    make = getattr(torchattacks, case.attack)
    if case.attack != "CW":
        return make(network, **case.theirs)(images, labels), []
    rows, steps = [], []
    inside = images.clamp(5e-7, 1 - 5e-7)
    for image, label in zip(inside.split(1), labels.split(1), strict=True):
        counted = Shifted(network).eval()
        rows.append(make(counted, **case.theirs)(image, label))
        steps.append(counted.forwards)
    return torch.cat(rows), steps


def by_foolbox(case: Case, network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, list[int]]:
    """Return adversarial images; the images themselves where C&W had no success."""
    import eagerpy
    import foolbox
    model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
    make = mended_l2_fmn() if case.attack == "L2FMNAttack" else getattr(foolbox.attacks, case.attack)
    attack = make(**case.theirs)
    criterion = foolbox.criteria.Misclassification(labels)
    if case.ours == "fmn":
        others = eagerpy.astensor(images_of_other_classes(network, images, labels))
        start = {"starting_points": others} if case.arguments["steps"] == 60 else {}
        return attack.run(model, images, criterion, **start), []
    if case.ours != "carlini_wagner":
        return attack.run(model, images, criterion, epsilon=case.arguments["epsilon"]), []
    found = attack.run(model, images, criterion)
    return torch.where((found == 0).all(3, True).all(2, True).all(1, True), images, found), []


def mended_l2_fmn() -> Any:
    """Return foolbox's FMN in the L2 norm with a projection onto the ball of each image."""
    import eagerpy
    import foolbox

    class Mended(foolbox.attacks.L2FMNAttack):
        """FMN whose projection moves points."""

        def project(self, x: Any, x0: Any, epsilon: Any) -> Any:
            noise = x.raw - x0.raw
            share = epsilon.raw / noise.flatten(1).norm(dim=1).clamp_min(1e-300)
            return eagerpy.astensor(x0.raw + noise * share.clamp_max(1).view(-1, 1, 1, 1))

    return Mended


LIBRARIES: dict[str, Callable[..., tuple[Tensor, list[int]]]] = {"torchattacks": by_torchattacks,
                                                                "foolbox": by_foolbox}


def run_cases(network: nn.Module, images: Tensor, labels: Tensor) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run all cases; return their arrays and the description of each array."""
    arrays: dict[str, np.ndarray] = {}
    cases: list[dict[str, Any]] = []
    for case in DETERMINISTIC:
        adversarial, steps = LIBRARIES[case.library](case, network, images[:IMAGES], labels[:IMAGES])
        arrays[f"adversarial_{len(cases)}"] = adversarial.detach().numpy().astype(np.float32)
        cases.append({**vars(case), "array": f"adversarial_{len(cases)}", "steps_of_each_image": steps})
    exact, exact_images = copy.deepcopy(network), images
    network, images = network.float(), images.float()
    for case in RANDOM:
        right = []
        for run in range(RUNS):
            torch.manual_seed(RUNS * len(cases) + run)
            adversarial, _ = LIBRARIES[case.library](case, network, images, labels)
            right.append((network(adversarial).argmax(1) == labels).numpy())
        arrays[f"right_{len(cases)}"] = np.packbits(np.stack(right), axis=1)
        cases.append({**vars(case), "array": f"right_{len(cases)}", "accuracy": float(np.mean(right))})
    for case in MINIMUM_NORM:
        adversarial, _ = by_foolbox(case, exact, exact_images[:IMAGES], labels[:IMAGES])
        arrays[f"smallest_{len(cases)}"] = adversarial.detach().numpy().astype(np.float32)
        cases.append({**vars(case), "array": f"smallest_{len(cases)}"})
    return arrays, cases


def main() -> None:
    """Train the network, run all cases and write the file."""
    parser = argparse.ArgumentParser(prog="studies.attack_agreement", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", default=Path("tests/reference/attack_agreement.npz"),
                        help="the .npz file to write (default: %(default)s)")
    path = parser.parse_args().file
    for library in "torchattacks", "foolbox":
        if importlib.util.find_spec(library) is None:
            parser.error(f"{library} is not installed here; expected the environment that --help describes")
    torch.set_num_threads(1)
    values, labels, test = load_digits()
    network = train(values[~test] / 16, labels[~test])
    weights: dict[str, Any] = {f"weight_{name}": tensor.numpy().copy() for name, tensor in network.state_dict().items()}
    arrays, cases = run_cases(network.double(), values[test].double() / 16, labels[test])
    about = {
        "command": "python -m studies.attack_agreement",
        "versions": {"python": platform.python_version(),
                     **{name: version(name) for name in ("torch", "numpy", "torchattacks", "foolbox")}},
        "runs": RUNS, "cases": cases,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, about=np.array(json.dumps(about)), images=values[test].numpy(),
                        labels=labels[test].numpy().astype(np.uint8), **weights, **arrays)
    for case in cases:
        print(f"{case['library']}.{case['attack']} {case['theirs']} {case.get('accuracy', '')}")
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
