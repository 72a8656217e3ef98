"""A process that learns from one image at a time: refused where BatchNorm cannot, before anything is trained."""

from dataclasses import replace

import pytest
from torch import nn

from retrain.batch import check_single_images
from retrain.recipes import RECIPES
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import InputError

TINY = replace(RECIPES["tiny"], auxiliary_weight=0.0)


def network(size: int) -> nn.Module:
    """Its last features have ``size`` pixels."""
    return nn.Sequential(nn.AdaptiveAvgPool2d((1, size)), nn.BatchNorm2d(3), nn.Flatten())


@pytest.mark.parametrize(("settings", "size", "world", "refused"), [
    ({"batch_size": 1}, 1, 1, True), ({"batch_size": 1}, 2, 1, False), ({"batch_size": 2}, 1, 1, False),
    ({"batch_size": 4, "accumulation": 4}, 1, 1, True), ({"batch_size": 4, "accumulation": 2}, 1, 1, False),
    ({"batch_size": 8}, 1, 8, True), ({"batch_size": 8, "sync_bn": True}, 1, 8, False),
    ({"batch_size": 1, "adv_loss": "trades"}, 1, 1, False),  # it sees clean and adversarial images side by side
    ({"batch_size": 1, "adv_loss": "trades", "batch_statistics": True}, 1, 1, True)])
def test_one_image_of_one_pixel_is_too_few(settings, size, world, refused):
    model, config = network(size).eval(), replace(TINY, **settings)
    before = model.state_dict()["1.num_batches_tracked"].clone()
    if refused:
        with pytest.raises(InputError, match=r"learns from one image at a time \(.*expected a larger --batch_size"):
            check_single_images(config, model, (3, 4, 4), World(size=world))
    else:
        check_single_images(config, model, (3, 4, 4), World(size=world))
    assert model.state_dict()["1.num_batches_tracked"] == before and not model.training
