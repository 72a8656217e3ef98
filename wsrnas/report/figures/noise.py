"""The figure of estimated noise beside that of PGD."""

import itertools
from typing import Any

import numpy as np

from wsrnas.report.figures.axes import blank, styled
from wsrnas.report.figures.picture import Picture, picture
from wsrnas.report.figures.style import MUTED
from wsrnas.runtime.config import format_epsilon


@styled
def noise(arrays: dict[str, np.ndarray]) -> Picture | None:
    """Draw images with PGD's noise beside the estimator's, amplified so that ±ε fills the range of a display.

    Args:
        arrays: Arrays of ``noise_samples.npz``.
    """
    images, pgd, estimated = (arrays[name].astype(float) for name in ("images", "pgd", "estimated"))
    epsilons = arrays["epsilons"].astype(float)
    if not len(images) or not len(epsilons):
        return None
    count, strengths, _, height, width = pgd.shape
    gap = max(2, width // 8)
    columns, rows = 1 + 2 * strengths, count
    canvas = np.zeros((rows * height + (rows - 1) * gap, columns * width + (columns - 1) * gap, 4))
    table = []
    for i, j in itertools.product(range(count), range(columns)):
        if j == 0:
            pixels = images[i] / 255
        else:
            strength, source = (j - 1) // 2, pgd if j % 2 else estimated
            pixels = np.clip(0.5 + 0.5 * source[i, strength] / epsilons[strength], 0, 1)
        top, left = i * (height + gap), j * (width + gap)
        canvas[top:top + height, left:left + width, :3] = np.broadcast_to(pixels, (3, height, width)).transpose(1, 2, 0)
        canvas[top:top + height, left:left + width, 3] = 1
    for i, strength in itertools.product(range(count), range(strengths)):
        true, guess = pgd[i, strength].ravel(), estimated[i, strength].ravel()
        size, product = np.linalg.norm(true), np.linalg.norm(true) * np.linalg.norm(guess)
        table.append([i, epsilons[strength], np.abs(true).max(), np.abs(guess).max(), *(
            np.linalg.norm(guess - true) / size if size else None, true @ guess / product if product else None)])
    figure = _noise_figure(canvas, epsilons, width + gap, width, height + gap, height, table)
    texts = [f"×{0.5 / e:.3g} at {format_epsilon(e)}" for e in epsilons]
    return picture(figure, "noise", f"{count} validation images, each with PGD's noise and the estimated noise at "
                   f"{strengths} strengths.", f"Step {int(arrays['step']) + 1}. Left: images of D_v. Then, for each "
                   "strength, PGD's noise and the AN-Estimator's estimate of it; grey is zero. Amplified by "
                   f"{', '.join(texts)}. Below: the cosine between the two.",
                   ("image", "epsilon", "largest pgd", "largest estimated", "relative error", "cosine"), table)


def _noise_figure(canvas: np.ndarray, epsilons: np.ndarray, across: int, width: int, down: int, height: int,
                  table: list[list[Any]]) -> Any:
    """Draw the montage with its captions; sizes are in pixels of the images."""
    strengths = len(epsilons)
    figure = blank(9.4, 9.4 * (canvas.shape[0] + 0.6 * height) / canvas.shape[1])
    axes = figure.subplots()
    axes.imshow(canvas, interpolation="none")
    axes.axis("off")
    small = {"ha": "center", "fontsize": 8.5}
    axes.text(width / 2, -0.06 * height, "image", va="bottom", **small)
    for j in range(2 * strengths):
        centre = (j + 1) * across + width / 2
        axes.text(centre, -0.06 * height, "estimated" if j % 2 else "PGD", va="bottom", **small)
        if j % 2 == 0:
            epsilon = epsilons[j // 2]
            axes.text(centre + across / 2, -0.26 * height, f"ε {format_epsilon(epsilon)}, ×{0.5 / epsilon:.3g}",
                      va="bottom", **small)
    for image, epsilon, largest, _, _, cosine in table:
        strength = int(np.argmin(abs(epsilons - epsilon)))
        text = f"{cosine:.2f}" if cosine is not None else "nothing estimated" if largest else "no noise"
        axes.text((2 + 2 * strength) * across + width / 2, image * down + height + 0.03 * height, text, va="top",
                  color=MUTED, ha="center", fontsize=7.5)
    return figure
