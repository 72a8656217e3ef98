"""Run ``python -m wsrnas.report RUN [RUN ...] [--out FOLDER]``."""

from wsrnas.report.writing import main
from wsrnas.runtime.program import run_program

if __name__ == "__main__":
    run_program(main)
