"""Draw a cell on the terminal and as SVG and PNG files: ``python -m wsrnas.plotting CELL OUTPUT``."""

import sys
from pathlib import Path

from wsrnas.architectures import cells
from wsrnas.report.figures.cells import draw_genotype, genotype_text
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.program import run_program


def main() -> None:
    """Draw the cell that the command line names.

    Raises:
        InputError: There are not two arguments, or there is no such cell.
    """
    if len(sys.argv) != 3:
        raise InputError(f"{len(sys.argv) - 1} arguments; expected two: python -m wsrnas.plotting CELL OUTPUT, where "
                         "CELL is a published cell's name, a genotype.json or the run directory of a search, and "
                         "OUTPUT is the path of the drawing")
    genotype = cells.load(sys.argv[1])
    print(genotype_text(genotype))
    print(f"drawing: {draw_genotype(genotype, Path(sys.argv[2]))}")


if __name__ == "__main__":
    run_program(main)
