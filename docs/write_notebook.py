"""Run examples/first_steps.py and write it with its output as a notebook: ``python -m docs.write_notebook``.

The script is divided by ``# %%`` (code) and ``# %% [markdown]`` (text in comments). It runs as one program; what a cell
prints, and the figure or value of its last line, become the cell's output. No Jupyter is needed.
"""

import argparse
import ast
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

EXAMPLE = Path(__file__).parents[1] / "examples" / "first_steps.py"
MARK = "@@cell@@"
SHOW = f'''
def _show(value):
    import base64, io, json
    if hasattr(value, "savefig"):
        buffer = io.BytesIO()
        value.savefig(buffer, format="png", dpi=100, metadata={{"Software": None}})
        print("\\n{MARK}picture " + base64.b64encode(buffer.getvalue()).decode())
    elif value is not None:
        print("\\n{MARK}value " + json.dumps(repr(value)))
'''


def cells(text: str) -> list[tuple[str, str]]:
    """Return the cells of a script: ``markdown`` or ``code``, and the text."""
    found = []
    for head, body in re.findall(r"^# %%(.*)\n((?:(?!# %%).*\n?)*)", text, re.MULTILINE):
        if head.strip() == "[markdown]":
            found.append(("markdown", re.sub(r"^# ?", "", body.strip(), flags=re.MULTILINE)))
        else:
            found.append(("code", body.strip()))
    return found


def program(parts: list[tuple[str, str]]) -> str:
    """Return a program that runs all code cells, with a mark before each, and shows the last value of each."""
    lines = [SHOW]
    for kind, text in parts:
        if kind == "code":
            tree = ast.parse(text)
            if isinstance(last := tree.body[-1], ast.Expr):
                last.value = ast.Call(ast.Name("_show"), [last.value], [])
            lines += [f'print("\\n{MARK}begin")', ast.unparse(ast.fix_missing_locations(tree))]
    return "\n".join(lines)


def run(text: str) -> list[str]:
    """Run the program, and return what each code cell has printed."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "cells.py")
        file.write_text(text, encoding="utf-8")
        done = subprocess.run([sys.executable, "-c", f"import runpy; runpy.run_path({str(file)!r})"], text=True,
                              stdout=subprocess.PIPE, check=True, cwd=EXAMPLE.parents[1])
    return re.sub(r"/\S*/first_steps_\w+", "FOLDER", done.stdout).split(f"\n{MARK}begin\n")[1:]


def outputs(printed: str, number: int) -> list[dict[str, Any]]:
    """Return a cell's printed text as outputs of a notebook."""
    stream, *shown = re.split(rf"\n{MARK}", printed)
    found: list[dict[str, Any]] = []
    if stream.strip():
        found.append({"name": "stdout", "output_type": "stream", "text": stream.strip("\n").splitlines(keepends=True)})
    for entry in shown:
        kind, _, value = entry.partition(" ")
        data = {"image/png": value.strip(), "text/plain": ["<Figure>"]} if kind == "picture" else {
            "text/plain": json.loads(value).splitlines(keepends=True)}
        found.append({"data": data, "execution_count": number, "metadata": {}, "output_type": "execute_result"})
    return found


def notebook(parts: list[tuple[str, str]], printed: list[str]) -> dict[str, Any]:
    """Return the notebook as its file holds it (nbformat 4.5)."""
    entries: list[dict[str, Any]] = []
    number = 0
    for place, (kind, text) in enumerate(parts):
        entry: dict[str, Any] = {"cell_type": kind, "id": f"cell-{place}", "metadata": {},
                                 "source": text.splitlines(keepends=True)}
        if kind == "code":
            number += 1
            entry |= {"execution_count": number, "outputs": outputs(printed[number - 1], number)}
        entries.append(entry)
    return {"cells": entries, "nbformat": 4, "nbformat_minor": 5, "metadata": {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"}}}


def main() -> None:
    """Write the notebook beside its script."""
    argparse.ArgumentParser("python -m docs.write_notebook", description="Run examples/first_steps.py and write it "
                            "with its output as a notebook.").parse_args()
    parts = cells(EXAMPLE.read_text(encoding="utf-8"))
    target = EXAMPLE.with_suffix(".ipynb")
    target.write_text(json.dumps(notebook(parts, run(program(parts))), indent=1, ensure_ascii=False) + "\n",
                      encoding="utf-8")
    print(f"wrote {target}")


if __name__ == "__main__":
    main()
