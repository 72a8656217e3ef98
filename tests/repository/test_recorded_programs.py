"""Programs whose steps are recorded, as on a GPU, end where the same programs end without."""

import pytest
import torch

import retrain.train_cifar
import search.wsr_nas
from tests.graph_tape import Tape
from tests.quick import slow_after
from tests.run_files import assert_equal, read, without_time
from wsrnas.quick.graphs import Graphs
from wsrnas.quick.settings import GraphsConfig

pytestmark = pytest.mark.usefixtures("quick_programs")

SMALL = ["--preset", "tiny", "--device", "cpu", "--init_channels", "2", "--num_steps", "1", "--save", "run"]
PROGRAMS = {
    "retrain": (retrain.train_cifar, ["--layers", "1", "--max_train", "40", "--held_out", "10", "--batch_size", "4",
                                      "--epochs", "1", "--schedule", "constant", "--select_steps", "1"]),
    "search": (search.wsr_nas, ["--space", "nas-bench-201", "--layers", "3", "--strategy", "wsr-paper", "--max_train",
                                "60", "--max_validation", "20", "--batch_size", "6", "--eval_batch_size", "5",
                                "--warmup_architectures", "1", "--iterations", "1", "--loss_passes", "3",
                                "--estimator_images", "2", "--check_images", "0"]),
}
# In each of its three epochs the search trains a path: an attack and a gradient. It measures two of these paths: the
# gradient at the images, and the rest of the attack.
RECORDED = {"retrain": 2, "search": 3 * 2 + 2 * 2}


@pytest.mark.parametrize("name", slow_after(1, PROGRAMS))
def test_a_program_whose_steps_are_recorded_ends_where_it_ends_without(name, tmp_path, monkeypatch):
    tape, (program, flags) = Tape(), PROGRAMS[name]
    monkeypatch.setattr("wsrnas.quick.graphs.FEWEST_CALLS", 4)
    monkeypatch.setattr(GraphsConfig, "graphs", lambda config, device, log: Graphs(
        log=log, recorder=tape if config.cuda_graphs == "auto" else None))
    runs = [tmp_path / choice / name / "run" for choice in ("auto", "off")]
    for run in runs:
        program.main([*SMALL, *flags, "--runs", str(run.parents[1]), "--cuda_graphs", run.parents[1].name])
    states = [torch.load(run / "checkpoint.pt", weights_only=True) for run in runs]
    assert_equal(*({key: part for key, part in state.items() if key != "config"} for state in states))
    assert_equal(*(without_time(read(run)) for run in runs))
    assert (tape.recorded, tape.alive) == (RECORDED[name], 0)
    assert "CUDA graphs are used for gradients of training steps" in (runs[0] / "log.txt").read_text()
    assert "CUDA graphs" not in (runs[1] / "log.txt").read_text()
