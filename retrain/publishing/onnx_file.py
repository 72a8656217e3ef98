"""A network as an ONNX file for any number of images, compared with PyTorch by ONNX Runtime."""

import contextlib
import importlib.util
import io
import logging
import warnings
from pathlib import Path

import torch
from torch import nn

from wsrnas.runtime.config import require
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.seeding import generator

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-5  # largest difference of a logit, or of the largest one as a share of it
SMALLEST = 1e-30  # logits may all be zero
BATCHES = (1, 2, 5)


def require_packages() -> None:
    """Refuse to go on where a package is missing.

    Raises:
        InputError: Naming what is missing and how to install it.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    require(not missing, f"--onnx needs {' and '.join(missing)}, not found here; install what is missing with "
                         "pip install -e '.[export]'")


def write_onnx(model: nn.Module, image_shape: tuple[int, ...], path: Path, opset: int) -> tuple[float, float]:
    """Write a network as ONNX, and run the file on batches of several sizes.

    Args:
        model: The network in evaluation mode.
        image_shape: (C, H, W); the number of images is free.
        path: The file to write.
        opset: The ONNX operator set.

    Returns:
        The largest difference of a logit from PyTorch's: absolute, and relative to the largest logit.

    Raises:
        InputError: The network cannot be written as ONNX, or ONNX Runtime gives other logits.
    """
    images = torch.rand(2, *image_shape, generator=generator(0, "onnx"))
    quiet = logging.getLogger("torch.onnx"), logging.getLogger("onnxscript"), logging.getLogger("onnx_ir")
    levels = [logger.level for logger in quiet]
    try:
        for logger in quiet:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(model, (images,), str(path), dynamo=True, opset_version=opset, input_names=["images"],
                              output_names=["logits"], dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
                              external_data=False, verbose=False)
    except Exception as error:  # the exporter raises its own types and torch's, by the dozen
        raise InputError(f"the network cannot be written as ONNX with opset {opset} "
                         f"({type(error).__name__}: {(str(error).splitlines() or [''])[0]})") from None
    finally:
        for logger, level in zip(quiet, levels, strict=True):
            logger.setLevel(level)
    absolute, relative = difference(model, image_shape, path)
    require(min(absolute, relative) <= TOLERANCE, f"ONNX Runtime's logits differ from PyTorch's by {absolute:.2g}, "
            f"{relative:.2g} of the largest; expected at most {TOLERANCE:g}")
    return absolute, relative


@torch.no_grad()
def difference(model: nn.Module, image_shape: tuple[int, ...], path: Path) -> tuple[float, float]:
    """Return the largest difference of a logit from the model's: absolute, and relative to the largest logit."""
    import onnxruntime  # an extra

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # it has its own types without a common base
        raise InputError(f"ONNX Runtime {onnxruntime.__version__} cannot read {path.name} ({type(error).__name__}); "
                         "expected a version that knows its opset, or another --opset") from None
    absolute = relative = 0.0
    for batch in BATCHES:
        images = torch.rand(batch, *image_shape, generator=generator(batch, "onnx check"))
        expected = model(images)
        logits = torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])
        require(logits.shape == expected.shape,
                f"ONNX Runtime gives logits of the shape {tuple(logits.shape)}; expected {tuple(expected.shape)}")
        gap = (logits - expected).abs().max().item()
        require(gap == gap, "ONNX Runtime gives logits that are NaN; expected PyTorch's")
        absolute, relative = max(absolute, gap), max(relative, gap / max(expected.abs().max().item(), SMALLEST))
    return absolute, relative
