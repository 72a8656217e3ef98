"""Mirror the rows of ``metrics.jsonl`` in an experiment tracker; without ``--track`` nothing of it is imported.

A resumed run goes on in the same tracked run, whose id is kept in ``tracking.json``; each row is sent once. A tracker
that fails does not stop the program.
"""

from __future__ import annotations

import atexit
import importlib
import importlib.util
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsrnas.runtime import run_files
from wsrnas.runtime.checkpoint import write_json
from wsrnas.runtime.errors import InputError, say
from wsrnas.runtime.reading import read_json

PROJECT = "wsrnas"
MLFLOW_BATCH = 100  # parameters that a server of mlflow takes at a time
Log = Callable[[Mapping[str, float], int], Any]  # (numbers, step)
Opened = tuple[str, Log, Callable[[], Any]]  # id of the tracked run, how to log, how to finish


@dataclass(frozen=True)
class Tool:
    """Describe an experiment tracker.

    Args:
        start: function (module, name, id of an earlier start or "", configuration, folder) -> ``Opened``.
        help: text of ``--help``.
    """

    start: Callable[[Any, str, str, dict[str, Any], Path], Opened]
    help: str = ""


def _wandb(wandb: Any, name: str, known: str, config: dict[str, Any], folder: Path) -> Opened:
    run = wandb.init(project=PROJECT, name=name, id=known or uuid.uuid4().hex[:12], config=config, resume="allow",
                     dir=str(folder))
    return run.id, lambda numbers, step: run.log(dict(numbers), step=step), run.finish


def _trackio(trackio: Any, name: str, known: str, config: dict[str, Any], folder: Path) -> Opened:
    known = known or f"{name}-{uuid.uuid4().hex[:6]}"  # it knows runs by their name
    run = trackio.init(project=PROJECT, name=known, config=config, resume="allow")
    return known, lambda numbers, step: run.log(dict(numbers), step=step), trackio.finish


def _mlflow(mlflow: Any, name: str, known: str, config: dict[str, Any], folder: Path) -> Opened:
    mlflow.set_experiment(PROJECT)
    run = mlflow.start_run(run_id=known) if known else mlflow.start_run(run_name=name)
    fields = [] if known else list(config.items())
    for first in range(0, len(fields), MLFLOW_BATCH):
        mlflow.log_params(dict(fields[first:first + MLFLOW_BATCH]))
    return run.info.run_id, lambda numbers, step: mlflow.log_metrics(dict(numbers), step=step), mlflow.end_run


TRACKERS = {"wandb": Tool(_wandb, "offline with WANDB_MODE=offline"), "trackio": Tool(_trackio, "local"),
            "mlflow": Tool(_mlflow, "local, or at MLFLOW_TRACKING_URI")}


def require_tool(tool: str) -> None:
    """Refuse a tracker whose package is not installed.

    Raises:
        InputError: it is not.
    """
    found = importlib.util.find_spec(tool)
    is_folder = found is not None and found.origin is None and found.submodule_search_locations is not None
    if found is None or is_folder:  # a folder of that name, such as wandb makes, is no package
        raise InputError(f"--track {tool} needs the package {tool}, which is not installed: pip install {tool}")


class Tracker:
    """Send the numbers of a run to a tracker; it starts with the first row.

    Args:
        tool: key of ``TRACKERS``.
        folder: run directory.
        config: configuration as plain values.

    Raises:
        InputError: the tool's package is not installed.
    """

    def __init__(self, tool: str, folder: Path, config: dict[str, Any]) -> None:
        require_tool(tool)
        self.tool, self.folder, self.config = tool, folder, config
        self._log: Log | None = None
        self._end: Callable[[], Any] | None = None
        self._failed = False
        self._state: dict[str, Any] = {}

    def record(self, step: int, numbers: Mapping[str, float]) -> None:
        """Send one row, unless an earlier start has sent it."""
        if self._failed:
            return
        try:
            if self._log is None:
                self._start()
            if self._log is not None and step > self._state["step"]:
                self._log(numbers, step)
                self._keep(step)
        except Exception as error:  # each tool and its network have errors of their own; none may end a training
            self._failed = True
            say(f"note: --track {self.tool} has stopped: {_short(error)}")

    def finish(self) -> None:
        """Close the tracked run."""
        end, self._end = self._end, None
        if end is not None:
            try:
                end()
            except Exception as error:
                say(f"note: --track {self.tool}: {_short(error)}")

    def _start(self) -> None:
        self._state = dict[str, Any](id="", step=-1) | _known(self._stored().get(self.tool))
        opened = TRACKERS[self.tool].start(importlib.import_module(self.tool), self.folder.name, self._state["id"],
                                           self.config, self.folder)
        self._state["id"], self._log, self._end = opened
        self._keep(self._state["step"])
        atexit.register(self.finish)  # a stopped program must send what it has, too

    def _keep(self, step: int) -> None:
        self._state["step"] = step
        write_json(self.folder / run_files.TRACKING, self._stored() | {self.tool: self._state})

    def _stored(self) -> dict[str, Any]:
        """Return what earlier starts have kept, by tool."""
        try:
            stored = read_json(self.folder / run_files.TRACKING)
        except (InputError, OSError, ValueError):
            return {}
        return stored if isinstance(stored, dict) else {}


def _known(stored: Any) -> dict[str, Any]:
    """Return the usable parts of what an earlier start has kept."""
    kinds = {"id": str, "step": int}
    return {name: stored[name] for name, kind in kinds.items() if isinstance(stored, dict)
            and isinstance(stored.get(name), kind)}


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
