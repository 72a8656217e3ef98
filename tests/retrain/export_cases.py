"""Networks and packages for the tests of exporting."""

import torch
from torch import nn

from wsrnas.genotype import Genotype
from wsrnas.models import build_model, description
from wsrnas.operations import OPERATIONS

EVERY = Genotype(  # every operation, in both cells; five nodes
    normal=list(zip(OPERATIONS, [0, 1, 0, 1, 2, 3, 0, 2, 4, 5], strict=True)), normal_concat=(2, 3, 4, 5, 6),
    reduce=list(zip(reversed(OPERATIONS), [0, 1, 1, 0, 2, 3, 0, 2, 4, 1], strict=True)), reduce_concat=(3, 6, 6))
NONE = Genotype(  # a node of nothing, an input that nothing reads
    normal=[("none", 1), ("none", 1), ("none", 1), ("sep_conv_3x3", 1)], normal_concat=(2, 3),
    reduce=[("skip_connect", 1), ("none", 0), ("max_pool_3x3", 2), ("none", 1)], reduce_concat=(3,))

WIDTHS = {"wrn_28_10": 10, "wrn_34_10": 10}  # of the others: 4


def network(genotype: Genotype | str, dataset: str, shape: tuple, classes: int) -> tuple[nn.Module, dict]:
    """Random weights and BatchNorm statistics, all of which the logits depend on; and the network's description."""
    draw = torch.Generator().manual_seed(len(str(genotype)))
    width, layers = (WIDTHS.get(genotype, 4), None) if isinstance(genotype, str) else (4, 4)
    model = build_model(genotype, classes, width, layers, dataset, shape[0]).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            learnt = [(module.bias.data, -0.5), (module.weight.data, 0.5)] if module.affine else []
            for value, low in ((module.running_mean, -0.5), (module.running_var, 0.5), *learnt):
                value.copy_(torch.rand(value.shape, generator=draw) + low)
    return model, description(genotype, classes, width, layers, dataset, shape)


def images(shape: tuple) -> torch.Tensor:
    return torch.rand(3, *shape, generator=torch.Generator().manual_seed(1))


def attack(method: str, epsilon: float | None, accuracy: float, norm: str = "linf", **more) -> dict:
    return {"attack": method.upper(), "method": method, "norm": norm, "epsilon": epsilon, "accuracy": accuracy,
            "interval": [accuracy - 0.01, accuracy + 0.01], "steps": 20, "step_size": 0.00375, "restarts": 1,
            "random_start": False, "loss": "ce", "robust": "10", "seconds": 1.0} | more


def evaluation(*attacks: dict, images: int = 10_000, clean: float = 0.8149, dataset: str = "cifar10",
               fingerprint: str = "f", failed=()) -> dict:
    return {"format": "wsrnas evaluation 1", "name": "x", "protocol": "custom", "dataset": dataset, "images": images,
            "complete": True, "clean": {"accuracy": clean, "interval": [0.81, 0.82], "robust": "1"},
            "attacks": list(attacks), "average_robust": {"accuracy": 0.41, "interval": [0.4, 0.42], "over": ["PGD-20"]},
            "area": None,
            "checks": [{"check": "logits are deterministic", "passed": True, "says": "", "numbers": {}},
                       {"check": "square is weaker", "passed": None, "says": "", "numbers": {}}],
            "failed_checks": list(failed), "warnings": ["zero gradients"],
            "model": {"source": "runs/retrain/x/best.pt", "fingerprint": fingerprint}}


UNCHECKED = [{"check": "square is weaker", "passed": None, "says": "", "numbers": {}}]
