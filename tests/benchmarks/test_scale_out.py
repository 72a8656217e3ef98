"""The benchmark of scaling: what it counts, its formulas and its table; nothing about speed."""

import json
import math
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist

from benchmarks import communication, many_gpus, scale_out, scale_out_work
from benchmarks.clock import Clock
from benchmarks.communication import Traffic
from benchmarks.iteration_phases import TimedSearcher, columns, run_phases
from benchmarks.many_gpus import Machine, Work, exchange_seconds, predicted_seconds
from search.wsr_nas_settings import PRESETS, schedule
from wsrnas.data.image_set import Augmentation, DataSet, ImageSet
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.preemption import stop_requests
from wsrnas.training.batch_norm import average_buffers

PHASES = {"train": 100.0, "recalibrate": 2.0, "validate": 70.0, "validate/attack": 40.0, "validate/estimate": 2.0,
          "train_losses": 5.0, "move": 1.0}


@pytest.fixture
def sent(monkeypatch):
    """The collectives that this process takes part in, as (name, bytes); they exchange nothing."""
    log = []

    def noted(name):
        return lambda tensor, *args, **more: log.append((name, tensor.numel() * tensor.element_size()))

    def all_gather(rows, tensor):
        noted("all_gather")(tensor)
        for row in rows:
            row.copy_(tensor)

    monkeypatch.setattr(dist, "all_reduce", noted("all_reduce"))
    monkeypatch.setattr(dist, "broadcast", noted("broadcast"))
    monkeypatch.setattr(dist, "all_gather", all_gather)
    return log


def searcher(world=None, **changes):
    """A small search with a path, in its first iteration."""
    config = replace(PRESETS["tiny"], space="nas-bench-201", output="argmax", init_channels=2, layers=3, batch_size=4,
                     eval_batch_size=4, num_steps=1, warmup_architectures=1, population=1, iterations=2, loss_passes=1,
                     estimator_images=1, recalibration_batches=2, check_images=10, **changes)
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (24, 3, 8, 8), dtype=torch.uint8, generator=draw)
    images = ImageSet(pixels.contiguous(memory_format=torch.channels_last), torch.arange(24) % 10)
    data = DataSet("noise", images, images, tuple("0123456789"), Augmentation())
    halves = torch.arange(24).chunk(2)
    made = TimedSearcher(config, data, (halves[0], halves[1]), world or World())
    gates = torch.zeros(made.space.shape)
    gates[..., torch.arange(gates.shape[1]), [1, 2, 0, 3, 2, 3]] = 1  # a path all of which reaches the output
    made.supernet.use(gates)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["wsr", "wsr-paper"])
def test_what_an_iteration_sends_is_what_was_counted(strategy, sent):
    search = searcher(World(0, 2), strategy=strategy, report_freq=2)
    steps = schedule(search.config)
    with stop_requests(search.world) as search.stop:
        search.sample(steps[1])
        run_phases(search, steps[1], Clock(search.world.device))
        sent.clear()
        search.sample(steps[2])
        measured = run_phases(search, steps[2], Clock(search.world.device))
        average_buffers(search.supernet, search.world)
    counted = communication.traffic(search)
    assert sum(counted.values(), Traffic()) == Traffic(len(sent), sum(size for _, size in sent))
    assert len(measured["losses"]) == 5
    assert counted["gradients"].calls == 3 and set(counted) == {
        "gradients", "requests to stop, metrics", "running statistics", "losses on D_v", "strategy", "AN-Estimator",
        "check of the estimates"}


def test_synchronised_normalisation_sends_mean_and_variance_of_every_layer(sent):
    plain, search = searcher(World(0, 2)), searcher(World(0, 2), sync_bn=True)
    step = schedule(search.config)[1]
    for each in (plain, search):
        each.train_supernet(step)
        each.recalibrate(step)
        sent.append(("end", 0))
    place = sent.index(("end", 0))
    without, with_it = sent[:place], sent[place + 1:-1]
    counted = communication.normalisation_traffic(search)
    assert counted.calls == len(with_it) - len(without)
    layers, steps = len([name for name, _ in with_it if name == "all_gather"]) // (3 * 2 + 2), 3
    assert counted.calls == layers * (4 * steps + 2)
    forward = sum(size for name, size in with_it if name == "all_gather")
    assert counted.bytes == forward * (4 * steps + 2) // (2 * steps + 2)


def test_the_exchange_grows_with_the_hops_of_a_tree_and_the_bytes_of_a_ring():
    assert exchange_seconds(Traffic(10, 1000), 1, 1.0, 1.0) == 0
    assert exchange_seconds(Traffic(10, 1000), 2, 0.5, 100) == 10 * 0.5 + 10
    assert exchange_seconds(Traffic(10, 1000), 64, 0.5, 100) == 10 * 0.5 * 6 + 2 * 63 / 64 * 10


def test_a_prediction_is_what_stays_what_is_shared_and_what_is_sent():
    machine = Machine(latency=0.5, bandwidth=100.0)
    one = Work(shared=64.0, replicated=3.0, training=1.0, measuring=8.0)
    assert predicted_seconds(one, Traffic(), 1, machine) == 67
    assert predicted_seconds(one, Traffic(2, 100), 8, machine) == 3 + 8 + 2 * 0.5 * 3 + 1.75
    # The launches of a training step remain, however many GPUs share its batch.
    assert predicted_seconds(one, Traffic(), 10**9, machine) == pytest.approx(4)


def test_the_work_on_a_gpu_is_counted_from_passes_and_operators():
    search = searcher()
    machine = Machine(multiply_adds=math.inf, memory=math.inf, launch=1.0)
    one, operators = many_gpus.work(search, 5.0, machine), many_gpus.pass_operators(search)
    assert one.shared == 0 and operators > 100
    learned = 2 * math.ceil(120 / 32)
    assert one.replicated == 5 + operators * (1 + learned)
    assert one.training == pytest.approx(operators * (3 * 2 + 2 / 3))
    assert one.measuring == pytest.approx(operators * (3 * (1 + 5 / 3) + 3 * (2 + 4 / 3)))
    busy = many_gpus.work(search, 5.0, replace(machine, multiply_adds=1.0))
    slow = many_gpus.work(search, 5.0, replace(machine, multiply_adds=0.5))
    assert slow.shared == 2 * busy.shared > 0


@pytest.mark.parametrize("count", scale_out.STRENGTHS)
def test_a_spectrum_has_its_strengths_and_attacks_one(count):
    config = scale_out.spectrum(count)
    assert len(config.strengths) == count and config.attacked_strengths == (0.06,)
    assert config.num_estimated_strengths == count - 1


def test_attacking_all_strengths_costs_an_attack_and_a_measurement_each():
    assert scale_out.all_attacked(PHASES, 1) == scale_out.total(PHASES) == sum(columns(PHASES).values())
    assert scale_out.all_attacked(PHASES, 3) == scale_out.total(PHASES) + 2 * (40 + 15)


def test_searches_agree_by_their_architecture_and_their_losses():
    one = {"choices": [1, 2], "losses": [[1.0, 2.0], [3.0, 4.0]]}
    other = {"choices": [1, 3], "losses": [[1.0, 2.5], [3.0, 3.75]]}
    assert scale_out.agreement(one, one) == {"same_architecture": True, "largest_difference": 0,
                                               "median_difference": 0}
    assert scale_out.agreement(one, other) == {"same_architecture": False, "largest_difference": 0.5,
                                                 "median_difference": 0.125}


def test_speed_ups_are_those_of_medians():
    found = scale_out.with_speed_up({"1": {"cpu": [8.0, 9.0, 100.0], "wall": [10.0]},
                                     "2": {"cpu": [4.5], "wall": [6.0, 5.0, 4.0]}})
    assert found["2"] == {"cpu": 4.5, "wall": 5, "speed_up_wall": 2, "speed_up_cpu": 2}
    assert found["1"]["speed_up_wall"] == 1


@pytest.mark.slow
def test_the_benchmark_prints_its_tables_and_writes_its_files(tmp_path, monkeypatch, capsys):
    def work(folder, processes, name, *words):
        seconds = {"cpu": [2.0 / processes], "wall": [3.0], "replicated": [0.5]}
        return seconds | {"choices": [1], "losses": [[1.0, 2.0 + 0.25 * (processes - 1) * ("--double" not in words)]]}

    monkeypatch.setattr(scale_out, "work", work)
    monkeypatch.setattr(scale_out, "launched", lambda *words: None)
    monkeypatch.setattr(scale_out, "robust_images", lambda folder: ["11", "10"])
    monkeypatch.setattr(scale_out, "sweeps", lambda *parts: {
        "strengths": {count: PHASES | {"move": count} for count in scale_out.STRENGTHS},
        "images": dict.fromkeys(scale_out.IMAGES, PHASES)})
    monkeypatch.setattr(scale_out, "exchanges", lambda *parts: {
        "communication": {"wide": {"gradients": {"calls": 1000, "bytes": 2_000_000}}, "wide --sync_bn": {
            "gradients": {"calls": 1000, "bytes": 2_000_000}, "BatchNorm": {"calls": 9, "bytes": 0}}},
        "predicted": {"wide": {"one_gpu": {}, "1": 9.0, "8": 4.0, "64": 3.0}}})
    scale_out.main(["--turns", "1", "--json", str(tmp_path / "a.json"), "--figure", str(tmp_path / "a")])
    said = capsys.readouterr().out
    assert "| 2 | 3.00 | 1.00 | 0.50 | 1.00 | 2.00 |" in said
    assert "| 2, float32 | yes | 1.2e-01 | 2.5e-01 |" in said and "| 2, --sync_bn, float64 | yes | 0.0e+00 |" in said
    assert "| wide --sync_bn | BatchNorm | 9 | 0.000 |" in said and "| wide --sync_bn | gradients" not in said
    assert "the images that withstand are equal" in said and "| wide | gradients | 1,000 | 2.000 |" in said
    assert "| wide | 9.0 | 4.0 | 3.0 |" in said and "| 32 | 209 | 1.17 | 1883 |" in said
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["searches"]["2"]["speed_up_cpu"] == 2 and found["equal_evaluations"]
    assert (tmp_path / "a.svg").exists() and (tmp_path / "a.png").exists()


def test_the_images_that_withstand_are_those_of_the_result(tmp_path):
    with pytest.raises(InputError, match="has 0 results"):
        scale_out.robust_images(tmp_path)
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "one.json").write_text('{"clean": {"robust": "110"}, "attacks": [{"robust": "100"}]}')
    assert scale_out.robust_images(tmp_path) == ["110", "100"]


def test_wrong_flags_are_refused():
    with pytest.raises(InputError, match="--turns"):
        scale_out.main(["--turns", "0"])


def test_one_of_several_processes_does_its_part_alone(tmp_path, monkeypatch):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(scale_out_work, "evaluation", lambda arguments, world: {"arguments": arguments})
    scale_out.main(["evaluation", str(tmp_path / "numbers.json"), "--model", "network"])
    assert json.loads((tmp_path / "numbers.json").read_text()) == {"arguments": ["--model", "network"]}


def test_replicated_phases_are_phases_of_an_iteration():
    assert set(scale_out_work.REPLICATED) < {*PHASES, "remember_noise", "train_estimator", "remember_losses"}
