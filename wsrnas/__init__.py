"""Search for neural architectures that are robust to adversarial noise: what all programs share.

The names of ``__all__`` are the library's face (docs/API.md): ``from wsrnas import build_model, pgd, train, evaluate``.
Each is imported when it is first used, so that ``import wsrnas`` takes no time. ``__init__.pyi`` gives editors and type
checkers the same names.
"""

from importlib import import_module as _import_module

from wsrnas.runtime.interrupts import hear_during_imports

__version__ = "0.1.0"

hear_during_imports()

_PLACES = {
    "wsrnas.__main__": ("run", "use_programs"),
    "wsrnas.architectures.cells": ("load_cell=load",),
    "wsrnas.attacks": ("attack_mode", "fgsm", "pgd"),
    "wsrnas.complexity": ("count_parameters", "multiply_adds"),
    "wsrnas.data.datasets": ("load_dataset",),
    "wsrnas.data.image_set": ("Augmentation", "DataSet"),
    "wsrnas.data.loader": ("BatchLoader",),
    "wsrnas.data.own": ("own_data",),
    "wsrnas.estimators": ("build_estimator",),
    "wsrnas.evaluation": ("robust_accuracy",),
    "wsrnas.evaluation.results": ("differences",),
    "wsrnas.genotype": ("Genotype",),
    "wsrnas.models": ("build_model", "model_names=names"),
    "wsrnas.network": ("NetworkCIFAR", "NetworkImageNet"),
    "wsrnas.report": ("write_report",),
    "wsrnas.report.curve": ("draw_curve",),
    "wsrnas.report.figures.cells": ("draw_cell=draw_genotype",),
    "wsrnas.runtime.errors": ("InputError",),
    "wsrnas.subjects.from_python": ("evaluate", "result_table"),
    "wsrnas.subjects.opening": ("open_model",),
    "wsrnas.subjects.saving": ("save_model",),
    "wsrnas.training.simple": ("train",),
}
"""The public names by module; ``ours=theirs`` where the module calls it otherwise."""

_PUBLIC = {name.partition("=")[0]: (module, name.rpartition("=")[2])
           for module, names in _PLACES.items() for name in names}
__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'wsrnas' has no attribute {name!r}")
    module, own = _PUBLIC[name]
    globals()[name] = found = getattr(_import_module(module), own)
    return found


def __dir__() -> list[str]:
    """List the public names, for completion."""
    return sorted({*globals(), *__all__})
