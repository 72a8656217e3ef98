"""Folded networks: the same outputs and gradients to rounding, nothing left behind, and nothing folded in doubt."""

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

import wsrnas.attacks
from genotypes import load
from search.spaces import SPACES
from tests.quick import slow_after
from wsrnas.architectures.hand_designed import names
from wsrnas.architectures.robnet import FREE, LARGE, SMALL, RobNet
from wsrnas.attacks import attack_mode, fgsm, input_gradient, many_attack_steps, mim, multi_strength_pgd, pgd
from wsrnas.evaluation.carlini_wagner import carlini_wagner
from wsrnas.genotype import KINDS
from wsrnas.models import build_model
from wsrnas.network import NetworkImageNet
from wsrnas.operations import BATCH_NORM, OPERATIONS, FactorizedReduce, ReLUConvBN
from wsrnas.quick.folding import folded
from wsrnas.quick.strided import FewChannels
from wsrnas.training.batch_norm import GlooBatchNorm

CLASSES = 5


def with_statistics(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give BatchNorm statistics, scales and shifts that no other layer has; float64, evaluation mode."""
    draw = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, BATCH_NORM):
            for values, low, high in ((module.running_mean, -0.5, 0.5), (module.running_var, 0.5, 2),
                                      (module.weight, 0.5, 1.5), (module.bias, -0.5, 0.5)):
                if values is not None:
                    values.data.uniform_(low, high, generator=draw)
    return model.double().eval()


def batch(count: int = 3, size: int = 8, dtype=torch.float64) -> tuple[Tensor, Tensor]:
    images = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return images.to(dtype), torch.arange(count) % CLASSES


def block(*more: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4, eps=1e-3), nn.Tanh(), *more)


def small(*more: nn.Module) -> nn.Module:
    """A network of two folded pairs, and of a BatchNorm that stands alone."""
    torch.manual_seed(0)
    return with_statistics(nn.Sequential(block(*more), nn.Conv2d(4, 6, 1, groups=2, bias=False),
                                         nn.BatchNorm2d(6, affine=False), nn.Tanh(), nn.BatchNorm2d(6), nn.Tanh(),
                                         nn.Flatten(), nn.Linear(384, CLASSES)))


@pytest.fixture
def unfolded(monkeypatch):
    """A function that attacks without folding."""
    def run(function, *arguments, **keywords):
        with monkeypatch.context() as patch:
            patch.setattr(wsrnas.attacks, "folded", nullcontext)
            return function(*arguments, **keywords)
    return run


class Calls(TorchDispatchMode):
    """Count the operations that torch runs."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.counts[name] = self.counts.get(name, 0) + 1
        return func(*args, **kwargs or {})


def operations(model: nn.Module, images: Tensor) -> dict[str, int]:
    with many_attack_steps(model), torch.no_grad(), Calls() as calls:
        model(images)
    return calls.counts


def norms_run(model: nn.Module, images: Tensor) -> int:
    """Return how many BatchNorm layers run as such under an attack."""
    return sum(count for name, count in operations(model, images).items() if "batch_norm" in name)


def assert_same_function(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    with attack_mode(model):
        expected = model(images), input_gradient(model, images, labels, wsrnas.attacks.ATTACK_LOSSES["ce"])
    with many_attack_steps(model):
        found = model(images), input_gradient(model, images, labels, wsrnas.attacks.ATTACK_LOSSES["ce"])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


# -- the same function ------------------------------------------------------------------------------------------------

# All published cells are built of the same operations; these have all of them.
CELLS = ("WsrNet_Basic", "SNAS_mild", "AmoebaNet_A", "CRoZe_cifar10", "LRNAS_cifar10")
OWN_DESIGNS = ("resnet18", "densenet121", "robnet", "wrn_28_10", *sorted({*names()} - {
    "resnet18", "densenet121", "wrn_28_10", "robnet_small", "robnet_large_v1", "robnet_large_v2", "robnet_free"}))


def test_the_chosen_cells_have_every_operation():
    assert {operation for name in CELLS for kind in KINDS for node in load(name).nodes(kind)
            for operation, _ in node} == {*OPERATIONS}


@pytest.mark.parametrize("name", slow_after(6, ["WsrNet_Basic", *OWN_DESIGNS[:4], *CELLS[1:], *OWN_DESIGNS[4:]]))
def test_every_design_computes_the_same_and_no_batch_norm_is_left(name, unfolded):
    torch.manual_seed(0)
    if name == "robnet":  # the published ones have 20 cells and more
        model = with_statistics(RobNet([SMALL, FREE[1], LARGE], 4, CLASSES, parts=2))
    else:
        model = with_statistics(build_model(name, CLASSES, *([2, 3] if name in CELLS else [4])))
    images, labels = batch(2)
    assert_same_function(model, images, labels)
    attacked = pgd(model, images, labels, 0.5, 2, norm="l2")
    torch.testing.assert_close(attacked, unfolded(pgd, model, images, labels, 0.5, 2, norm="l2"), rtol=1e-7, atol=1e-9)
    assert norms_run(model, images) == 0
    convolutions = sum(type(module) in (nn.Conv2d, FewChannels) for module in model.modules())
    alone = operations(model, images).get("addcmul", 0)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert alone < norms / 2 or name.startswith(("wrn", "dense", "AmoebaNet"))
    assert convolutions >= norms - alone > 0


@pytest.mark.parametrize("space", SPACES)
def test_a_supernets_path_computes_the_same(space):
    torch.manual_seed(0)
    supernet = with_statistics(SPACES[space].supernet(2, 3, CLASSES, 0.1, 1e-3, None))
    images, labels = batch(2)
    for seed in range(3):
        supernet.sample(torch.Generator().manual_seed(seed))
        assert_same_function(supernet, images, labels)
        assert norms_run(supernet, images) == 0
    supernet.mix(supernet.alphas().detach().softmax(-1))
    assert_same_function(supernet, images, labels)


def multiplied(supernet) -> int:
    """Number of factors that the path still multiplies by."""
    return sum(scale is not None for kind in supernet.path.scales for edge in kind for scale in edge)


@pytest.mark.parametrize("space", SPACES)
def test_the_gates_of_a_path_are_folded_into_the_end_of_its_operations(space):
    torch.manual_seed(0)
    supernet = with_statistics(SPACES[space].supernet(2, 3, CLASSES, 0.1, 1e-3, None))
    weights = torch.rand(SPACES[space].shape, generator=torch.Generator().manual_seed(1))
    weights[0, 0] = torch.tensor([0.7 * ("conv" in name) for name in SPACES[space].operations])
    path = supernet.use(weights)
    images, _ = batch(2)
    gates = supernet.output_scales()
    normed = {place for place, (_, operations) in gates.items()
              if all(any(isinstance(part, BATCH_NORM) for part in module.modules()) for module in operations)}
    with many_attack_steps(supernet):
        assert normed and set(supernet.output_scales()) == set(gates) - normed
        once = supernet(images)
        with many_attack_steps(supernet):
            torch.testing.assert_close(supernet(images), once)
    assert supernet.path is path


def test_the_gate_of_an_operation_with_a_hook_stays_where_it_was():
    torch.manual_seed(0)
    supernet = with_statistics(SPACES["darts"].supernet(2, 3, CLASSES, 0.1, 1e-3, None))
    gates = torch.full(SPACES["darts"].shape, 0.1)
    gates[..., 4] = 0.5  # sep_conv_3x3
    supernet.use(gates)
    supernet.cells[0].edges[0][4].register_forward_hook(lambda *_: None)  # the same edge is in other cells, too
    assert_same_function(supernet, *batch(2))
    with many_attack_steps(supernet):
        assert multiplied(supernet) == 1


def test_a_gate_multiplies_under_autocast_as_well():
    torch.manual_seed(0)
    supernet = with_statistics(SPACES["darts"].supernet(2, 3, CLASSES, 0.1, 1e-3, None)).float()
    supernet.sample(torch.Generator().manual_seed(1))
    images, _ = batch(2, dtype=torch.float32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = supernet(images)
    with torch.no_grad(), many_attack_steps(supernet), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(supernet(images), expected)


def test_the_network_for_large_images_computes_the_same():
    torch.manual_seed(0)
    model = with_statistics(NetworkImageNet(load("DARTS_V2"), 4, 3, CLASSES))
    assert_same_function(model, *batch(2, 33))
    assert norms_run(model, batch(2, 33)[0]) == 0


ATTACKS = {
    "pgd": lambda model, images, labels: pgd(model, images, labels, 0.1, 4),
    "pgd in rows": lambda model, images, labels: pgd(model, images, labels, 0.1, 4, rows=2),
    "fgsm": lambda model, images, labels: fgsm(model, images, labels, 0.1),
    "mim": lambda model, images, labels: mim(model, images, labels, 0.1, 4),
    "several strengths": lambda model, images, labels: multi_strength_pgd(
        model, images, labels, torch.tensor([0.05, 0.1]), steps=3),
    "carlini_wagner": lambda model, images, labels: carlini_wagner(
        model, images, model(images).argmax(1), 100.0, 20, 0.1),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_attack_makes_the_same_images(attack, unfolded):
    model, (images, labels) = small(), batch()
    attacked = ATTACKS[attack](model, images, labels)
    assert not torch.allclose(attacked, images.view(3, *[1] * (attacked.ndim - 4), 3, 8, 8))
    torch.testing.assert_close(attacked, unfolded(ATTACKS[attack], model, images, labels), rtol=1e-9, atol=1e-11)


def test_folded_convolutions_keep_the_order_in_memory(monkeypatch):
    model, (images, _) = small().to(memory_format=torch.channels_last), batch()
    seen = []

    def noted(x, weight, *arguments):
        seen.append(weight)
        return convolve(x, weight, *arguments)

    convolve = F.conv2d
    monkeypatch.setattr(F, "conv2d", noted)
    with many_attack_steps(model):
        features = model[0](images.contiguous(memory_format=torch.channels_last))
    assert seen and seen[0] is not model[0][0].weight and features.is_contiguous(memory_format=torch.channels_last)
    assert seen[0].is_contiguous(memory_format=torch.channels_last) and not seen[0].is_contiguous()


# -- nothing is left behind -------------------------------------------------------------------------------------------

def everything(model: nn.Module) -> list:
    # private: what is registered, whatever a class shows of it
    return [(module, dict(vars(module)), dict(module._parameters), dict(module._buffers), dict(module._modules),
             [(value, value.clone(), value.requires_grad) for value in module.parameters()])
            for module in model.modules()]


def assert_untouched(model: nn.Module, before: list) -> None:
    for (module, *own, values), (then, *old, stored) in zip(everything(model), before, strict=True):
        assert module is then
        for now, past in zip(own, old, strict=True):
            assert now.keys() == past.keys() and all(now[name] is past[name] for name in now)
        for (value, _, needs), (same, number, needed) in zip(values, stored, strict=True):
            assert value is same and torch.equal(value, number) and needs is needed


@pytest.mark.parametrize("build", [small, lambda: small().train(), lambda: with_statistics(
    build_model("WsrNet_Basic", CLASSES, init_channels=2, layers=3)).train()])
def test_weights_buffers_and_modules_are_the_same_objects_afterwards(build):
    model, (images, labels) = build(), batch()
    before = everything(model)
    pgd(model, images, labels, 0.1, 2)
    assert_untouched(model, before)

    def fail(logits, labels):
        assert any("forward" in vars(module) for module in model.modules()), "nothing to restore in this test"
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        pgd(model, images, labels, 0.1, 2, loss=fail)
    assert_untouched(model, before)


def test_inside_another_attack_the_network_stays_folded_until_the_outer_one_ends():
    model, (images, _) = small(), batch()
    before = everything(model)
    with many_attack_steps(model):
        inner = norms_run(model, images)
        assert inner == 0 == norms_run(model, images)
    assert_untouched(model, before)


def test_a_change_of_weights_between_two_attacks_counts():
    model, (images, labels) = small(), batch()
    first = pgd(model, images, labels, 0.1, 2, norm="l2")
    with torch.no_grad():
        model[0][0].weight.mul_(-1)
        model[0][1].running_mean.add_(1)
    second = pgd(model, images, labels, 0.1, 2, norm="l2")
    assert not torch.allclose(first, second)
    assert_same_function(model, images, labels)


# -- nothing is folded in doubt ---------------------------------------------------------------------------------------

def assert_nothing_is_folded(model: nn.Module, batch_statistics: bool = False) -> None:
    own = [vars(module).get("forward") for module in model.modules()]
    with many_attack_steps(model, batch_statistics):
        assert [vars(module).get("forward") for module in model.modules()] == own


def test_hooks_see_what_they_always_see():
    model, (images, _) = small(), batch()
    seen: dict[str, Tensor] = {}
    with torch.no_grad():
        convolved = model[0][0](images)
        normalized = model[0][1](convolved)
    handles = [model[0][number].register_forward_hook(
        lambda module, inputs, output, number=number: seen.update({str(number): output})) for number in (0, 1)]
    with many_attack_steps(model), torch.no_grad():
        model(images)
    assert torch.equal(seen["0"], convolved) and torch.equal(seen["1"], normalized)
    for handle in handles:
        handle.remove()
    assert norms_run(model, images) == 0


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook",
                                      "register_full_backward_hook", "register_full_backward_pre_hook"])
@pytest.mark.parametrize("place", [0, 1])
def test_a_module_with_any_hook_runs_itself(register, place):
    model, (images, labels) = small(), batch()
    calls = []
    handle = getattr(model[0][place], register)(lambda *arguments: calls.append(arguments))
    pgd(model, images, labels, 0.1, 2)
    assert len(calls) == 2
    handle.remove()


def test_a_hook_of_all_modules_sees_all_modules():
    model, (images, _) = small(), batch()
    seen = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(module))
    try:
        assert_nothing_is_folded(model)
        model(images)
    finally:
        handle.remove()
    assert {*seen} == {*model.modules()}


def test_statistics_of_the_batch_are_untouched(unfolded):
    model, (images, labels) = small().train(), batch()
    attack = {"epsilon": 0.1, "steps": 3, "batch_statistics": True}
    assert torch.equal(pgd(model, images, labels, **attack), unfolded(pgd, model, images, labels, **attack))
    assert_nothing_is_folded(model, batch_statistics=True)


class Doubled(ReLUConvBN):
    """A class of the library whose pass somebody has changed."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the double."""
        return self.norm(2 * self.conv(x) + 1)


class OneByOne(nn.Module):
    """A network that calls the children of a sequence itself."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = block()

    def forward(self, x: Tensor) -> Tensor:
        """Return the features of all layers."""
        features = []
        for part in self.parts:
            x = part(x)
            features.append(x)
        return torch.cat(features, 1).mean((2, 3))


def test_a_class_that_runs_its_children_in_another_way_is_right():
    torch.manual_seed(0)
    for model in (with_statistics(nn.Sequential(Doubled(3, 4), nn.Flatten(), nn.Linear(256, CLASSES))),
                  with_statistics(OneByOne())):
        assert_same_function(model, *batch())


def replaced(model: nn.Module, conv: nn.Module | None = None, norm: nn.Module | None = None) -> nn.Module:
    model[0][0], model[0][1] = conv or model[0][0], norm or model[0][1]
    return with_statistics(model)


class OtherConv(nn.Conv2d):
    """A convolution of a class that we do not know."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the double."""
        return 2 * super().forward(x)


def normed_by_weight() -> nn.Module:
    return nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3, padding=1))


@pytest.mark.parametrize("conv", [OtherConv(3, 4, 3, padding=1), normed_by_weight(),
                                  nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
                                  nn.utils.weight_norm(nn.Conv2d(3, 4, 3, padding=1))])
def test_convolutions_that_are_not_understood_run_themselves(conv):
    model = replaced(small(), conv)
    assert_same_function(model, *batch())
    assert operations(model, batch()[0])["addcmul"] == 2


def test_a_class_may_mean_another_thing_by_our_name():
    class Other(nn.Sequential):
        before_norm = True

    class Missing(nn.Sequential):
        before_norm = ("conv",)

    for kind in (Other, Missing):
        layers = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        model = nn.Sequential(kind(*layers), nn.Flatten(), nn.Linear(256, CLASSES))
        assert_same_function(with_statistics(model), *batch())


def test_batch_norms_that_are_not_understood_run_themselves():
    class OtherNorm(nn.BatchNorm2d):
        def forward(self, x):
            return super().forward(x) + 1

    for norm in (OtherNorm(4), nn.BatchNorm2d(4, track_running_stats=False),
                 GlooBatchNorm(nn.BatchNorm2d(4), wsrnas.training.batch_norm.World())):
        model = replaced(small(), norm=norm)
        assert norms_run(model, batch()[0]) == 1
        assert_same_function(model, *batch())


def test_weights_that_need_a_gradient_keep_it():
    model, (images, labels) = small(), batch()
    with folded(model):
        assert not [module for module in model.modules() if "forward" in vars(module) and any(
            True for _ in module.parameters())]
        F.cross_entropy(model(images), labels).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_a_compiled_network_stays_as_it_is():
    model = small()
    model[0].compile(backend="eager")
    assert_nothing_is_folded(model)
    assert_nothing_is_folded(nn.Sequential(torch.compile(small(), backend="eager")))


class Distributed(DistributedDataParallel):
    """The class alone, without its processes."""

    def __init__(self, module: nn.Module) -> None:
        nn.Module.__init__(self)
        self.module = module


def test_distributed_scripted_and_traced_networks_stay_as_they_are():
    assert_nothing_is_folded(Distributed(small()))
    assert_nothing_is_folded(nn.DataParallel(small()))
    assert_nothing_is_folded(small(torch.jit.script(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)))))
    assert_nothing_is_folded(torch.fx.symbolic_trace(small()))


def test_under_autocast_nothing_is_folded(unfolded):
    model, (images, labels) = small().float(), batch(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert_nothing_is_folded(model)
        assert torch.equal(pgd(model, images, labels, 0.1, 2), unfolded(pgd, model, images, labels, 0.1, 2))


class PartlyCast(nn.Module):
    """A network that runs one part in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = FactorizedReduce(3, 4), small()[0]
        self.second[0] = nn.Conv2d(4, 4, 3)
        self.classifier = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        with torch.autocast("cpu", torch.bfloat16):
            features = self.second(self.first(x))
        return self.classifier(features.float().mean((2, 3)))


def test_a_part_under_autocast_runs_itself():
    torch.manual_seed(0)
    model, (images, _) = with_statistics(PartlyCast()).float(), batch(dtype=torch.float32)
    with attack_mode(model), torch.no_grad():
        expected = model(images)
    with many_attack_steps(model), torch.no_grad():
        assert any("forward" in vars(module) for module in model.modules())
        assert torch.equal(model(images), expected)


def test_half_precision_is_not_folded():
    assert_nothing_is_folded(small().bfloat16())


def test_a_network_without_values_is_folded_without_reading_any():
    with torch.device("meta"):
        model = build_model("WsrNet_Basic", CLASSES, init_channels=2, layers=3).eval()
        images, labels = torch.rand(2, 3, 8, 8), torch.zeros(2, dtype=torch.long)
    assert pgd(model, images, labels, 0.1, 2).shape == images.shape
    assert norms_run(model, images) == 0
