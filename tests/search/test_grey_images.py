"""Both searches take images of one channel, as training and evaluation do."""

import json

import numpy as np
import pytest

import search.ranking
import search.rnas
import search.wsr_nas

pytestmark = [pytest.mark.usefixtures("quick_programs"), pytest.mark.slow]

SMALL = ["--preset", "tiny", "--dataset", "npz", "--max_train", "0", "--batch_size", "8", "--layers", "3",
         "--init_channels", "2", "--num_steps", "1", "--save", "run"]
PROGRAMS = {
    search.rnas: ["--bound_batches", "2", "--epochs", "2", "--warmup_epochs", "1"],
    search.wsr_nas: ["--warmup_architectures", "1", "--iterations", "1", "--ntk_weight", "0.1", "--naswot_weight",
                     "0.1", "--estimator_images", "2", "--loss_passes", "2", "--recalibration_batches", "1"]}


@pytest.fixture
def grey(tmp_path):
    """80 pictures without a channel of colours, of four classes."""
    pixels = np.random.default_rng(0).integers(0, 255, (80, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "grey.npz", x_train=pixels, y_train=np.arange(80) % 4)
    return ["--data", str(tmp_path / "grey.npz"), "--runs", str(tmp_path / "runs")]


@pytest.mark.parametrize("space", ["darts", "nas-bench-201"])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_a_search_on_grey_images_finds_a_cell(program, space, grey, tmp_path, capsys):
    command = [*SMALL, "--space", space, *PROGRAMS[program], *grey]
    program.main([*command, "--dry_run"])
    assert not (tmp_path / "runs").exists() and "(1, 8, 8)" in capsys.readouterr().out
    program.main(command)
    assert json.loads((tmp_path / "runs/search/run/genotype.json").read_text())


def test_a_supernet_of_grey_images_is_ranked(grey, tmp_path):
    search.wsr_nas.main([*SMALL, "--space", "nas-bench-201", *PROGRAMS[search.wsr_nas], *grey])
    search.ranking.main(["--run", str(tmp_path / "runs/search/run"), "--table", "demo", "--sample", "10", "--images",
                         "8", "--num_steps", "1", "--runs", str(tmp_path / "runs"), "--resamples", "20"])
    assert len(list((tmp_path / "runs/ranking").glob("*/ranking.json"))) == 1
