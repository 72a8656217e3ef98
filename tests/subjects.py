"""A small network, images for it, its export and its check, as tests of trained networks use them."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from wsrnas.runtime.errors import InputError
from wsrnas.subjects.checking import check_model

CLASSES = 5


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(),
                          nn.Linear(144, CLASSES))
    model(torch.rand(16, 3, 8, 8))  # running statistics that differ from a batch's
    return model.eval()


def batch(count: int = 9) -> tuple[Tensor, Tensor]:
    images = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return images, torch.arange(count) % CLASSES


def export(path: Path, model: nn.Module, count: int = 4, rows=None) -> Path:
    program = torch.export.export(model, (torch.rand(count, 3, 8, 8),), dynamic_shapes=rows and ({0: rows},))
    torch.export.save(program, path)
    return path


def refused_by_check(model: nn.Module, images: Tensor | None = None, labels: Tensor | None = None,
                     batch_size: int | None = None) -> str:
    drawn, numbers = batch()
    with pytest.raises(InputError) as caught:
        check_model(model, drawn if images is None else images, numbers if labels is None else labels, CLASSES,
                    batch_size=batch_size)
    assert "\n" not in str(caught.value)
    return str(caught.value)
