"""Draw a cell on the terminal and as SVG and PNG files: ``python -m wsrnas.plotting CELL [OUTPUT]``."""

from collections.abc import Sequence
from pathlib import Path

from wsrnas.runtime.config import Parser
from wsrnas.runtime.program import run_program


def main(argv: Sequence[str] | None = None) -> None:
    """Draw the cell that the command line names."""
    parser = Parser(prog="wsrnas.plotting",
                                     description="Draw a cell on the terminal and as SVG and PNG files.")
    parser.add_argument("cell", metavar="CELL", help="a published cell's name, a genotype.json, the run directory of "
                        "a search, or a graph of NAS-Bench-201 such as '|nor_conv_3x3~0|+...'")
    parser.add_argument("output", metavar="OUTPUT", type=Path, nargs="?", help="path of the drawing; both "
                        "files are made, whether it ends with .svg, .png or neither; without it, none")
    arguments = parser.parse_args(argv)
    from wsrnas.architectures import cells
    from wsrnas.report.figures.cells import draw_genotype, genotype_text
    genotype = cells.load(arguments.cell)
    print(genotype_text(genotype))
    if arguments.output:
        print(f"drawing: {draw_genotype(genotype, arguments.output)}")


if __name__ == "__main__":
    run_program(main)
