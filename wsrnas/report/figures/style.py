"""The look of all figures: colours, lines, markers and matplotlib's settings."""

from typing import Any

# Okabe and Ito's palette: distinct to colour-blind readers, in print too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
PALETTE = COLOURS[:6]  # without black, which is the ink
LINES = ("-", "--", ":", "-.", (0, (7, 2, 1, 2, 1, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
# Colours of everything but the data. A file shows them as they are; a page replaces them by its own (``inline_svg``).
INK, MUTED, GRID, SURFACE, TINT = "#1f2329", "#6e7682", "#d0d7df", "#fffffe", "#eef3f9"
PAGE_COLOURS = {INK: "currentColor", MUTED: "var(--muted)", GRID: "var(--line)", SURFACE: "var(--surface)",
                TINT: "var(--tint)"}
# Those of the data are brighter on a dark page. Small text is darker on a light one, to be as legible as other text.
OCHRE = "#B97F00"
TEXT_COLOURS = {COLOURS[0]: "#00659f", COLOURS[2]: "#00755a", COLOURS[3]: "#a34a7c", OCHRE: "#855c00"}
_HUES = {COLOURS[0]: "blue", COLOURS[1]: "red", COLOURS[2]: "green", COLOURS[3]: "pink", COLOURS[4]: "orange",
         COLOURS[5]: "sky", OCHRE: "ochre"}
PAGE_COLOURS |= {colour.lower(): f"var(--{hue})" for colour, hue in _HUES.items()}
PAGE_COLOURS |= {text: f"var(--{_HUES[colour]}-text)" for colour, text in TEXT_COLOURS.items()}
# Settings of matplotlib.
STYLE: Any = {
    "svg.fonttype": "none", "font.size": 9, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": MUTED,
    "axes.titlecolor": INK, "axes.titlesize": 10, "axes.titlelocation": "left", "xtick.color": MUTED,
    "ytick.color": MUTED, "xtick.labelcolor": INK, "ytick.labelcolor": INK, "axes.facecolor": "none",
    "axes.spines.right": False, "axes.spines.top": False, "axes.grid": True, "grid.color": GRID,
    "grid.linewidth": 0.6, "axes.axisbelow": True, "lines.linewidth": 1.6, "legend.frameon": False,
    "legend.fontsize": 8.5, "figure.facecolor": "none", "savefig.facecolor": "none"}
FAMILIES = {"sep_conv": COLOURS[0], "dil_conv": COLOURS[2], "conv": COLOURS[3], "nor_conv_3x3": COLOURS[0],
            "nor_conv_1x1": COLOURS[2], "max_pool": OCHRE, "avg_pool": OCHRE, "skip_connect": MUTED,
            "none": MUTED}


def operation_colour(operation: str) -> str:
    """Return the colour of an operation's family, in cells and in curves."""
    return next((colour for family, colour in FAMILIES.items() if operation.startswith(family)), INK)
