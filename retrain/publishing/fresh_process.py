"""The check of an exported Python file in a fresh process that cannot import this project."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from wsrnas.runtime.config import require
from wsrnas.runtime.seeding import generator

LOGITS_TOLERANCE = 1e-6
CHECK_IMAGES = 4

IN_FRESH_PROCESS = """
import sys
file, images, logits, threads, *folders = sys.argv[1:]
sys.path += folders
for name in ("wsrnas", "genotypes", "search", "retrain"):
    sys.modules[name] = None  # importing it fails
import importlib.util
import torch
torch.set_num_threads(int(threads))
spec = importlib.util.spec_from_file_location("exported", file)
exported = importlib.util.module_from_spec(spec)
spec.loader.exec_module(exported)
with torch.no_grad():
    torch.save(exported.load()(torch.load(images, weights_only=True)), logits)
"""


@torch.no_grad()
def check_in_fresh_process(file: Path, model: nn.Module, image_shape: tuple[int, ...]) -> None:
    """Load the exported file in a new Python process that cannot import this project, and compare its logits.

    Args:
        file: The exported Python file.
        model: The network that it must equal.
        image_shape: (C, H, W).

    Raises:
        InputError: It fails there, or gives other logits.
    """
    images = torch.rand(CHECK_IMAGES, *image_shape, generator=generator(0, "export"))
    folders = [os.path.abspath(folder) for folder in sys.path if folder]
    with tempfile.TemporaryDirectory() as elsewhere:
        paths = [str(Path(elsewhere, name)) for name in ("images.pt", "logits.pt")]
        torch.save(images, paths[0])
        done = subprocess.run([sys.executable, "-I", "-B", "-c", IN_FRESH_PROCESS, str(file), *paths,
                               str(torch.get_num_threads()), *folders], cwd=elsewhere, capture_output=True, text=True)
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        require(done.returncode == 0, f"{file.name} does not load in a fresh Python process ({said}); expected the "
                                      "network's logits; nothing was written")
        logits = torch.load(paths[1], weights_only=True)
    require_same(logits, model(images), file.name)


def require_same(logits: Tensor, expected: Tensor, name: str) -> None:
    """Refuse logits that differ from the network's."""
    same = logits.shape == expected.shape and torch.allclose(logits, expected, rtol=0, atol=LOGITS_TOLERANCE)
    require(bool(expected.isfinite().all()), "the network's logits are NaN or infinite; nothing was written")
    require(same, f"{name} gives other logits than the network in a fresh Python process; expected a difference of at "
                  f"most {LOGITS_TOLERANCE:g}; nothing was written")
