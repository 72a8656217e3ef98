"""CUDA graphs: the kernels of a step are recorded once and then launched together, which spares the host most work.

A step is a function of tensors that does the same in every call. What it may depend on besides its inputs is memory
that stays in its place: the weights and buffers of a network. On a CPU, and wherever ``Graphs`` finds a reason, it
runs as it is. No GPU has run this yet, so a recording is compared with the step itself before it is trusted.
docs/PERFORMANCE.md says what is recorded and what it should save.
"""

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from wsrnas.quick.folding import calls_are_plain
from wsrnas.quick.modules import modules_in_use
from wsrnas.quick.recorder import CudaRecorder, Recorder
from wsrnas.runtime.errors import first_line

FEWEST_CALLS = 20  # with one path; fewer do not repay the recording, which takes about seven calls
CALLS_BEFORE = 2  # a step is recorded after so many calls with tensors of the same shapes: a last, smaller batch never
TOLERANCE = 1e-3  # relative difference up to which two numbers count as equal
MOST_UNEQUAL = 0.1  # share of numbers that may differ: where a gradient is near zero, rounding decides its sign


class Step(Protocol):
    """A function from tensors to a tensor, or to tuples and dictionaries of tensors and constants.

    Equal steps do the same. A step draws no random numbers.
    """

    what: ClassVar[str]  # such steps in a sentence

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Run the step."""


class _Recording:
    """A step with tensors of certain shapes: how often it was called, and its recording once there is one."""

    def __init__(self, model: nn.Module, modules: Sequence[nn.Module], state: Hashable, trains: bool) -> None:
        self.model, self.state = model, state
        self.alive = modules, getattr(model, "path", None)  # so that no id in ``state`` comes to mean something else
        self.calls, self.trusted = 0, False
        self.repeat: Callable[[], None] | None = None
        self.inputs: list[Tensor] = []
        self.result: Any = None
        self.gradients: list[Tensor | None] = []
        written = modules if trains else ()
        self.buffers = [b for module in written for b in module._buffers.values() if b is not None]
        self.parameters = list(dict.fromkeys(p for module in written for p in module._parameters.values()
                                             if p is not None and p.requires_grad))

    def record(self, recorder: Recorder, step: Step, inputs: Sequence[Tensor]) -> None:
        """Record a step; the network, its gradients and the random numbers are then as before."""
        self.inputs = [tensor.clone() for tensor in inputs]

        def call() -> Any:
            self._attach([None] * len(self.parameters))
            return step(*self.inputs), [parameter.grad for parameter in self.parameters]

        with self._undone(recorder.device):
            repeat, (self.result, self.gradients) = recorder.record(call)
        self.repeat = repeat

    def replay(self, inputs: Sequence[Tensor]) -> Any:
        """Repeat the step on other inputs; its gradients are overwritten by the next replay, its result is not."""
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given)
        assert self.repeat is not None
        self.repeat()
        self._attach(self.gradients)
        return _mapped(self.result, torch.clone)

    def trial(self, inputs: Sequence[Tensor], device: torch.device) -> Any:
        """Return the result of a replay and what it writes; all is then as before."""
        with self._undone(device):
            return self.replay(inputs), _mapped(self.written(), torch.clone)

    def written(self) -> Any:
        """Return buffers and gradients."""
        return self.buffers, [parameter.grad for parameter in self.parameters]

    def _attach(self, gradients: Sequence[Tensor | None]) -> None:
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient

    @contextmanager
    def _undone(self, device: torch.device) -> Iterator[None]:
        """Undo what the step changes. Refuse it if it has drawn random numbers: a replay would draw the same again."""
        buffers, gradients = _mapped(self.buffers, torch.clone), [parameter.grad for parameter in self.parameters]
        drawn = _random_states(device)
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, before in zip(self.buffers, buffers, strict=True):
                    buffer.copy_(before)
            self._attach(gradients)
        if not all(map(torch.equal, drawn, _random_states(device))):
            torch.set_rng_state(drawn[0])
            if device.type == "cuda":
                torch.cuda.set_rng_state(drawn[1], device)
            raise ValueError("it draws random numbers")


class Graphs:
    """Decide which steps are recorded, keep the recordings, and say where there are none and why.

    Args:
        device: device of the steps; None: they all run as they are.
        log: function that takes a line for the log; each line comes once.
        recorder: what records; None: CUDA graphs on a GPU, nothing elsewhere.
    """

    def __init__(self, device: torch.device | None = None, log: Callable[[str], object] = lambda line: None,
                 recorder: Recorder | None = None) -> None:
        if recorder is None and device is not None and device.type == "cuda":
            recorder = CudaRecorder(device)
        self.recorder, self.log = recorder, log
        self.recordings: dict[Hashable, _Recording] = {}
        self.said: set[str] = set()

    @contextmanager
    def used(self, calls: int) -> Iterator[None]:
        """Record steps inside, which are called about ``calls`` times; at the end, the recordings are forgotten."""
        if self.recorder is None or calls < FEWEST_CALLS:
            if self.recorder is not None:
                self._say(f"CUDA graphs are not used where a network makes fewer than {FEWEST_CALLS} equal steps")
            yield
            return
        outer, _active.graphs = _active.graphs, self
        try:
            yield
        finally:
            _active.graphs = outer
            self._forget()

    def run(self, step: Step, inputs: Sequence[Tensor], model: nn.Module, trains: bool, obstacle: str) -> Any:
        """Return ``step(*inputs)``; the arguments are those of ``repeated``."""
        if self.recorder is None:  # since a failure
            return step(*inputs)
        modules = list(modules_in_use(model))
        obstacle = obstacle or _obstacle(modules, inputs, self.recorder.device)
        if obstacle:
            self._say(f"CUDA graphs are not used for {step.what}: {obstacle}")
            return step(*inputs)
        key = (step, trains, torch.is_grad_enabled(), *((x.shape, x.stride(), x.dtype) for x in inputs))
        state = _state(model, modules)
        if any(recording.state != state for recording in self.recordings.values() if recording.model is model):
            self._forget()  # another path, or weights in another place
        recording = self.recordings.get(key) or _Recording(model, modules, state, trains)
        self.recordings[key] = recording
        recording.calls += 1
        if recording.trusted:
            return recording.replay(inputs)
        if recording.repeat is not None:
            return self._compare(recording, step, inputs)
        result = step(*inputs)
        if recording.calls == CALLS_BEFORE:
            self._record(recording, step, inputs)
        return result

    def _record(self, recording: _Recording, step: Step, inputs: Sequence[Tensor]) -> None:
        assert self.recorder is not None
        try:
            recording.record(self.recorder, step, inputs)
        except MemoryError as error:  # another step may need less
            self._say(f"CUDA graphs are not used for {step.what}: {error}")
        except Exception as error:
            self._give_up(f"recording {step.what} failed ({first_line(error)})")

    def _compare(self, recording: _Recording, step: Step, inputs: Sequence[Tensor]) -> Any:
        """Run a step, and trust its recording if that does the same.

        The inputs, and in a training the weights, are other ones than when it was recorded, so nothing stale passes.
        """
        assert self.recorder is not None
        found: Any = None
        try:
            found = recording.trial(inputs, self.recorder.device)
        except Exception as error:
            self._give_up(f"repeating {step.what} failed ({first_line(error)})")
        result = step(*inputs)
        if found is None:
            return result
        recording.trusted = _alike(found, (result, recording.written()))
        if recording.trusted:
            self._say(f"CUDA graphs are used for {step.what}")
        else:
            self._give_up(f"{step.what} came out differently")
        return result

    def _give_up(self, reason: str) -> None:
        self._forget()
        self.recorder = None
        self._say(f"CUDA graphs are not used: {reason}")

    def _forget(self) -> None:
        if self.recorder is not None and any(recording.repeat for recording in self.recordings.values()):
            with suppress(RuntimeError):  # a device in error says so at the next step
                self.recorder.free(self.recordings)
        self.recordings.clear()

    def _say(self, line: str) -> None:
        if line not in self.said:
            self.said.add(line)
            self.log(line)


class _Active(threading.local):
    graphs: Graphs | None = None


_active = _Active()


def repeated(step: Step, inputs: Sequence[Tensor], model: nn.Module, trains: bool = False,
             obstacle: str = "") -> Any:
    """Return ``step(*inputs)``, inside ``Graphs.used`` by a recording where there is one.

    Args:
        step: the step.
        inputs: its tensors.
        model: the network that it runs.
        trains: whether it changes the network's buffers and leaves gradients in its parameters, which have none
            before; otherwise it changes nothing.
        obstacle: why the step must not be recorded; empty where it may.
    """
    graphs = _active.graphs
    return step(*inputs) if graphs is None else graphs.run(step, inputs, model, trains, obstacle)


def _obstacle(modules: Sequence[nn.Module], inputs: Sequence[Tensor], device: torch.device) -> str:
    """Return why a step cannot be recorded, if so."""
    obstacles = {
        "passes run under autocast": torch.is_autocast_enabled(device.type),
        "the network is compiled, traced or distributed, or has hooks": not calls_are_plain(modules),
        "BatchNorm waits for other processes": any(isinstance(module, nn.SyncBatchNorm) for module in modules),
        "the images are elsewhere, or need a gradient": any(x.device != device or x.requires_grad for x in inputs),
    }
    return next((why for why, found in obstacles.items() if found), "")


def _random_states(device: torch.device) -> list[Tensor]:
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def _state(model: nn.Module, modules: Sequence[nn.Module]) -> Hashable:
    """Return what a recording takes for granted: the path of a supernet, modules, modes, and places of tensors."""
    tensors = (tensor for module in modules for table in (module._parameters, module._buffers)
               for tensor in table.values() if tensor is not None)
    return (id(getattr(model, "path", None)),
            tuple((id(module), module.training, getattr(module, "track_running_stats", None)) for module in modules),
            tuple((id(tensor), tensor.data_ptr(), tensor.requires_grad) for tensor in tensors))


def _mapped(value: Any, function: Callable[[Tensor], Any]) -> Any:
    """Return tuples, lists and dictionaries with a function of each tensor, everything else as it is."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: _mapped(part, function) for key, part in value.items()}
    return type(value)(_mapped(part, function) for part in value) if isinstance(value, (tuple, list)) else value


def _alike(found: Any, expected: Any) -> bool:
    """Return whether two results of a step are equal up to rounding."""
    ours: list[Tensor] = []
    theirs: list[Tensor] = []
    _mapped(found, ours.append)
    _mapped(expected, theirs.append)
    return len(ours) == len(theirs) and all(map(_close, ours, theirs))


def _close(found: Tensor, expected: Tensor) -> bool:
    if not expected.is_floating_point() or not expected.numel():  # whole numbers only count
        return True
    size = expected.abs()
    near = (found - expected).abs() <= TOLERANCE * (size + size.mean())
    equal = near | (found == expected) | (found.isnan() & expected.isnan())
    return bool(1 - equal.double().mean() <= MOST_UNEQUAL)
