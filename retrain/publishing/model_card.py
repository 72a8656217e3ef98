"""The model card: what a network is, how it was made, how robust it is, and what it is not for."""

import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from retrain.publishing.robustbench import Publication, failed_checks
from wsrnas.complexity import readable
from wsrnas.genotype import Genotype
from wsrnas.report.plotting import genotype_text
from wsrnas.runtime import run_files
from wsrnas.runtime.config import format_epsilon

# Fields of a training's configuration that say where it ran and what it printed, not what it did.
PRIVATE = ("runs", "save", "data", "download", "device", "report_freq", "workers", "eval_batch_size", "save_every")


@dataclass(frozen=True)
class Training:
    """What a run directory tells of a training; whatever is unknown is empty.

    Args:
        config: the configuration without what is private to the machine.
        selection: how the epoch of the weights was chosen, in a sentence.
        command: the command line without the machine's paths.
        machine: hardware and software, a sentence each.
    """

    config: dict[str, Any]
    selection: str
    command: str
    machine: tuple[str, ...]


@dataclass(frozen=True)
class Card:
    """Everything that the model card says.

    Args:
        cell: what the cell is called.
        network: as ``wsrnas.models.description``.
        preprocessing: of pictures of other sizes; None where the data set has one size.
        hashes: sha256 of the files beside the card, by name.
        onnx: a sentence on the ONNX file; empty where there is none.
    """

    name: str
    cell: str
    genotype: Genotype
    network: dict[str, Any]
    parameters: int
    multiply_adds: int
    preprocessing: str | None
    training: Training
    publication: Publication
    evaluations: list[dict[str, Any]]
    info: dict[str, Any]
    missing: tuple[str, ...]
    hashes: dict[str, str]
    onnx: str

    def text(self) -> str:
        """The card in Markdown."""
        sections = {"How to load it": self.loading(), "Architecture": self.architecture(), "Data": self.data(),
                    "Training": self.trained(), "How robust it is": self.robustness(),
                    "Hardware and time": "\n".join(f"- {line}" for line in self.training.machine) or "Not recorded.",
                    "Intended use and limits": LIMITS, "Licence": LICENCE + self.citation(),
                    "Files": table(("file", "sha256"), [(file, f"`{digest}`") for file, digest in self.hashes.items()])}
        standard = self.training.config.get("adv_loss") == "standard"
        head = (f"# {self.name}\n\nA convolutional network trained on {self.network['dataset']} "
                f"{'without' if standard else 'with'} adversarial noise: {self.cell}, C = "
                f"{self.network['init_channels']}, {self.network['layers']} cells, {readable(self.parameters)} "
                f"parameters, {readable(self.multiply_adds)} multiply-adds an image.")
        return "\n\n".join([head, *(f"## {title}\n\n{text}" for title, text in sections.items())]) + "\n"

    def loading(self) -> str:
        shape = ", ".join(map(str, self.network["image_shape"]))
        lines = [f"```python\nfrom {self.name} import load  # {self.name}.py needs PyTorch alone\n\n"
                 f"network = load()  # reads {self.name}.pt beside it; images (B, {shape}) in [0,1] -> logits "
                 f"(B, {self.network['num_classes']})\n```"]
        if self.preprocessing:
            lines.append(f"`load()` normalises the images itself. `build()` and the weights in `{self.name}.pt` are of "
                         "the network behind the normalisation, as RobustBench wants it (preprocessing: "
                         f"`{self.preprocessing}`).")
        return "\n\n".join([*lines, *[self.onnx] * bool(self.onnx)])

    def architecture(self) -> str:
        return f"![Both cells](cells.svg)\n\n```\n{genotype_text(self.genotype)}\n```"

    def data(self) -> str:
        held_out = self.training.config.get("held_out")
        lines = [f"Trained on {self.network['dataset']} ({self.network['num_classes']} classes); no additional data."]
        if self.training.config.get("max_train"):
            lines.append(f"Only {self.training.config['max_train']:,} of the training images were used.")
        if held_out:
            lines.append(f"{held_out:,} images of the training set were held out for selection.")
        return " ".join([*lines, "No test image was seen in training or selection."])

    def trained(self) -> str:
        parts = [self.training.selection]
        if self.training.command:
            parts.append(f"```bash\n{self.training.command}\n```")
        if self.training.config:
            rows = [(f"`{field}`", _plain(value)) for field, value in self.training.config.items()]
            parts.append("<details><summary>The whole configuration</summary>\n\n"
                         + table(("field", "value"), rows) + "\n\n</details>")
        return "\n\n".join(parts)

    def robustness(self) -> str:
        remarks = [self.info["footnote"]] * bool(self.info["footnote"])
        remarks += [f"{sentence[0].upper()}{sentence[1:]}." for sentence in self.missing]
        if self.info["unreliable"]:
            remarks.insert(0, "**These numbers are unreliable: a check of the evaluation failed.**")
        return "\n\n".join([*map(evaluation_table, self.evaluations), *remarks])

    def citation(self) -> str:
        known = [part for part in (self.publication.authors, f'"{self.publication.title}"', self.publication.venue,
                                   self.publication.link) if part.strip('"')]
        return f"\n\nThe method: {'. '.join(known)}. The weights were trained with wsrnas." if known else ""


LIMITS = """\
For research on adversarial robustness: as a baseline, as the target of attacks, as a feature extractor.

The network is robust to L-infinity digital perturbations only, of about the strengths above, and only as far as the
attacks above tell. That says nothing of other norms, of patches and physical attacks, of corruptions such as blur or
fog, or of data unlike the training set. Do not rely on it where a mistake can harm someone."""

LICENCE = "Code and weights: MIT, see LICENSE. The data set has its own terms."


# What the attacks of AutoAttack have in place of stored parameters: its standard version's.
OWN_PARAMETERS = {
    "autoattack": "standard version: APGD-CE, APGD-T, FAB-T, Square",
    "apgd-ce": "as in AutoAttack's standard version: 100 steps of adaptive size, a random start, cross-entropy loss"}
LOSSES = {"ce": "cross-entropy"}


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def evaluation_table(document: Mapping[str, Any]) -> str:
    """One stored evaluation: every attack with its parameters, accuracy and interval."""
    rows = [("none", "", "", *_accuracy(document["clean"]))]
    rows += [(row["attack"], strength(row), parameters(row), *_accuracy(row)) for row in document["attacks"]]
    for title, key in (("average over the strengths of PGD", "average_robust"),
                       ("area under accuracy over strength, normalised", "area")):
        value = document.get(key)
        if isinstance(value, dict):
            rows.append((title, "", "", *_accuracy({"accuracy": value.get("accuracy", value.get("value")), **value})))
    lines = [f"Protocol {document.get('protocol', 'unknown')}, {document['images']:,} test images:",
             table(("attack", "strength", "parameters", "accuracy (%)", "95 % interval"), rows)]
    lines += [f"**Failed check: {check}.**" for check in failed_checks(document)]
    checks = document.get("checks") or ()
    for word, outcome in (("passed", True), ("could not be run", None)):
        if names := [check["check"] for check in checks if check["passed"] is outcome]:
            lines.append(f"Checks that {word}: {'; '.join(names)}.")
    return "\n\n".join([*lines, *(f"Warning: {warning}" for warning in document.get("warnings") or ())])


def _accuracy(row: Mapping[str, Any]) -> tuple[str, str]:
    interval = row.get("interval")
    shown = f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}" if interval else ""
    return f"{100 * row['accuracy']:.2f}", shown


def strength(row: Mapping[str, Any]) -> str:
    """Norm and radius of an attack."""
    norm = {"linf": "L-infinity", "l2": "L2"}.get(row["norm"], row["norm"])
    if row["epsilon"] is None:
        return f"{norm}, unbounded"
    return f"{norm} {format_epsilon(row['epsilon']) if row['norm'] == 'linf' else format(row['epsilon'], '.4g')}"


def parameters(row: Mapping[str, Any]) -> str:
    """An attack's other parameters in words."""
    method, steps = row["method"], row.get("steps") or 0
    if method in OWN_PARAMETERS:
        return OWN_PARAMETERS[method]
    if method == "cw-l2":
        return f"{_count(steps, 'step')} of Adam (learning rate 0.01), penalty c = 0.5, from the image"
    if method == "square":
        return f"{_count(steps, 'query', 'queries')}, of logits alone"
    if method == "noise":
        worst = f"the worst of {steps:,} random noises" if steps > 1 else "one random noise"
        return f"{worst}, every pixel up or down by the whole strength"
    # FGSM is stored without a number of steps.
    shown = ["one step" if method == "fgsm" or steps == 1 else _count(steps, "step")]
    if row.get("step_size"):
        shown[0] += f" of {row['step_size']:.4g}"
    if method == "mim":
        shown.append("momentum 1")
    if method == "transfer":
        shown.append(f"made on another network (`{row['source']}`)" if row.get("source") else "made on another network")
    starts, random = row.get("restarts") or 1, row.get("random_start")
    one = "a random start" if random else "from the image"
    shown.append(one if starts == 1 else f"{starts:,} {'random starts' if random else 'starts from the image'}")
    if row.get("loss"):
        shown.append(f"{LOSSES.get(row['loss'], row['loss'])} loss")
    return ", ".join(shown)


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


# ---- what a run directory tells ----------------------------------------------------------------------------------

def training_record(folder: Path, payload: Mapping[str, Any], file_name: str) -> Training:
    """What a run directory and the checkpoint ``payload``, its file ``file_name``, tell of the training."""
    config = payload.get("config") or _json(folder / run_files.CONFIG, {})
    starts = [start for start in _json(folder / run_files.ENVIRONMENT, [])
              if isinstance(start, dict) and start.get("command")]
    public = {field: value for field, value in config.items() if field not in PRIVATE}
    if "arch" in public:
        public["arch"] = "/".join(PurePath(public["arch"]).parts[-2:])
    finished = "" if is_finished(folder) else " The training was not finished."
    return Training(public, selection(public, payload, file_name) + finished,
                    command(starts[-1]) if starts else "", machine(starts, metrics(folder)))


def is_finished(folder: Path) -> bool:
    """Whether a training ended; True, too, for a checkpoint that lies outside a run directory."""
    return (folder / run_files.FINISHED).is_file() or not (folder / run_files.CONFIG).is_file()


def selection(config: Mapping[str, Any], payload: Mapping[str, Any], file_name: str) -> str:
    """How the epoch of the weights was chosen; best.pt holds its selection, the last checkpoint none."""
    best, of = payload.get("best"), f" of {config['epochs']}" if "epochs" in config else ""
    if not best:
        return (f"The weights are those after epoch {payload.get('step', 'unknown')}{of} (`{file_name}`), the last one "
                "trained; no epoch was selected.")
    known = "select_steps" in config and "epsilon" in config
    attack = f"PGD-{config['select_steps']} at {format_epsilon(config['epsilon'])}" if known else "PGD"
    return (f"The weights are those after epoch {best['epoch']}{of} (`{file_name}`), which had the highest accuracy "
            f"under {attack} on the held-out images: {best['robust_accuracy']:.1%} (clean: "
            f"{best['clean_accuracy']:.1%}).")


def command(start: Mapping[str, Any]) -> str:
    """The command line of a recorded start, from the repository's root, without the machine's paths."""
    program, *arguments = start["command"]
    processes = start.get("processes") or 1
    launcher = ["torchrun", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else ["python"]
    words = [*launcher, "-m", ".".join(PurePath(program).with_suffix("").parts[-2:])]
    flag = ""
    for argument in arguments:
        if argument.startswith("--"):
            flag, equals, value = argument.partition("=")
            words.append(flag + (f"={_without_path(flag, value)}" if equals else ""))
        else:
            words.append(_without_path(flag, argument))
    return shlex.join(words)


def _without_path(flag: str, value: str) -> str:
    """A flag's value; of a path what lies inside a machine's folders."""
    if flag in ("--data", "--runs"):
        return flag.removeprefix("--").upper()
    return "/".join(PurePath(value).parts[-2:]) if PurePath(value).is_absolute() else value


def machine(starts: list[dict[str, Any]], rows: list[dict[str, Any]]) -> tuple[str, ...]:
    """Hardware, versions, time and memory."""
    lines = []
    if starts:
        last = starts[-1]
        processes = last.get("processes") or 1
        lines.append(f"{last.get('device')}, {processes} {'process' if processes == 1 else 'processes'}")
        lines.append(f"Python {last.get('python')}, torch {last.get('torch')}, CUDA {last.get('cuda') or 'none'}, "
                     f"code {last.get('git') or 'of an unknown commit'}")
    seconds = sum(row["train"]["seconds"] for row in rows)
    if seconds:
        lines.append(f"{seconds / 3600:.2f} hours of training, selection and checkpoints not counted")
        lines.append(f"{max(row.get('peak_memory_gib', 0.0) for row in rows):.1f} GiB at most, a process")
    return tuple(lines)


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The epochs in ``metrics.jsonl``, each once; a torn line is left out."""
    path = folder / run_files.METRICS
    rows = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
            if row["train"]["seconds"] >= 0:
                rows[row["step"]] = row
        except (ValueError, KeyError, TypeError):
            continue
    return list(rows.values())


def _json(path: Path, otherwise: Any) -> Any:
    """The JSON value in ``path``, if there is one of the type of ``otherwise``."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return otherwise
    return value if isinstance(value, type(otherwise)) else otherwise


def _plain(value: Any) -> str:
    """A configuration's value for people."""
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
