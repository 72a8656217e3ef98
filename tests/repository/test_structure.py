"""The structure of the code: rooms in one order, no circle, small files, small functions."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = "wsrnas"
PROGRAMS = ("search", "retrain", "test_AN_estimator")
MEASUREMENTS = ("benchmarks", "studies")  # they measure the programs, so they import them; nothing imports these
# A room may import itself, the rooms before it, and rooms of its own row.
ROWS = (("runtime",), ("genotype", "quick", "operations", "network", "balls"), ("attacks",),
        ("complexity", "architectures"), ("models", "data"), ("training",), ("estimators",), ("evaluation",),
        ("subjects",), ("report", "plotting"), ("__main__",))
RANK = {room: rank for rank, rooms in enumerate(ROWS) for room in rooms}
MOST_ROOT_FILES = 10
MOST_LINES = 350
MOST_FUNCTION_LINES = 60


def module_name(path):
    """Return the dotted name under which a file is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def product_files():
    """Return the product's Python files by module name."""
    files = [ROOT / "genotypes.py"] + [path for folder in (LIBRARY, *PROGRAMS, *MEASUREMENTS)
                                   for path in (ROOT / folder).rglob("*.py")]
    return {module_name(path): path for path in sorted(files)}


@cache
def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(name):
    """Yield every module of the product that a module imports, in functions too."""
    modules = product_files()
    for node in ast.walk(tree(modules[name])):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: a relative import"
            # ``from package import module`` imports the module; ``from module import name`` the module before the dot.
            wanted = [f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in modules else node.module
                      for alias in node.names]
        else:
            continue
        yield from (module for module in wanted if module in modules)


def room(name):
    """Return the part of the library that a module belongs to."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else ""


LIBRARY_MODULES = [name for name in product_files() if name.split(".")[0] == LIBRARY and name != LIBRARY]


def test_every_part_of_the_library_has_a_place_in_the_order():
    assert {room(name) for name in LIBRARY_MODULES} <= set(RANK)


@pytest.mark.parametrize("name", sorted({room(name) for name in LIBRARY_MODULES}))
def test_a_room_imports_no_room_above_it(name):
    upwards = [(module, imported) for module in LIBRARY_MODULES if room(module) == name
               for imported in imports(module) if room(imported) and RANK[room(imported)] > RANK[name]]
    assert upwards == []


def circle(successors):
    """Return a circle of a graph as a list of its nodes, empty where there is none."""
    done, path = set(), []

    def visit(node):
        if node in path:
            return path[path.index(node):]
        if node in done:
            return []
        path.append(node)
        found = next(filter(None, map(visit, sorted(successors[node]))), [])
        path.pop()
        done.add(node)
        return found

    return next(filter(None, map(visit, sorted(successors))), [])


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.slow
def test_modules_import_one_another_without_a_circle():
    assert circle({name: set(imports(name)) - {name} for name in product_files()}) == []


def test_rooms_import_one_another_without_a_circle():
    rooms = {room(name): set() for name in LIBRARY_MODULES}
    for name in LIBRARY_MODULES:
        rooms[room(name)] |= {room(imported) for imported in imports(name)} - {room(name), ""}
    assert circle(rooms) == []


def unit(name, package):
    """Return the file or the whole sub-folder at the root of a package that a module belongs to."""
    return ".".join(name.split(".")[:package.count(".") + 2])


PACKAGES = [name for name, path in product_files().items() if path.name == "__init__.py"]


@pytest.mark.parametrize("package", PACKAGES)
def test_the_files_and_sub_folders_of_a_package_import_one_another_without_a_circle(package):
    members = [name for name in product_files() if name.startswith(f"{package}.")]
    units = {unit(name, package): set() for name in members}
    for name in members:
        units[unit(name, package)] |= {unit(imported, package) for imported in imports(name) if imported in members}
    assert circle({name: found - {name} for name, found in units.items()}) == []


def test_figures_and_what_they_show_import_no_page():
    lower = ("wsrnas.report.figures", "wsrnas.report.reading")
    for name in product_files():
        if name.startswith(lower):
            assert all(module.startswith(lower) for module in imports(name) if room(module) == "report"), name


def has_main(name):
    return any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree(product_files()[name]).body)


def test_only_measurements_import_a_program():
    programs = {name for name in product_files() if name.split(".")[0] in PROGRAMS and has_main(name)}
    assert {"search.wsr_nas", "retrain.evaluate", "retrain.vulnerability.__main__"} <= programs
    importing = {(name, module) for name in product_files() if name.split(".")[0] not in MEASUREMENTS
                 for module in imports(name) if module in programs}
    assert importing == set()


def test_the_library_imports_neither_a_program_nor_the_published_cells_by_name():
    for name in LIBRARY_MODULES:
        assert not {module.split(".")[0] for module in imports(name)} & {*PROGRAMS, *MEASUREMENTS, "genotypes"}, name


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_imports_the_library_and_no_other_program(program):
    for name in product_files():
        if name.split(".")[0] == program:
            assert {module.split(".")[0] for module in imports(name)} <= {LIBRARY, "genotypes", program}, name


def test_a_search_asks_its_space_about_operations_and_edges():
    facts = {"PRIMITIVES", "OPERATIONS", "KINDS", "EDGES", "NODES", "NONE"}
    for name, path in product_files().items():
        if name.startswith("search.") and not name.startswith("search.spaces"):
            names = {alias.name for node in ast.walk(tree(path)) if isinstance(node, ast.ImportFrom)
                     for alias in node.names}
            assert not names & facts, name


def test_nothing_of_the_product_imports_the_tests():
    for name, path in product_files().items():
        modules = {getattr(node, "module", "") or "" for node in ast.walk(tree(path))
                   if isinstance(node, ast.ImportFrom)}
        assert not {module for module in modules if module.split(".")[0] == "tests"}, name


def test_the_root_of_the_library_holds_the_public_names_alone():
    assert len(list((ROOT / LIBRARY).glob("*.py"))) <= MOST_ROOT_FILES


def test_files_and_functions_are_short():
    long_files = {name: lines for name, path in product_files().items()
                  if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MOST_LINES}
    assert long_files == {}
    long_functions = {f"{name}.{node.name}": lines for name, path in product_files().items()
                      for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                      if (lines := node.end_lineno - node.lineno + 1) > MOST_FUNCTION_LINES}
    assert long_functions == {}


def test_folders_and_those_above_them_are_made_in_one_place():
    """Elsewhere a run directory that the user has deleted would be made anew."""
    makers = {name for name, path in product_files().items() if not name.startswith(MEASUREMENTS)
              and any(isinstance(node, ast.keyword) and node.arg == "parents" for node in ast.walk(tree(path)))}
    assert makers == {"wsrnas.runtime.folders", "wsrnas.data.image_cache"}


def test_files_are_written_from_bytes_never_from_a_view_of_a_buffer():
    """A failed write keeps the view and its buffer; collected together, Python 3.12.1 crashes and 3.13 complains.

    ``getvalue()`` copies no more than ``getbuffer()``.
    """
    views = [name for name, path in product_files().items() for node in ast.walk(tree(path))
             if isinstance(node, ast.Attribute) and node.attr == "getbuffer"]
    assert views == []
