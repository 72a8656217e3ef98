"""Say one sentence when Ctrl-C comes while a program is still importing its modules, before ``run_program`` listens."""

import sys
from types import TracebackType

PACKAGES = ("wsrnas", "search", "retrain", "test_AN_estimator", "benchmarks", "studies")


def hear_during_imports() -> None:
    """Replace the traceback of Ctrl-C by a sentence, where python runs a module of this project as its program."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    looked_for = sys.argv[:1] == ["-m"]  # python imports the package of the module that it will run
    if looked_for or (spec is not None and spec.name.partition(".")[0] in PACKAGES):
        sys.excepthook = _say_interrupted


def _say_interrupted(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted before anything began; the same command begins", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)
