"""What only a GPU shows: nothing waits for it inside a loop, and the programs run on it."""

import pytest
import torch

import genotypes
import search.rnas
import search.wsr_nas
from search.rnas_searcher import RnasSearcher
from search.rnas_settings import PRESETS, RnasConfig
from search.split import halves
from search.supernet import Supernet
from wsrnas.attacks import mim, multi_strength_pgd, pgd
from wsrnas.data.datasets import load_dataset
from wsrnas.data.loader import BatchLoader
from wsrnas.estimators import build_estimator
from wsrnas.estimators import names as estimator_names
from wsrnas.evaluation.attack_spec import at_strength, parse_attack
from wsrnas.evaluation.carlini_wagner import carlini_wagner
from wsrnas.evaluation.measurement import Evaluation
from wsrnas.network import NetworkCIFAR
from wsrnas.quick.graphs import CALLS_BEFORE, FEWEST_CALLS, Graphs
from wsrnas.runtime.arithmetic import exact_arithmetic
from wsrnas.runtime.config import parse_config
from wsrnas.runtime.distributed import World
from wsrnas.runtime.seeding import BatchNoise
from wsrnas.training.epoch import Epoch
from wsrnas.training.losses import LOSSES, LossSettings
from wsrnas.training.schedules import Schedule
from wsrnas.training.trainer import Refinements, Trainer

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.fixture
def no_synchronisation():
    """Any operation that makes the host wait for the device raises inside the block."""
    class Block:
        def __enter__(self):
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("error")

        def __exit__(self, *exception):
            torch.cuda.set_sync_debug_mode("default")
    return Block()


@pytest.fixture
def supernet():
    network = Supernet(4, 4).to("cuda", memory_format=torch.channels_last)
    network.sample(torch.Generator().manual_seed(0))
    return network


@pytest.fixture
def batch():
    images = torch.rand(8, 3, 32, 32, device="cuda").contiguous(memory_format=torch.channels_last)
    return images, torch.arange(8, device="cuda")


def test_attacks_do_not_wait_for_the_device(supernet, batch, no_synchronisation):
    strengths = torch.tensor([0.03, 0.06], device="cuda")
    pgd(supernet, *batch, 0.03, batch_statistics=True)  # cuDNN chooses its algorithms
    carlini_wagner(supernet, *batch, steps=2)
    with no_synchronisation:
        pgd(supernet, *batch, 0.03, batch_statistics=True)
        multi_strength_pgd(supernet, *batch, strengths)
        mim(supernet, *batch, 0.03, steps=3)
        carlini_wagner(supernet, *batch, steps=3)


@pytest.mark.parametrize("name", LOSSES)
def test_training_steps_do_not_wait_for_the_device(name, supernet, batch, no_synchronisation):
    settings = LossSettings(0.03, 2, batch_statistics=True, strengths=(0.03, 0.06))
    noise = BatchNoise(torch.Generator("cuda"))
    for block in (torch.no_grad(), no_synchronisation):  # the first pass only warms up
        with block, torch.enable_grad():
            LOSSES[name](supernet, *batch, settings, noise)[0].backward()


@pytest.mark.parametrize("bfloat16", [False, True])
def test_a_step_with_everything_does_not_wait_for_the_device(bfloat16, batch, no_synchronisation):
    network = NetworkCIFAR(genotypes.load("WsrNet_Basic"), 4, 3, 10).to("cuda", memory_format=torch.channels_last)
    refinements = Refinements(5.0, 2, bfloat16, 0.01, 0, 0.9, 0.2, True)
    trainer = Trainer(network, LOSSES["pgd"], LossSettings(0.03, 2, random_start=True),
                      torch.optim.SGD(network.parameters(), 0.1, 0.9), World(device=torch.device("cuda", 0)),
                      schedule=Schedule("cosine", 0.1, 10, 5), refinements=refinements)
    epoch = Epoch()
    epoch.add(trainer.step(*batch))
    with no_synchronisation:
        epoch.add(trainer.step(*batch))
    assert epoch.state_dict(trainer.world)["sums"]["loss"][1] == 16


@pytest.mark.parametrize("name", estimator_names())
def test_estimators_do_not_wait_for_the_device(name, supernet, batch, no_synchronisation):
    estimator = build_estimator(name).to("cuda").eval()
    sources, targets = torch.tensor([0.03, 0.06], device="cuda"), torch.linspace(0.01, 0.25, 8, device="cuda")
    noises = 0.03 * torch.randn(8, 2, 3, 32, 32, device="cuda").sign()

    def estimate():
        more, epsilons = estimator.more_sources(supernet, *batch, noises, sources, targets)
        estimator(more, batch[0], epsilons, targets)

    with torch.no_grad():
        estimate()
        with no_synchronisation:
            estimate()


def evaluation(device):
    torch.manual_seed(0)
    network = NetworkCIFAR(genotypes.load("WsrNet_Basic"), 4, 3, 10).eval().to(device)
    loader = BatchLoader(load_dataset("digits", max_test=40).test.to(device), 40, 0, "test")
    return Evaluation(network, loader, 10, World(device=torch.device(device, 0)), batch_size=16, log=lambda line: None)


@pytest.mark.parametrize("name", ["pgd-3x2", "noise-3", "cw-l2-5", "apgd-ce", "square-20"])
def test_an_evaluation_on_the_gpu_finds_what_the_cpu_finds(name):
    attack, everything = at_strength(parse_attack(name), 0.01), torch.arange(40)
    with exact_arithmetic():
        found = [evaluation(device).robust(attack, everything) for device in ("cuda", "cpu")]
    assert (found[0] != found[1]).sum() <= 2  # an untrained network's images lie near the boundary


USED = [f"CUDA graphs are used for {what}" for what in ("attacks", "gradients of training steps")]


@pytest.mark.parametrize("batch_statistics", [False, True])
def test_recorded_attacks_make_the_images_of_attacks_without(batch_statistics, supernet):
    def attacked():
        draw = torch.Generator("cuda").manual_seed(0)
        for _ in range(CALLS_BEFORE + 4):
            images = torch.rand(8, 3, 32, 32, device="cuda", generator=draw).contiguous(
                memory_format=torch.channels_last)
            yield pgd(supernet, images, torch.arange(8, device="cuda"), 0.03, batch_statistics=batch_statistics)

    graphs, said, random = Graphs(torch.device("cuda", 0)), [], torch.cuda.get_rng_state()
    graphs.log, expected = said.append, list(attacked())
    with graphs.used(FEWEST_CALLS):
        found = list(attacked())
    assert said == USED[:1]
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().gt(1e-6).double().mean() < 0.05  # signs of gradients near zero
    assert torch.equal(random, torch.cuda.get_rng_state())


@pytest.mark.parametrize("loss", ["pgd", "trades"])
def test_recorded_training_steps_train_as_steps_without(loss, batch):
    def trained(graphs):
        torch.manual_seed(0)
        network = Supernet(4, 4).to("cuda", memory_format=torch.channels_last)
        network.sample(torch.Generator().manual_seed(0))
        optimizer = torch.optim.SGD(network.weight_parameters(), 0.01, 0.9)
        trainer = Trainer(network, LOSSES[loss], LossSettings(0.03, 2, batch_statistics=True), optimizer,
                          World(device=torch.device("cuda", 0)), single_path=True)
        with graphs.used(FEWEST_CALLS):
            losses = [trainer.step(*batch)["loss"][0] for _ in range(CALLS_BEFORE + 4)]
        return torch.stack(losses), torch.cat([buffer.flatten() for buffer in network.buffers()
                                               if buffer.is_floating_point()])

    said = []
    found, expected = trained(Graphs(torch.device("cuda", 0), said.append)), trained(Graphs())
    assert said == USED
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)


def test_a_search_with_recordings_finds_what_one_without_finds(tmp_path):
    found = []
    for choice in ("auto", "off"):
        search.wsr_nas.main(["--preset", "tiny", "--strategy", "wsr-paper", "--output", "argmax", "--device", "cuda",
                             "--init_channels", "2", "--layers", "3", "--num_steps", "1", "--max_train", "400",
                             "--batch_size", "8", "--max_validation", "200", "--eval_batch_size", "10",
                             "--warmup_architectures", "1", "--iterations", "1", "--cuda_graphs", choice, "--runs",
                             str(tmp_path / choice), "--save", "run"])
        run = tmp_path / choice / "search" / "run"
        said = [line for line in USED if line in (run / "log.txt").read_text()]
        found.append((said, genotypes.load(run / "genotype.json")))
    assert [said for said, _ in found] == [USED, []] and found[0][1] == found[1][1]


def test_a_full_gpu_halves_the_batch():
    said = []
    measured = evaluation("cuda")
    measured.log = said.append
    free, total = torch.cuda.mem_get_info()
    hog = torch.empty(max(free - 24 * 2**20, 0), dtype=torch.uint8, device="cuda")
    try:
        measured.model = torch.nn.Sequential(torch.nn.Upsample(scale_factor=16), measured.model)
        measured.robust(at_strength(parse_attack("pgd-2"), 0.01), torch.arange(40))
    except torch.OutOfMemoryError:
        pass  # not even one image fits beside what the test holds
    finally:
        del hog
        torch.cuda.empty_cache()
    assert said and all("the GPU is out of memory" in line for line in said) and total > free


def test_a_path_does_not_depend_on_the_device(supernet):
    other = Supernet(4, 4)
    other.load_state_dict(supernet.state_dict())
    path = other.sample(torch.Generator().manual_seed(0))
    assert path.operations == supernet.path.operations
    torch.testing.assert_close(path.gates, supernet.path.gates)


@pytest.mark.parametrize("relaxation", ["mixed", "sampled"])
def test_a_search_under_a_bound_runs_on_the_gpu_and_its_vulnerability_is_that_of_the_cpu(relaxation, tmp_path):
    program = ["--preset", "tiny", "--relaxation", relaxation, "--init_channels", "2", "--max_train", "128", "--epochs",
               "2", "--warmup_epochs", "1", "--bound_batches", "2", "--vulnerability_bound", "rel:0.9"]
    search.rnas.main([*program, "--device", "cuda", "--runs", str(tmp_path), "--save", "run"])
    assert (tmp_path / "search" / "run" / "FINISHED").exists()
    values = []
    for device in ("cpu", "cuda"):
        config, _ = parse_config(RnasConfig, PRESETS, [*program, "--device", device, "--no-random_start"])
        data = load_dataset("digits", max_train=config.max_train, seed=config.seed)
        searcher = RnasSearcher(config, data, halves(data, config.seed), World(device=torch.device(device)))
        values.append(searcher.watch()["network"])
    assert values[1] == pytest.approx(values[0], rel=0.02)
