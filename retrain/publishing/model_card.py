"""The model card: what a network is, how it was made, how robust it is, and what it is not for."""

from dataclasses import dataclass
from typing import Any

from retrain.publishing.evaluation_table import evaluation_table
from retrain.publishing.robustbench import Publication
from retrain.publishing.training_record import Training
from wsrnas.architectures.searched import Searched
from wsrnas.complexity import readable
from wsrnas.report.figures.cells import genotype_text
from wsrnas.runtime.markdown import markdown_table


@dataclass(frozen=True)
class Card:
    """Everything that the model card says.

    Args:
        name: name of the network and of its files.
        cell: name of the cell.
        genotype: the searched architecture.
        description: architecture of the network, as ``wsrnas.models.description`` returns it.
        parameters: number of parameters.
        multiply_adds: number of multiply-adds for one image.
        preprocessing: preprocessing of pictures of other sizes; None where the data set has one size.
        training: record of the training.
        publication: the paper of the method.
        evaluations: stored evaluations.
        info: entry of the model in RobustBench.
        missing: sentences on what was not measured.
        hashes: sha256 of the files beside the card, by name.
        onnx: sentence on the ONNX file; empty where there is none.
    """

    name: str
    cell: str
    genotype: Searched
    description: dict[str, Any]
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
        """Return the card in Markdown."""
        files = [(file, f"`{digest}`") for file, digest in self.hashes.items()]
        sections = {"How to load it": self.loading(), "Architecture": self.architecture(), "Data": self.data(),
                    "Training": self.trained(), "How robust it is": self.robustness(),
                    "Hardware and time": "\n".join(f"- {line}" for line in self.training.machine) or "Not recorded.",
                    "Intended use and limits": LIMITS, "Licence": LICENCE + self.citation(),
                    "Files": markdown_table(("file", "sha256"), files)}
        standard = self.training.config.get("adv_loss") == "standard"
        head = (f"# {self.name}\n\nA convolutional network trained on {self.description['dataset']} "
                f"{'without' if standard else 'with'} adversarial noise: {self.cell}, C = "
                f"{self.description['init_channels']}, {self.description['layers']} cells, {readable(self.parameters)} "
                f"parameters, {readable(self.multiply_adds)} multiply-adds per image.")
        return "\n\n".join([head, *(f"## {title}\n\n{text}" for title, text in sections.items())]) + "\n"

    def loading(self) -> str:
        """Return how to load the network."""
        shape = ", ".join(map(str, self.description["image_shape"]))
        lines = [f"```python\nfrom {self.name} import load  # {self.name}.py needs PyTorch alone\n\n"
                 f"network = load()  # reads {self.name}.pt beside it; images (B, {shape}) in [0,1] -> logits "
                 f"(B, {self.description['num_classes']})\n```"]
        if self.preprocessing:
            lines.append(f"`load()` normalises the images itself. `build()` and the weights in `{self.name}.pt` are of "
                         "the network behind the normalisation, as RobustBench wants it (preprocessing: "
                         f"`{self.preprocessing}`).")
        return "\n\n".join([*lines, *[self.onnx] * bool(self.onnx)])

    def architecture(self) -> str:
        """Return the drawing and the text of the cells."""
        what = "Both cells" if len(self.genotype.diagrams()) == 2 else "The cell"
        return f"![{what}](cells.svg)\n\n```\n{genotype_text(self.genotype)}\n```"

    def data(self) -> str:
        """Return which images the network was trained on."""
        held_out = self.training.config.get("held_out")
        lines = [f"Trained on {self.description['dataset']} ({self.description['num_classes']} classes); no additional "
                 "data."]
        if self.training.config.get("max_train"):
            lines.append(f"Only {self.training.config['max_train']:,} of the training images were used.")
        if held_out:
            lines.append(f"{held_out:,} images of the training set were held out for selection.")
        return " ".join([*lines, "No test image was seen in training or selection."])

    def trained(self) -> str:
        """Return selection, command and configuration of the training."""
        parts = [self.training.selection]
        if self.training.command:
            parts.append(f"```bash\n{self.training.command}\n```")
        if self.training.config:
            rows = [(f"`{field}`", _plain(value)) for field, value in self.training.config.items()]
            parts.append("<details><summary>The whole configuration</summary>\n\n"
                         + markdown_table(("field", "value"), rows) + "\n\n</details>")
        return "\n\n".join(parts)

    def robustness(self) -> str:
        """Return every stored evaluation, with warnings first."""
        remarks = [self.info["footnote"]] * bool(self.info["footnote"])
        remarks += [f"{sentence[0].upper()}{sentence[1:]}." for sentence in self.missing]
        if self.info["unreliable"]:
            remarks.insert(0, "**These numbers are unreliable: a check of the evaluation failed.**")
        return "\n\n".join([*map(evaluation_table, self.evaluations), *remarks])

    def citation(self) -> str:
        """Return the paper of the method; empty if unknown."""
        known = [part for part in (self.publication.authors, f'"{self.publication.title}"', self.publication.venue,
                                   self.publication.link) if part.strip('"')]
        return f"\n\nThe method: {'. '.join(known)}. The weights were trained with wsrnas." if known else ""


LIMITS = """\
For research on adversarial robustness: as a baseline, as the target of attacks, as a feature extractor.

The network is robust to L-infinity digital perturbations only, of about the strengths above, and only as far as the
attacks above can tell. Nothing is known about other norms, patches and physical attacks, corruptions such as blur or
fog, or data unlike the training set. Do not rely on it where a mistake can harm someone."""

LICENCE = "Code and weights: MIT, see LICENSE. The data set has its own terms."


def _plain(value: Any) -> str:
    """Return a configuration's value as people read it."""
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
