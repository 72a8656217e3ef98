"""The model card: what a network is, how it was made, how robust it is, and what it is not for."""

from dataclasses import dataclass
from typing import Any

from retrain.publishing.evaluation_table import evaluation_table
from retrain.publishing.hub import front_matter
from retrain.publishing.package import SAFETENSORS, Package
from wsrnas.architectures.catalogue import ENTRIES
from wsrnas.complexity import count_parameters, multiply_adds, readable
from wsrnas.report.figures.cells import genotype_text
from wsrnas.runtime.markdown import markdown_table, plain_words


@dataclass(frozen=True)
class Card:
    """Everything that the model card says.

    Args:
        package: The network and what is known about it.
        info: Entry of the model in RobustBench.
        hashes: The sha256 of the files beside the card, by name.
        onnx: Sentence on the ONNX file; empty where there is none.
    """

    package: Package
    info: dict[str, Any]
    hashes: dict[str, str]
    onnx: str

    def text(self) -> str:
        """Return the card in Markdown, with a head that model hubs read."""
        package = self.package
        files = [(f"`{file}`", f"`{digest}`") for file, digest in self.hashes.items()]
        sections = {"How to load it": self.loading(), "Architecture": self.architecture(), "Data": self.data(),
                    "Training": self.trained(), "How robust it is": self.robustness(),
                    "Hardware and time": "\n".join(f"- {line}" for line in package.training.machine) or "Not recorded.",
                    "Intended use and limits": LIMITS, "Licence": LICENCE + self.citation(),
                    "Files": markdown_table(("file", "sha256"), files)}
        head = (f"# {package.name}\n\nA convolutional network trained on {package.images}{self.noise()}: "
                f"{package.architecture}, "
                f"{readable(count_parameters(package.model))} parameters, "
                f"{readable(multiply_adds(package.model, package.image_shape))} multiply-adds per image.")
        below = [f"## {title}\n\n{text}" for title, text in sections.items()]
        return "\n\n".join([front_matter(package, self.info), head, *below]) + "\n"

    def noise(self) -> str:
        """Return whether the training had adversarial noise; empty where that is not recorded."""
        config = self.package.training.config
        loss = config.get("adv_loss", config.get("loss"))
        return "" if loss is None else f" {'without' if loss == 'standard' else 'with'} adversarial noise"

    def loading(self) -> str:
        """Return how to load the network."""
        name, shape = self.package.name, ", ".join(map(str, self.package.image_shape))
        lines = [f"In this folder:\n\n```python\nfrom {name} import load  # {name}.py needs PyTorch "
                 f"alone\n\nnetwork = load()  # reads {name}.pt beside it; images (B, {shape}) in [0,1] -> logits "
                 f"(B, {self.package.description['num_classes']})\n```",
                 f"From a model hub, with its account in place of `USER`:\n\n{FROM_HUB.format(name=name)}"]
        if SAFETENSORS in self.hashes:
            lines.append(f"`{SAFETENSORS}` holds the same weights: "
                         f"`load(safetensors.torch.load_file(\"{SAFETENSORS}\"))`.")
        if self.package.preprocessing:
            lines.append(f"`load()` normalises the images itself. `build()` and the weights in `{name}.pt` are of "
                         "the network behind the normalisation, as RobustBench wants it (preprocessing: "
                         f"`{self.package.preprocessing}`).")
        return "\n\n".join([*lines, *[self.onnx] * bool(self.onnx)])

    def architecture(self) -> str:
        """Return the drawing and the text of the cells, or the origin of a network with a design of its own."""
        searched = self.package.searched
        if isinstance(searched, str):
            entry = ENTRIES[searched]
            return f"{self.package.architecture}: {entry.source}{f' ({entry.note})' if entry.note else ''}."
        what = "Both cells" if len(searched.diagrams()) == 2 else "The cell"
        return f"![{what}](cells.svg)\n\n```\n{genotype_text(searched)}\n```"

    def data(self) -> str:
        """Return which images the network was trained on."""
        held_out = self.package.training.config.get("held_out")
        described = self.package.description
        first = self.package.training.config.get("init_weights")
        nothing_else = "no additional data" if "init_weights" in self.package.training.config else (
            "whether other data were used is not recorded")
        other = f"it began with the weights `{first}`, whose data are not known here" if first else nothing_else
        lines = [f"Trained on {self.package.images} ({described['num_classes']} classes); {other}."]
        if names := self.package.training.class_names:
            names = tuple(map(plain_words, names))
            shown = ", ".join(names) if len(names) <= SHOWN_CLASSES else f"{names[0]} to {names[-1]}, see `config.json`"
            lines.append(f"The classes in the order of the logits: {shown}.")
        if isinstance(limit := self.package.training.config.get("max_train"), int) and limit:
            lines.append(f"Only {limit:,} of the training images were used.")
        if isinstance(held_out, int) and held_out:
            lines.append(f"{held_out:,} images of the training set were held out for selection.")
        return " ".join([*lines, "No test image was seen in training or selection."])

    def trained(self) -> str:
        """Return selection, command and configuration of the training."""
        parts = [self.package.training.selection]
        if self.package.training.command:
            parts.append(f"```bash\n{self.package.training.command}\n```")
        if self.package.training.config:
            rows = [(f"`{field}`", _plain(value)) for field, value in self.package.training.config.items()]
            parts.append("<details><summary>The whole configuration</summary>\n\n"
                         + markdown_table(("field", "value"), rows) + "\n\n</details>")
        return "\n\n".join(parts)

    def robustness(self) -> str:
        """Return every stored evaluation, with warnings first."""
        remarks = [self.info["footnote"]] * bool(self.info["footnote"])
        remarks += [f"{sentence[0].upper()}{sentence[1:]}." for sentence in self.package.measured.missing]
        if self.info["unreliable"]:
            remarks.insert(0, "**These numbers are unreliable: a check of the evaluation failed.**")
        return "\n\n".join([*map(evaluation_table, self.package.evaluations), *remarks])

    def citation(self) -> str:
        """Return the paper of the method; empty if unknown."""
        paper = self.package.publication
        parts = (plain_words(paper.authors), f'"{plain_words(paper.title)}"', plain_words(paper.venue), paper.link)
        known = [part for part in parts if part.strip('"')]
        return f"\n\nThe method: {'. '.join(known)}. The weights were trained with wsrnas." if known else ""


SHOWN_CLASSES = 100
FROM_HUB = """\
```python
import sys
from huggingface_hub import snapshot_download

sys.path.append(snapshot_download("USER/{name}"))
from {name} import load

network = load()
```"""

LIMITS = """\
For research on adversarial robustness: as a baseline, as the target of attacks, as a feature extractor.

What was measured above holds for L-infinity digital perturbations only, of about these strengths, and only as far as
these attacks can tell. Nothing is known about other norms, patches and physical attacks, corruptions such as blur or
fog, or data unlike the training set. Do not rely on it where a mistake can harm someone."""

LICENCE = "Code and weights: MIT, see LICENSE. The data set has its own terms."


def _plain(value: Any) -> str:
    """Return a configuration's value as people read it."""
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
