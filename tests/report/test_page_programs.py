"""Every program writes its page while it runs and at its end."""

import json

import numpy as np
import pytest
import torch

import retrain.train_cifar
import search.wsr_nas
from search.wsr_nas_searcher import Searcher
from search.wsr_nas_settings import SearchConfig, schedule
from tests.pages import Page
from tests.report.run_pages import SEARCH, SMALL
from wsrnas.attacks import multi_strength_pgd
from wsrnas.report import writing as report
from wsrnas.report.reading.runs import read_run
from wsrnas.runtime import run_files
from wsrnas.runtime.distributed import World

pytestmark = pytest.mark.usefixtures("quick_pages")

@pytest.mark.slow
def test_a_search_writes_its_page(searched):
    page = Page(searched / "report.html")
    assert "finished, 4 steps" in page.text and "could not be" not in page.text
    assert {"The cell", "Architecture weights", "Losses over the strengths", "Estimated noise",
            "Time"} <= set(page.titles())


@pytest.mark.slow
def test_a_search_records_its_architecture_parameters(searched):
    rows = read_run(searched).rows
    weights = torch.load(searched / "checkpoint.pt", weights_only=True)["searcher"]["supernet"]
    for kind in ("normal", "reduce"):
        recorded = torch.tensor(rows[-1]["architecture"]["alphas"][kind])
        assert recorded.shape == (14, 8) and (recorded - weights[f"alphas_{kind}"]).abs().max() <= 0.51e-4
        assert rows[0]["architecture"]["alphas"][kind] != rows[-1]["architecture"]["alphas"][kind]


@pytest.mark.slow
def test_noises_are_kept_after_every_step(searched):
    arrays = read_run(searched).noise
    config = json.loads((searched / "config.json").read_text())
    assert arrays["images"].dtype == np.uint8 and arrays["images"].shape[0] == 3
    assert arrays["pgd"].shape == arrays["estimated"].shape == (3, 2, *arrays["images"].shape[1:])
    assert arrays["epsilons"] == pytest.approx([config["strengths"][1], config["strengths"][3]]) and arrays["step"] == 3
    for name in ("pgd", "estimated"):
        sizes = np.abs(arrays[name].astype(float)).max((0, 2, 3, 4))
        assert (sizes <= arrays["epsilons"] * 1.001).all() and (sizes > 0.5 * arrays["epsilons"]).all()
    assert searched.joinpath(run_files.NOISE_SAMPLES).stat().st_size < 200_000


@pytest.mark.slow
def test_noise_samples_change_nothing_and_are_pgds(tmp_path):
    from wsrnas.data.datasets import load_dataset
    from wsrnas.data.splits import balanced_split
    from wsrnas.runtime.config import parse_config
    config = parse_config(SearchConfig, search.wsr_nas.PRESETS, SEARCH)[0]
    data = load_dataset("digits", "data", max_train=60, seed=0)
    searcher = Searcher(config, data, balanced_split(data.train.labels, 0.5, 0, data.num_classes), World())
    step = schedule(config)[-1]
    searcher.sample(step)
    state = {key: value.clone() for key, value in searcher.supernet.state_dict().items()}
    before = torch.get_rng_state()
    first, again = searcher.check_estimator(step)[1], searcher.check_estimator(step)[1]
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(value, state[key]) for key, value in searcher.supernet.state_dict().items())
    assert all(np.array_equal(first[name], again[name]) for name in first)
    images, labels = next(iter(searcher.check_loader.batches()))
    assert np.array_equal(first["images"], (images[:3] * 255).round().byte().numpy())
    whole = multi_strength_pgd(searcher.supernet, images, labels, searcher.target_epsilons, steps=1)
    assert first["pgd"] == pytest.approx((whole - images.unsqueeze(1))[:3].numpy(), abs=1e-4)
    sources = multi_strength_pgd(searcher.supernet, images, labels, searcher.source_epsilons, steps=1)
    with torch.no_grad():
        estimate = searcher.estimator(sources - images.unsqueeze(1), images, searcher.source_epsilons,
                                      searcher.target_epsilons)
    assert first["estimated"] == pytest.approx(estimate[:3].numpy(), abs=1e-4)


@pytest.mark.slow
def test_a_retraining_writes_its_page_while_it_runs_and_at_its_end(tmp_path, words_only, monkeypatch):
    monkeypatch.setattr(report, "REFRESH_SECONDS", -1)
    monkeypatch.setattr(report, "REFRESH_SHARE", 1e9)
    seen = []
    original = report.write_report
    monkeypatch.setattr(report, "write_report", lambda paths, live: seen.append(Page(original(paths, live=live)).text))
    retrain.train_cifar.main([*SMALL, "--max_train", "60", "--held_out", "20", "--epochs", "2", "--milestones", "1",
                              "--runs", str(tmp_path)])
    assert ["running, 1 of 2 epochs" in seen[0], "finished, 2 epochs" in seen[-1], len(seen)] == [True, True, 3]
