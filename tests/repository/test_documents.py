"""The documents: links and files that exist, short lines, and a README that names every program and script."""

import re
import shlex
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

import wsrnas
from docs.write_tables import MARKED, TABLES, with_tables
from tests.repository.test_repository import PARSERS
from wsrnas.__main__ import PROGRAMS
from wsrnas.runtime.config import parse_config

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
MOST_COLUMNS = 100
MOST_README_LINES = 200
FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
# A path with a folder in it, such as `search/objective.py`; a run directory's own files have none or begin with `runs`.
NAMED_FILE = re.compile(r"(?<![\w/.<>*-])((?:\w[\w.-]*/)+[\w.-]+\.(?:py|sh|sbatch|md|toml|txt|cff|json|npz|png|svg))\b")
MODULE = re.compile(r"python3? -m ([\w.]+)")
NOT_OF_THE_REPOSITORY = ("runs/", "eval/", "genotypes/", "retrain/<", "https:", "data/", "figures/")
# Modules of other projects in commands, and one that a document names because it is gone.
OTHER_MODULES = ("pytest", "pip", "venv", "ruff", "mypy", "pre_commit", "search.vulnerability")


def ids(path):
    return str(path.relative_to(ROOT))


@cache
def text(path):
    return path.read_text(encoding="utf-8")


def anchor(heading):
    """Return the anchor that GitHub gives to a heading."""
    plain = re.sub(r"`|\*|\[|\]\([^)]*\)", "", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def anchors(path):
    return {anchor(line.lstrip("#")) for line in FENCE.sub("", text(path)).splitlines() if line.startswith("#")}


@pytest.mark.parametrize("path", DOCUMENTS, ids=ids)
def test_every_link_leads_somewhere(path):
    prose = FENCE.sub("", text(path))
    links = re.findall(r"\]\(([^)\s]+)\)", prose) + re.findall(r'<img src="([^"]+)"', prose)
    for link in links:
        if re.match(r"https?://|mailto:", link):
            continue
        place, _, section = link.partition("#")
        target = (path.parent / place).resolve() if place else path
        assert target.exists(), link
        assert not section or section in anchors(target), link


@pytest.mark.parametrize("path", DOCUMENTS, ids=ids)
def test_every_file_that_a_document_names_exists(path):
    if path.name == "CHANGELOG.md":  # it names what is gone
        pytest.skip("the changelog names files that are gone")
    old_files = re.sub(r"^# .*, a new file$", "", text(path), flags=re.MULTILINE)
    named = {name for name in NAMED_FILE.findall(old_files) if not name.startswith(NOT_OF_THE_REPOSITORY)}
    assert [name for name in named if not (ROOT / name).exists() and not (path.parent / name).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=ids)
def test_every_module_that_a_document_runs_exists(path):
    if path.name == "CHANGELOG.md":
        pytest.skip("the changelog names modules that are gone")
    modules = set(MODULE.findall(text(path))) - set(OTHER_MODULES)
    assert [module for module in modules if find_spec(module) is None] == []


@pytest.mark.parametrize("path", [*DOCUMENTS, *(ROOT / "wsrnas").rglob("*.md")], ids=ids)
def test_lines_outside_tables_and_code_are_short(path):
    long = [line for line in FENCE.sub("", text(path)).splitlines()
            if len(line) > MOST_COLUMNS and not line.startswith("|")]
    assert long == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=ids)
def test_the_tables_of_a_document_are_those_of_the_code(path):
    assert with_tables(text(path)) == text(path), "python -m docs.write_tables writes them"


def test_every_table_of_the_code_is_in_a_document():
    assert {marked["name"] for path in DOCUMENTS for marked in MARKED.finditer(text(path))} == set(TABLES)


def test_the_map_of_the_code_names_what_its_files_hold():
    section = text(ROOT / "docs" / "CODE.md").partition("## Find an idea")[2].partition("\n## ")[0]
    for row in section.splitlines()[4:]:
        if row.startswith("|"):
            _, files, names = (re.findall(r"`([^`]+)`", cell) for cell in row.strip("|").split("|"))
            sources = "".join(text(ROOT / file) for file in files)
            assert files and [name for name in names if not re.search(rf"^(def |class )?{name}\b", sources, re.M)] == []


# What the loops of docs/RESULTS.md put in.
LOOP_VALUES = {"$seed": "0", "$bound": "rel:0.5", "$loss": "pgd", "$recipe": "racl"}
SHELL_BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)


def commands(path):
    """Yield program and arguments of every command in a document's shell blocks, of scripts too."""
    for block in SHELL_BLOCK.findall(text(path)):
        for line in block.replace("\\\n", " ").splitlines():
            for program, arguments in re.findall(r"python -m (\S+)([^#;&|]*)", line):
                yield program, shlex.split(arguments)
            for script, arguments in re.findall(r"(scripts/\w+\.sh)([^#;&|]*)", line):
                if launched := re.findall(r'^launch (\S+) (.*) "\$@"$', text(ROOT / script), re.MULTILINE):
                    program, own = launched[0]
                    yield program, [*shlex.split(own.replace("${STRENGTHS:-6}", "6")), *shlex.split(arguments)]


@pytest.mark.parametrize("path", DOCUMENTS, ids=ids)
def test_every_command_of_a_document_has_flags_that_the_program_knows(path):
    for program, arguments in commands(path):
        if program in PARSERS:
            parse_config(*PARSERS[program], [LOOP_VALUES.get(word, word) for word in arguments])


def test_commands_in_documents_are_found():
    found = [program for path in DOCUMENTS for program, _ in commands(path)]
    assert set(PARSERS) <= set(found)


def test_the_readme_is_short():
    assert len(text(ROOT / "README.md").splitlines()) <= MOST_README_LINES


def table_rows(path):
    return [line for line in text(path).splitlines() if line.startswith("|")]


def test_the_readme_lists_every_script_with_its_document():
    rows = table_rows(ROOT / "README.md")
    for script in [*(ROOT / "scripts").glob("*.sh"), *(ROOT / "scripts").glob("*/*")]:
        assert any(re.search(rf"\b{re.escape(script.name)}`", row) and "](" in row for row in rows), script.name


def test_the_readme_lists_every_program_with_its_document():
    rows = table_rows(ROOT / "README.md")
    listed = {program for program in PROGRAMS if any(f"`{program}`" in row and "](" in row for row in rows)}
    assert set(PROGRAMS) - listed == {"wsrnas.runtime.launcher"}  # the scripts start it


def test_the_citation_and_the_changelog_are_of_this_version():
    assert f"version: {wsrnas.__version__}\n" in text(ROOT / "CITATION.cff")
    assert f"\n## {wsrnas.__version__}" in text(ROOT / "CHANGELOG.md")
