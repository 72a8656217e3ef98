"""The images of a search: of a folder, whose images come class by class, every batch still has many classes."""

from dataclasses import replace

import pytest
import torch

from search.split import halves
from search.wsr_nas_parts import build_loaders, choose_images
from search.wsr_nas_settings import PRESETS
from wsrnas.data.datasets import load_dataset
from wsrnas.data.splits import balanced_subset
from wsrnas.runtime.distributed import World


@pytest.fixture(scope="module")
def sorted_digits():
    data = load_dataset("digits")
    return replace(data, train=data.train.subset(data.train.labels.argsort(stable=True)))


@pytest.mark.parametrize("images", [0, 200])
def test_batches_of_d_v_have_many_classes(images, sorted_digits):
    config = replace(PRESETS["tiny"], max_validation=images, eval_batch_size=40)
    split = halves(sorted_digits, config.seed)
    loaders = build_loaders(config, sorted_digits, split, World())
    batches = [labels for _, labels in loaders.validation.batches()]
    assert min(len(labels.unique()) for labels in batches[:-1]) >= 8
    assert len(loaders.few.labels[:8].unique()) >= 4  # all that NTK sees
    chosen = choose_images(config, sorted_digits, split, World())
    expected = split[1][balanced_subset(sorted_digits.train.labels[split[1]], images, config.seed, "D_v", 10)]
    assert chosen.validation.sort().values.equal(expected.sort().values)  # the order alone is another one
    assert torch.isin(chosen.few, chosen.validation).all() and torch.isin(chosen.check, chosen.validation).all()


def test_another_process_has_the_same_order(sorted_digits):
    config, split = PRESETS["tiny"], halves(sorted_digits, 0)
    one, other = (choose_images(config, sorted_digits, split, World(rank, 2, torch.device("cpu"))) for rank in (0, 1))
    assert one.validation.equal(other.validation) and one.few.equal(other.few)
