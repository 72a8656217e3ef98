"""The report of a study: tables, figures, and the lines that the program ends with."""

import io
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from test_AN_estimator.measurement import MEANS
from test_AN_estimator.results import machines, read_results, summarise
from test_AN_estimator.settings import PRESETS, BenchmarkConfig, Setting
from wsrnas.data.datasets import DATASETS
from wsrnas.estimators import AVERAGE, ESTIMATORS
from wsrnas.evaluation.caveats import NEARLY_NONE
from wsrnas.report.figures.axes import blank, styled
from wsrnas.report.figures.style import COLOURS, INK, LINES, STYLE, SURFACE
from wsrnas.report.figures.svg import svg_text
from wsrnas.report.markdown_page import write_text_page
from wsrnas.report.tiles import Tile
from wsrnas.runtime import run_files
from wsrnas.runtime.checkpoint import write_atomic, write_json
from wsrnas.runtime.config import format_epsilon

# Table 5: natural accuracy, accuracy under PGD-7 and under the estimates. Its header has E-ANE twice, the first time
# without the minus. Its WA-ANE is neither rule of ours: the code sends Eq. 6 through a random convolution.
PUBLISHED_NATURAL = 73.0
PUBLISHED = {"PGD": 38.7, "A-ANE": 43.6, "E-ANE-minus": 71.1, "E-ANE": 48.9}
PUBLISHED_WA_ANE = 67.4
TICKS = (0, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


def write_report(config: BenchmarkConfig, study: Path) -> str:
    """Write report.md, report.html, summary.json and figures/gap-SETTING.svg and .png from the results so far.

    Args:
        config: configuration of the study.
        study: folder with ``SETTING/ESTIMATOR/result.json``; any of them may be missing.

    Returns:
        The main numbers as lines for a terminal.

    Raises:
        InputError: there is no result, or one cannot be read or belongs to another study.
    """
    results = read_results(config, study)
    summary = summarise(config, results)
    figures = study / run_files.FIGURES
    figures.mkdir(exist_ok=True)
    for setting in config.settings():
        if setting.targets and setting.name in results:
            figure = gap_figure(config, setting, summary["settings"][setting.name])
            write_atomic(figures / f"gap-{setting.name}.svg", svg_text(figure, f"gap-{setting.name}").encode())
            write_atomic(figures / f"gap-{setting.name}.png", png(figure))
    write_json(study / run_files.STUDY_SUMMARY, summary)
    text = report(config, summary, machines(study, results))
    write_atomic(study / run_files.STUDY_REPORT, text.encode())
    write_text_page(study, study.name, "study of AN-Estimators", text, tiles(summary))
    return overview(summary)


def tiles(summary: dict[str, Any]) -> list[Tile]:
    """Return the key numbers of a study: in each setting the estimator whose noise is nearest to the attack's."""
    found = [Tile("networks", str(len(summary["networks"])), f"{summary['images']:,} test images")]
    for setting, one in summary["settings"].items():
        name, row = min(one["estimators"].items(), key=lambda item: item[1]["mean_absolute_gap"])
        found.append(Tile(f"{setting}: smallest gaps", name, f"mean of absolute gaps {row['mean_absolute_gap']:.2f} "
                          f"points, {share_of_time(row['share_of_pgd'])} of the attack's time"))
    return found


# -- text -------------------------------------------------------------------------------------------------------------

def signed(value: float, digits: int = 1) -> str:
    """Format a number with its sign."""
    return f"{round(value, digits) + 0.0:+.{digits}f}"  # never -0.0


def with_interval(row: dict[str, Any], digits: int = 1) -> str:
    """Format a gap with its interval: ``+0.4 [-0.1, 0.9]``."""
    low, high = (round(end, digits) + 0.0 for end in row["interval"])
    return f"{signed(row['gap'], digits)} [{low:.{digits}f}, {high:.{digits}f}]"


def gap_cell(row: dict[str, Any]) -> str:
    """Format the accuracy under an estimate and its gap, with a mark where the gap shows nothing."""
    return f"{row['accuracy']:.1f}: {with_interval(row)}{' †' * row['saturated']}"


def share_of_time(share: float) -> str:
    """Format a share of the attack's time: ``1/26 (3.8 %)``, or ``1.3 times``."""
    if not 0 < share < 0.99:
        return f"{share:.1f} times"
    return f"1/{1 / share:.{0 if share < 0.1 else 1}f} ({100 * share:.2g} %)"


def three_digits(value: float) -> str:
    """Format a number with three significant digits."""
    return f"{float(f'{value:.3g}'):,.7g}"  # never 1.23e+03


def share_of_drop(share: float | None) -> str:
    """Format a share of the attack's drop in accuracy."""
    return "–" if share is None else f"{100 * share:.1f} %"


def strength(epsilon: float | None) -> str:
    """Format a strength; None: the random one."""
    return "random" if epsilon is None else format_epsilon(epsilon)


def markdown(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table whose first column is text."""
    header = list(header)
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def report(config: BenchmarkConfig, summary: dict[str, Any], times: Sequence[str]) -> str:
    """Return the text of ``report.md``."""
    training = f"at most {config.max_train:,}" if config.max_train else "all"
    few = f" (the AN-Estimators: at most {config.max_estimator_train:,})" if config.max_estimator_train else ""
    parts = ["# AN-Estimators against the attack that they replace", *caveats(summary),
             f"```bash\n{command(config, summary)}\n```",
             f"{config.dataset}: {training} training images{few}, {summary['images']:,} test images; "
             f"seed {config.seed}; attack: PGD-{config.num_steps}."
             + "".join(f" Times: {machine}." for machine in times),
             "Accuracies are in percent. A gap is accuracy under the estimated noise minus accuracy under the attack, "
             "in points: positive where the estimate is weaker than the attack. In brackets: its 95 % interval, a "
             "paired bootstrap over the test images for these networks and strengths.",
             network_table(config, summary)]
    if (paper := summary["settings"].get("leave-one-out")) is not None:
        parts += ["## In the form of the paper's Table 5", paper_table(config, paper, summary["natural"])]
    for setting in config.settings():
        if setting.name in summary["settings"]:
            parts += [f"## {setting.name}", *setting_parts(config, setting, summary)]
    rows = [f"- {setting}: {row['estimator']} {'' if row['verdict'].startswith('cannot') else 'is '}{row['verdict']} "
            f"{row['average']}: {with_interval(row, 2)} points."
            for setting, found in summary["settings"].items() for row in found["comparisons"]]
    if rows:
        parts += [f"## Against the average that they contain\n\nMean gap of the estimator minus that of {AVERAGE}, on "
                  "the same images; clearly: the interval excludes zero.", "\n".join(rows)]
    return "\n\n".join(parts) + "\n"


def caveats(summary: dict[str, Any]) -> list[str]:
    """Return sentences on networks and strengths whose gaps show nothing, which stand before all numbers."""
    weak = [row["network"] for row in summary["networks"] if row["at_chance"]]
    found = [f"Without noise, {', '.join(weak)} "
             f"{'are' if len(weak) > 1 else 'is'} not above chance: their gaps show nothing."] if weak else []
    rows = [(setting, strength(row["epsilon"]), row["saturated"]) for setting, one in summary["settings"].items()
            for other in one["estimators"].values() for row in other["strengths"]]
    blind = list(dict.fromkeys(f"{setting} at {at}" for setting, at, saturated in rows if saturated))
    if blind:
        found.append(f"{sum(row[-1] for row in rows)} of {len(rows)} gaps show nothing, because fewer than "
                     f"{100 * NEARLY_NONE:g} % of the images are right under either noise (†): {', '.join(blind)}.")
    return found


def command(config: BenchmarkConfig, summary: dict[str, Any]) -> str:
    """Return a command that repeats the study: its preset, the flags that differ and change the result, estimators."""
    base = PRESETS.get(config.preset, PRESETS["paper"])
    words = ["python -m test_AN_estimator.benchmark", f"--preset {base.preset}"]
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name != "preset" and field.metadata.get("identity", True) and value != getattr(base, field.name):
            words.append(f"--{field.name} {shlex.join(map(str, value if isinstance(value, tuple) else [value]))}")
    measured = {name for one in summary["settings"].values() for name in one["estimators"]}
    if measured != set(base.estimators):
        words.append(f"--estimators {' '.join(name for name in ESTIMATORS if name in measured)}")
    return " ".join(words + ["--data DATA"] * DATASETS[config.dataset].needs_folder)


def network_table(config: BenchmarkConfig, summary: dict[str, Any]) -> str:
    """Return the table of the networks: accuracies, and each estimator's mean gap in spectrum-1."""
    one = summary["settings"].get("spectrum-1", {"estimators": {}})["estimators"]
    attack = f"PGD-{config.num_steps}"
    return markdown(
        ["network", "natural", *(f"{attack} at {format_epsilon(e)}" for e, _ in summary["networks"][0]["pgd"]),
         *(f"mean gap in spectrum-1, {name}" for name in one)],
        ([row["network"], f"{row['natural']:.1f}", *(f"{accuracy:.1f}" for _, accuracy in row["pgd"]),
          *(signed(found["networks"][place], 2) for found in one.values())]
         for place, row in enumerate(summary["networks"])))


def paper_table(config: BenchmarkConfig, found: dict[str, Any], natural: float) -> str:
    """Return the table of accuracies under each noise, averaged over networks and sources, beside published ones."""
    attack = next(iter(found["estimators"].values()))["pgd"]
    rows: list[tuple[str, float, float | None]] = [(f"PGD-{config.num_steps}", attack, PUBLISHED["PGD"])]
    rows += [(name, row["accuracy"], PUBLISHED.get(name)) for name, row in found["estimators"].items()]
    return markdown(
        ["noise", "natural accuracy", "accuracy under the noise", "paper: natural", "paper: under the noise"],
        ([name, f"{natural:.1f}", f"{accuracy:.1f}", *(["–"] * 2 if paper is None else [
            f"{PUBLISHED_NATURAL:.1f}", f"{paper:.1f}"])] for name, accuracy, paper in rows)
    ) + (f"\n\nWA-ANE-paper is Eq. 6 as the paper prints it, WA-ANE the corrected rule. The paper's WA-ANE "
         f"({PUBLISHED_WA_ANE}) is neither: its code sends Eq. 6 through a random convolution. The networks differ "
         "from the paper's: compare the distances to PGD.")


def setting_parts(config: BenchmarkConfig, setting: Setting, summary: dict[str, Any]) -> list[str]:
    """Return the parts about a setting: question, summary, figure if there is one, every strength."""
    found, attack = summary["settings"][setting.name]["estimators"], f"PGD-{config.num_steps}"
    sources = ", ".join(map(format_epsilon, setting.sources))
    question = (f"From {attack} noise at {sources}: noise at strengths that are not attacked."
                if setting.targets else
                f"{attack} noise at {sources} and at a random strength up to "
                f"{format_epsilon(config.leave_one_out_max_epsilon)}; each is left out in turn and estimated from the "
                "others. Averages are without the random one.")
    first = next(iter(found.values()))
    means = markdown(
        ["estimator", "mean gap", "mean of absolute gaps", "largest gap", f"of {attack}'s drop", "cosine",
         "equal signs", f"size ({attack}: {first['pgd_ball']:.2f})", "parameters", "ms", f"of {attack}'s time"],
        ([name, with_interval(row, 2), f"{row['mean_absolute_gap']:.2f}",
          f"{signed(row['largest']['gap'])}, {row['largest']['network']}, {strength(row['largest']['epsilon'])}",
          share_of_drop(row["share_of_drop"]), f"{row['cosine']:.3f}", f"{row['sign_agreement']:.3f}",
          f"{row['ball']:.2f}", f"{row['parameters']:,.0f}", three_digits(row["milliseconds"]),
          share_of_time(row["share_of_pgd"])] for name, row in found.items()))
    explained = (f"Averages are over {len(summary['networks'])} networks and the strengths; absolute and largest gaps "
                 "are of single networks at single strengths. Drop: from natural accuracy. Size: mean absolute entry "
                 "of the noise in units of its strength. ms: of an image and a strength.")
    strengths = markdown(
        ["strength", attack, *found],
        ([strength(row["epsilon"]), f"{row['pgd']:.1f}",
          *(gap_cell(other["strengths"][place]) for other in found.values())]
         for place, row in enumerate(first["strengths"])))
    noises = markdown(
        ["strength", *found],
        ([strength(row["epsilon"]), *(" ".join(f"{other['strengths'][place][name]:.2f}" for name in MEANS[:3])
                                      for other in found.values())] for place, row in enumerate(first["strengths"])))
    image = [f"![Gap over strength in {setting.name}](figures/gap-{setting.name}.svg)"] if setting.targets else []
    return [question, means, explained, *image, f"Accuracy under {attack} (natural: {summary['natural']:.1f}), and "
            "under the estimators' noises, each with its gap:", strengths,
            f"Cosine with {attack}'s noise, share of equal signs, and size:", noises]


def overview(summary: dict[str, Any]) -> str:
    """Return the main numbers of every setting as aligned text."""
    blocks = []
    for setting, found in summary["settings"].items():
        rows = [[setting, "mean gap", "mean |gap|", "largest", "of PGD's drop", "of PGD's time"]]
        rows += [[name, with_interval(row, 2), f"{row['mean_absolute_gap']:.2f}", signed(row["largest"]["gap"]),
                  share_of_drop(row["share_of_drop"]), share_of_time(row["share_of_pgd"])]
                 for name, row in found["estimators"].items()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        blocks += ["  ".join([first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(rest, widths[1:], strict=True))])
                   for first, *rest in rows]
        blocks += [f"  {row['estimator']} {row['verdict']} {row['average']}: {with_interval(row, 2)}"
                   for row in found["comparisons"]] + [""]
    return "\n".join([*caveats(summary), *blocks, "gap: accuracy under the estimated noise minus accuracy under PGD, "
                      f"in points; {summary['images']} test images, {len(summary['networks'])} networks"])


# -- figures ----------------------------------------------------------------------------------------------------------

@styled
def gap_figure(config: BenchmarkConfig, setting: Setting, found: dict[str, Any]):
    """Draw every estimator's gap over the strength with its interval; logarithmic beyond a point from zero."""
    from matplotlib.patches import Rectangle
    figure = blank(9, 4.6)
    figure.add_artist(Rectangle((0, 0), 1, 1, transform=figure.transFigure, facecolor=SURFACE, zorder=-1))
    axes = figure.subplots()
    for place, name in enumerate(ESTIMATORS):  # a name keeps its colour, whichever others are measured
        if name not in found["estimators"]:
            continue
        rows = found["estimators"][name]["strengths"]
        x, line = [255 * row["epsilon"] for row in rows], LINES[place // len(COLOURS) % len(LINES)]
        colour = COLOURS[place % len(COLOURS)]
        axes.plot(x, [row["gap"] for row in rows], color=colour, linestyle=line, marker="o", markersize=3, label=name)
        low, high = zip(*(row["interval"] for row in rows), strict=True)
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.axhline(0, color=INK, linewidth=0.9)
    axes.plot([255 * e for e in setting.sources], [0] * len(setting.sources), transform=axes.get_xaxis_transform(),
              color=INK, linestyle="", marker="^", markersize=7, clip_on=False, label="attacked strength")
    axes.set_yscale("symlog", linthresh=1)
    axes.set(xlabel="L∞ strength ε (n/255)", title=setting.name,
             ylabel=f"gap to PGD-{config.num_steps} (points), logarithmic beyond ±1")
    low, high = axes.get_ylim()
    ticks = [tick for tick in sorted({*TICKS, *(-tick for tick in TICKS)}) if low <= tick <= high]
    axes.set_yticks(ticks, [f"{tick:+g}" if tick else "0" for tick in ticks])
    axes.set_xlim(left=0)
    top = axes.secondary_xaxis("top", functions=(lambda x: x / 255, lambda x: x * 255))
    top.set_xlabel("ε in pixels of [0, 1]")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure


def png(figure) -> bytes:
    """Return the figure as PNG without the name of the software, so that the same figure gives the same bytes."""
    from matplotlib import rc_context
    buffer = io.BytesIO()
    with rc_context(STYLE):
        figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()
