"""Draw a cell: ``python -m wsrnas.plotting CELL OUTPUT``, as text on the terminal and as SVG and PNG files."""

import sys
from pathlib import Path

from wsrnas.architectures import cells
from wsrnas.report.figures.cells import draw_genotype, genotype_text
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.program import run_program


def main() -> None:
    """Draw the cell that the command line names.

    Raises:
        InputError: not two arguments, or no such cell.
    """
    if len(sys.argv) != 3:
        raise InputError("expected two arguments: python -m wsrnas.plotting CELL OUTPUT (a published cell's name, a "
                         "genotype.json or the run directory of a search; where the drawing goes)")
    genotype = cells.load(sys.argv[1])
    print(genotype_text(genotype))
    print(f"drawing: {draw_genotype(genotype, Path(sys.argv[2]))}")


if __name__ == "__main__":
    run_program(main)
