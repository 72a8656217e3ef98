"""Lines of the log: one for each epoch of a retraining, and its conclusion."""

from collections.abc import Mapping
from typing import Any

from retrain.settings import TrainingConfig
from wsrnas.runtime.config import format_epsilon


def epoch_summary(config: TrainingConfig, epochs: int, row: Mapping[str, Any]) -> str:
    """Return the line of an epoch in the log.

    Args:
        config: recipe of the training.
        epochs: number of complete epochs.
        row: the epoch's row of ``metrics.jsonl``.
    """
    train = row["train"]
    shown = [f"{word} {train[name]:.1%}" for word, name in (("clean", "clean_accuracy"),
                                                          ("robust", "adversarial_accuracy")) if name in train]
    parts = [f"[{epochs}/{config.epochs}] loss {train['loss']:.3f} training {' '.join(shown)}"]
    if "held_out" in row:
        parts.append(f"held out {accuracies(config, row['held_out'])}")
    if "probe" in row:
        parts.append(f"probe {row['probe']['accuracy']:.1%}")
    left = train["seconds"] * (config.epochs - epochs)
    parts.append(f"{train['images_per_second']:.4g} images/s")
    parts.append(f"peak {row['peak_memory_gib']:.1f} GiB")
    return " | ".join([*parts, f"{duration(left)} of training left"])


def conclusion(config: TrainingConfig, best: Mapping[str, Any], last: Mapping[str, Any]) -> str:
    """Return the last line: both networks that are kept, the best of the selection and the last.

    Args:
        config: recipe of the training.
        best: epoch and accuracies of the best selection.
        last: epoch and accuracies of the latest selection.
    """
    if not best["epoch"]:
        return f"training finished; checkpoint.pt is epoch {config.epochs} (no image was held out, no best.pt)"
    return (f"training finished; on held-out images: best.pt, epoch {best['epoch']}, {accuracies(config, best)}; "
            f"checkpoint.pt, epoch {config.epochs}, {accuracies(config, last)}; best.pt has the highest "
            f"{config.selection_rule}")


def accuracies(config: TrainingConfig, selection: Mapping[str, Any]) -> str:
    """Return clean and robust accuracy of a selection, with its attack."""
    return (f"clean {selection['clean_accuracy']:.1%} PGD-{config.select_steps} at "
            f"{format_epsilon(config.epsilon)} {selection['robust_accuracy']:.1%}")


def duration(seconds: float) -> str:
    """Return ``3 h 05 min``, or minutes and seconds below an hour."""
    minutes = int(seconds) // 60
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {int(seconds) % 60:02d} s"
