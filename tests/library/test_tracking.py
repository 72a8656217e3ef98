"""Mirroring metrics in an experiment tracker, with stand-ins for the trackers' modules."""

import dataclasses
import importlib.machinery
import json
import sys
import types

import pytest

from wsrnas.runtime import tracking
from wsrnas.runtime.config import RunConfig
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.run_directory import RunDirectory


class Service:
    """What a tracker has been told: {run: rows}; calls of start; and whether the run is closed."""

    def __init__(self):
        self.rows, self.starts, self.open = {}, [], None

    def start(self, name, **more):
        self.starts.append({"name": name, **more})
        self.open = name
        self.rows.setdefault(name, [])

    def log(self, numbers, step):
        assert self.open, "no run is open"
        self.rows[self.open].append((step, numbers))

    def finish(self):
        self.open = None


def stand_in(tool: str, service: Service) -> types.ModuleType:
    """A module with the calls of a tracker that are used."""
    module = types.ModuleType(tool)
    module.__spec__ = importlib.machinery.ModuleSpec(tool, None)
    if tool == "mlflow":
        def start_run(run_id=None, run_name=None):
            service.start(run_id or f"id of {run_name}")
            return types.SimpleNamespace(info=types.SimpleNamespace(run_id=service.open))

        module.set_experiment, module.start_run, module.log_params = lambda name: None, start_run, lambda config: None
        module.log_metrics, module.end_run = service.log, service.finish
        return module

    def init(project, name, config, resume, id=None, dir=None):
        assert project == "wsrnas" and resume == "allow" and config["seed"] == 0
        service.start(id or name)
        return types.SimpleNamespace(id=id, log=service.log, finish=service.finish)

    module.init, module.finish = init, service.finish
    return module


@pytest.fixture(params=list(tracking.TRACKERS))
def tracked(request, monkeypatch):
    service = Service()
    monkeypatch.setitem(sys.modules, request.param, stand_in(request.param, service))
    return request.param, service


def open_run(folder, tool, **more):
    return RunDirectory(folder, RunConfig(track=tool), World(), **more)


def test_every_row_is_mirrored_once_and_a_resumed_run_goes_on_in_the_same_one(tracked, tmp_path):
    tool, service = tracked
    first = open_run(tmp_path / "run", tool)
    assert not service.starts  # before there are numbers
    for step in (0, 1):
        first.record(step, {"train": {"loss": 1.0 - step, "ok": True}, "note": "text"})
    first._lock.close()  # private: as when the process ends
    again = open_run(tmp_path / "run", tool)
    for step in (1, 2):  # row 1 is made again, after the last checkpoint
        again.record(step, {"train": {"loss": 1.0 - step}})
    again.finish("done")
    (name, rows), = service.rows.items()
    assert rows == [(0, {"train/loss": 1.0}), (1, {"train/loss": 0.0}), (2, {"train/loss": -1.0})]
    assert len(service.starts) == 2 and service.open is None
    assert json.loads((tmp_path / "run" / "tracking.json").read_text())[tool] == {"id": name, "step": 2}
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 4


def test_a_tracker_that_fails_does_not_stop_a_run(tracked, tmp_path, monkeypatch, capsys):
    tool, service = tracked
    monkeypatch.setattr(service, "log", None)
    monkeypatch.setitem(sys.modules, tool, stand_in(tool, service))
    run = open_run(tmp_path / "run", tool)
    for step in (0, 1):
        run.record(step, {"loss": 1.0})
    run.finish("done")
    assert capsys.readouterr().err.count(f"note: --track {tool} has stopped: ") == 1
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2


def test_each_tool_goes_on_in_its_own_run_whatever_came_between(tmp_path, monkeypatch):
    services = {tool: Service() for tool in ("wandb", "mlflow")}
    for tool, service in services.items():
        monkeypatch.setitem(sys.modules, tool, stand_in(tool, service))

    def send(tool, step):
        tracker = tracking.Tracker(tool, tmp_path, {"seed": 0})
        tracker.record(step, {"loss": 1.0})
        tracker.finish()

    for tool, step in (("wandb", 0), ("mlflow", 0), ("wandb", 0), ("wandb", 1)):
        send(tool, step)
    (rows,) = services["wandb"].rows.values()
    assert [step for step, _ in rows] == [0, 1] and set(json.loads((tmp_path / "tracking.json").read_text())) == {
        "wandb", "mlflow"}
    (tmp_path / "tracking.json").write_text('{"wandb": {"id": "x"}}')
    send("wandb", 5)
    assert "x" in services["wandb"].rows


def test_a_folder_called_like_a_tracker_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "trackio").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "trackio", raising=False)
    with pytest.raises(InputError, match="--track trackio needs the package trackio, which is not installed"):
        tracking.Tracker("trackio", tmp_path, {})


def test_a_missing_tracker_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None)
    with pytest.raises(InputError, match=r"--track wandb needs the package wandb, .* pip install wandb"):
        open_run(tmp_path / "run", "wandb")
    assert not list(tmp_path.iterdir())
    open_run(tmp_path / "run", "").record(0, {"loss": 1.0})
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    for overwrite in (False, True):
        with pytest.raises(InputError, match="needs the package wandb"):
            RunDirectory(tmp_path / "run", RunConfig(track="wandb"), World(), overwrite)
        with pytest.raises(InputError, match="needs the package wandb"):
            RunDirectory.refuse(tmp_path / "run", RunConfig(track="wandb"), overwrite, {})
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before  # nothing is moved aside


def test_without_the_flag_no_tracker_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "Tracker", None)
    run = open_run(tmp_path / "run", "")
    run.record(0, {"loss": 1.0})
    assert not (tmp_path / "run" / "tracking.json").exists() and not set(tracking.TRACKERS) & set(sys.modules)
    assert {field.name: field.default for field in dataclasses.fields(RunConfig)}["track"] == ""


def test_a_server_of_mlflow_gets_as_many_parameters_as_it_takes(monkeypatch, tmp_path):
    service, sent = Service(), []
    module = stand_in("mlflow", service)
    module.log_params = lambda config: sent.append(dict(config))
    monkeypatch.setitem(sys.modules, "mlflow", module)
    config = {f"field {number}": number for number in range(250)}
    tracking.Tracker("mlflow", tmp_path, config).record(0, {"loss": 1.0})
    assert [len(part) for part in sent] == [100, 100, 50]
    assert {name: value for part in sent for name, value in part.items()} == config
