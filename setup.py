"""Put the programs into the wheel, in ``wsrnas/programs``; pyproject.toml says everything else.

A package called ``search`` in everyone's environment would hide other projects' modules. There they are no packages of
the environment; the command ``wsrnas`` finds them (``wsrnas/__main__.py``). An editable installation uses the checkout.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PROGRAMS = ("search", "retrain", "test_AN_estimator")
FILES = ("genotypes.py", "LICENSE")  # programs import the first whatever the folder of the user holds; export copies


class WithPrograms(build_py):
    """Build the library, then copy the programs into it."""

    def run(self) -> None:
        """Build."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, "wsrnas", "programs")
        shutil.rmtree(target, ignore_errors=True)
        for name in PROGRAMS:
            shutil.copytree(name, target / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        for name in FILES:
            shutil.copy2(name, target / name)


setup(cmdclass={"build_py": WithPrograms})
