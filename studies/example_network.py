"""Attack pyautoattack's own example network: our APGD-CE beside the package's, image by image, and the whole curve.

    python -m studies.example_network --data CIFAR --out example

The network is the ResNet-18 with its weights in the wheel of pyautoattack; nothing of it is copied. CIFAR is a folder
with ``train/<class>/*`` and ``test/<class>/*``. Each batch of images is stored when it is done, so the same command
resumes. About half an hour on one core for 100 images; --minutes stops in between.
"""

import argparse
import importlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyautoattack
import torch
from torch import Tensor, nn

from wsrnas.data.datasets import load_dataset
from wsrnas.data.loader import BatchLoader
from wsrnas.evaluation.attack_spec import at_strength, parse_attack
from wsrnas.evaluation.curve_results import curve_line
from wsrnas.evaluation.journal import Journal
from wsrnas.evaluation.measurement import Evaluation
from wsrnas.evaluation.protocols import curve_of
from wsrnas.evaluation.results import measure, table
from wsrnas.runtime.checkpoint import write_json
from wsrnas.runtime.config import Parser, require, within
from wsrnas.runtime.errors import Preempted
from wsrnas.runtime.program import run_program
from wsrnas.runtime.same_work import stored_object

STRENGTH, BATCH = 0.5 / 255, 10  # at 8/255 nothing is left to compare


def example() -> nn.Module:
    """Return the example network with its weights."""
    model = importlib.import_module("pyautoattack.examples.resnet").ResNet18()
    weights = Path(pyautoattack.__file__).parent / "examples" / "model_test.pt"
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return model.eval()


def directly(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return which images (B,) withstand APGD-CE of the package, called directly on one batch."""
    adversary = pyautoattack.AutoAttack(model, norm="Linf", eps=STRENGTH, seed=0, device="cpu")
    adversary.attacks_to_run = ["apgd-ce"]
    adversarial, _ = adversary.run_standard_evaluation(images, labels, batch_size=BATCH)
    with torch.no_grad():
        return model(adversarial).argmax(1) == labels


def both(judge: Evaluation, model: nn.Module, file: Path, image_set: str,
         stop: Callable[[], bool]) -> list[list[bool]]:
    """Return which images withstand APGD-CE of ours and of the package, batch after batch.

    Args:
        judge: the evaluation of the images.
        model: the network.
        file: JSON file of what is done.
        image_set: fingerprint of the images; what is done for others is not taken.
        stop: function that says whether to stop before a batch.
    """
    attack = at_strength(parse_attack("apgd-ce"), STRENGTH)
    stored = stored_object(file) or {}
    done: list[list[bool]] = stored["withstand"] if stored.get("image_set") == image_set else [[], []]
    for rows in torch.arange(judge.images).split(BATCH)[-(-len(done[0]) // BATCH):]:
        if stop():
            raise Preempted(f"stopped after {len(done[0])} images, different: {different(done)}")
        (images, labels), = judge.loader.images_at([rows])
        done[0] += judge.robust(attack, rows)[rows].tolist()
        done[1] += directly(model, images.contiguous(), labels).tolist()
        write_json(file, {"image_set": image_set, "withstand": done})
    return done


def different(flags: list[list[bool]]) -> list[int]:
    """Return the images on which both differ."""
    return [place for place, (ours, theirs) in enumerate(zip(*flags, strict=True)) if ours != theirs]


def main() -> None:
    """Attack, compare and print."""
    parser = Parser(prog="studies.example_network", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of CIFAR-10 with train/<class>/* and test/<class>/*")
    parser.add_argument("--out", type=Path, required=True, help="folder of the measurements")
    parser.add_argument("--images", type=within(int, 1), default=100, help="test images (default: 100)")
    parser.add_argument("--minutes", type=within(float, 0), default=math.inf,
                        help="stop after the batch of this minute")
    arguments = parser.parse_args()
    end = time.monotonic() + 60 * arguments.minutes
    arguments.out.mkdir(parents=True, exist_ok=True)
    model = example()
    data = load_dataset("folder", arguments.data, max_train=10, max_test=arguments.images)
    require(data.image_shape == (3, 32, 32) and data.num_classes == 10, f"{arguments.data} holds {data.num_classes} "
            f"classes of images {data.image_shape}; expected CIFAR-10, 10 classes of (3, 32, 32)")
    test = data.test
    with torch.no_grad():
        right = torch.cat([model(part.float() / 255).argmax(1) for part in test.images.split(BATCH)]) == test.labels
    test = test.subset(right.nonzero().flatten())  # so that both make the same batches
    print(f"clean: {int(right.sum())} of {len(right)} images are right", flush=True)
    journal = Journal(arguments.out / "chunks", {"image_set": test.fingerprint()})
    judge = Evaluation(model, BatchLoader(test, BATCH, 0, "test"), 10, batch_size=BATCH, journal=journal,
                       stop=lambda: time.monotonic() > end)
    result: dict[str, Any] = measure(judge, (), 30, level="none", curve=curve_of("linf"))
    print(table({"example": result}))
    print(f"of the images that are right: {curve_line(result['curve'])}; passes {result['passes']}", flush=True)
    flags = both(judge, model, arguments.out / "apgd.json", test.fingerprint(),
                 lambda: time.monotonic() > end)
    print(f"APGD-CE: {sum(flags[0])} withstand ours, {sum(flags[1])} the package's; different: {different(flags)}")


if __name__ == "__main__":
    run_program(main)
