"""ReLUs that the operations of a cell share: the same numbers, computed once, and nothing shared outside a cell."""

import threading
from itertools import pairwise

import pytest
import torch
from torch import nn

from search.spaces import SPACES
from tests.quick import slow_after
from wsrnas.models import build_model
from wsrnas.quick.states import SharedReLU, shared_states

GRAPH = "|nor_conv_3x3~0|+|nor_conv_1x1~0|nor_conv_3x3~1|+|nor_conv_3x3~0|skip_connect~1|nor_conv_1x1~2|"


def test_each_tensor_has_one_relu_inside_and_many_outside():
    one, other, x = SharedReLU(), SharedReLU(), torch.randn(2, 3)
    with shared_states():
        first = one(x)
        assert other(x) is first and torch.equal(first, x.relu())
        assert torch.equal(other(x + 1), (x + 1).relu())
        with shared_states():
            assert one(x) is not first
        first = one(x)
        assert other(x) is first
        found = []
        thread = threading.Thread(target=lambda: found.append(one(x)))
        thread.start()
        thread.join()
        assert found[0] is not first
    assert one(x) is not other(x) and one(x) is not first
    with pytest.raises(RuntimeError, match="stopped"), shared_states():
        raise RuntimeError("stopped")
    assert one(x) is not one(x)


def test_the_inputs_of_a_cell_keep_their_relu_for_the_next_one_in_the_same_pass():
    relu, (s0, s1, s2), within = SharedReLU(), torch.randn(3, 2), torch.randn(2)
    with shared_states():
        with shared_states(s0, s1):
            first, second, inner = relu(s0), relu(s1), relu(within)
        with shared_states(s1, s2):
            assert relu(s1) is second and relu(within) is not inner and relu(s0) is not first
        with shared_states(s2, s1):
            assert relu(s1) is second
        with shared_states(s2):
            assert relu(s1) is not second
    with shared_states(s0, s1):
        assert relu(s1) is not second


def test_new_tensors_are_never_taken_for_old_ones():
    relu = SharedReLU()
    with shared_states():
        for number in range(50):  # each takes the place in memory of the one before, were that not kept
            assert relu(torch.full((3,), float(number))).eq(number).all()


def networks():
    yield "WsrNet_Basic", lambda: build_model("WsrNet_Basic", 5, init_channels=2, layers=3)
    yield "graph", lambda: build_model(GRAPH, 5, init_channels=2, layers=3)
    for space in SPACES:
        yield space, lambda space=space: SPACES[space].supernet(2, 3, 5, 0.1, 1e-3, None)
    yield "NASNet_A", lambda: build_model("NASNet_A", 5, init_channels=2, layers=3)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(("name", "build"), slow_after(4, networks()))
def test_a_network_computes_the_same_with_fewer_relus(name, build, mixed, training, monkeypatch):
    torch.manual_seed(0)
    model = build().double().train(training)
    if name in SPACES:
        if mixed:
            model.mix(model.alphas().detach().softmax(-1))
        else:
            model.sample(torch.Generator().manual_seed(4))
    elif mixed:
        pytest.skip("a network without mixtures")
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def results():
        leaf, counted = images.clone().requires_grad_(), []
        with monkeypatch.context() as patch:
            patch.setattr(torch.nn.functional, "relu", lambda x, *_, **__: counted.append(1) or torch.relu(x))
            logits = model(leaf)
        return logits, torch.autograd.grad(logits.square().sum(), [leaf, *weights], allow_unused=True), len(counted)

    logits, gradients, count = results()
    monkeypatch.setattr(SharedReLU, "forward", lambda self, x: torch.nn.functional.relu(x))
    expected, wanted, more = results()
    assert torch.equal(logits, expected) and 0 < count < more
    for one, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_an_input_can_be_differentiated_again_and_again():
    cell = build_model("WsrNet_Basic", 5, init_channels=2, layers=3).cells[1]
    shapes = [module.conv.in_channels if hasattr(module, "conv") else module.conv_even.in_channels
              for module in cell.preprocess]
    s0, s1 = (torch.rand(2, channels, 8, 8, requires_grad=True) for channels in shapes)
    for _ in range(2):
        cell(s0, s1).sum().backward()
    with torch.no_grad():
        cell(s0, s1)
    assert cell(s0, s1).requires_grad


@pytest.mark.slow
def test_a_compiler_sees_one_graph():
    model = build_model("WsrNet_Basic", 5, init_channels=2, layers=3).eval()
    images = torch.rand(2, 3, 8, 8)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), model(images))


def test_a_state_is_read_by_operations_that_leave_it_as_it_is():
    """Whatever follows a shared ReLU is a convolution, which does not change its input."""
    for model in (build_model("WsrNet_Basic", 5, init_channels=2, layers=3), build_model(GRAPH, 5, 2, 3),
                  SPACES["darts"].supernet(2, 3, 5, 0.1, 1e-3, None)):
        sequences = [list(module) for module in model.modules() if isinstance(module, nn.Sequential)]
        followers = [after for layers in sequences for relu, after in pairwise(layers)
                     if isinstance(relu, SharedReLU)]
        assert followers and all(isinstance(after, nn.Conv2d) for after in followers)
