"""``python -m wsrnas.report RUN [RUN ...] [--out FOLDER]``."""

from wsrnas.errors import run_program
from wsrnas.report.writing import main

if __name__ == "__main__":
    run_program(main)
