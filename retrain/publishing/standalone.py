"""The source of a self-contained Python file: the definitions that a network needs, taken from this project's modules.

Operations, cells and networks are copied from ``wsrnas`` with their comments. Code that only checks, stores or trains
is left out.
"""

import ast
import importlib
import itertools
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

from wsrnas.architectures.catalogue import ENTRIES
from wsrnas.architectures.searched import LAYERS, Searched, space_of
from wsrnas.genotype import KINDS, Genotype

# Methods that are not called to build a network. A class that loses some keeps the first sentence of its docstring.
OMITTED = {"Genotype": ("__post_init__", "diagrams", "to_json", "from_json", "save", "load"),
           "CellGraph": ("__post_init__", "__str__", "from_string", "from_choices", "choices", "nodes", "name",
                         "diagrams", "unique_string", "to_json", "from_json", "save", "load", "_text")}

# The modules of networks with a design of their own, before that of their functions.
BENEATH = ("wsrnas.genotype", *LAYERS, "wsrnas.architectures.blocks")

# Short replacements of definitions that an evaluation does not need.
REPLACED = {"Dropout": '''\
class Dropout(nn.Dropout):
    """Torch's dropout; in the training, the zeros were drawn from a generator of their own."""''',
            "DropPath": '''\
class DropPath(nn.Identity):
    """Drops nothing; during training, the outputs of operations were dropped here if the recipe said so."""''',
            "SharedReLU": '''\
class SharedReLU(nn.ReLU):
    """A ReLU at the beginning of an operation."""''',
            "shared_states": '''\
def shared_states(*inputs: Tensor) -> AbstractContextManager[None]:
    """Do nothing; during training, the operations of a cell shared the ReLUs of their inputs here."""
    return nullcontext()''',
            "concatenate": '''\
def concatenate(tensors: Sequence[Tensor]) -> Tensor:
    """Return the tensors one after another along their channels."""
    return torch.cat(list(tensors), 1)''',
            "dilated_depthwise": '''\
def dilated_depthwise(x: Tensor, weight: Tensor, padding: int, dilation: int) -> Tensor:
    """Return the depthwise convolution of stride 1 of x (B, C, H, W)."""
    return F.conv2d(x, weight, None, 1, padding, dilation, len(weight))''',
            "convolution": '''\
def convolution(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0,
                groups: int = 1, bias: bool = False) -> nn.Conv2d:
    """Return a convolution with square kernels and equal strides."""
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=bias)'''}

RENAMED = {"InputError": "ValueError"}
LINE = 120  # characters


@dataclass(frozen=True)
class Definition:
    """A top-level statement of a module: its text with the comments above it, and the names that it uses."""

    text: str
    uses: frozenset[str]


def definitions(module: ModuleType) -> tuple[dict[str, Definition], dict[str, str]]:
    """Return the definitions of a module, and its imports from outside this project.

    Returns:
        The definitions by name, in their order; and, for each imported name, the statement that imports it alone.
    """
    with open(module.__file__, encoding="utf-8") as file:
        source = file.read()
    lines, found, imports = source.splitlines(), {}, {}
    last, end = "", 0
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports |= dict(_imported(node))
        elif name := _defined(node):
            found[name], last = _definition(name, node, lines, end), name
        elif last and isinstance(node, ast.Expr):  # the docstring of the assignment before it
            text = "\n".join([found[last].text, *lines[end:node.end_lineno]])
            found[last] = Definition(text, found[last].uses)
        end = node.end_lineno
    return found, imports


def _defined(node: ast.stmt) -> str:
    """Return the name that a statement defines; empty for other statements."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return node.name
    target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
    return target.id if isinstance(target, ast.Name) else ""


def _imported(node: ast.Import | ast.ImportFrom) -> Iterable[tuple[str, str]]:
    """Yield the names that an import binds, each with its statement; none for this project's own modules."""
    for alias in node.names:
        origin = node.module if isinstance(node, ast.ImportFrom) else alias.name
        if origin.split(".")[0] != "wsrnas":
            renamed = alias.name + (f" as {alias.asname}" if alias.asname else "")
            start = f"from {origin} import " if isinstance(node, ast.ImportFrom) else "import "
            yield alias.asname or alias.name.split(".")[0], start + renamed


def _definition(name: str, node: ast.stmt, lines: list[str], end: int) -> Definition:
    """Return the definition at ``node``, whose predecessor ends in line ``end``."""
    if name in REPLACED:
        text = REPLACED[name]
        return Definition(text, frozenset(_names(ast.parse(text))))
    start = _first_line(node)
    while start > end and lines[start - 1].startswith("#"):
        start -= 1
    kept = {number: lines[number] for number in range(start, node.end_lineno)}
    omitted = [method for method in getattr(node, "body", []) if getattr(method, "name", "") in OMITTED.get(name, ())]
    for method in omitted:
        for number in range(_first_line(method), method.end_lineno):
            del kept[number]
    if omitted:
        docstring = node.body[0]
        for number in range(docstring.lineno - 1, docstring.end_lineno):
            del kept[number]
        first = ast.get_docstring(node).split("\n\n")[0].replace("\n", " ")
        kept[docstring.lineno - 1] = f'    """{first}"""'
        node.body = [statement for statement in node.body[1:] if statement not in omitted]
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(line for _, line in sorted(kept.items()))).rstrip()
    for old, new in RENAMED.items():
        text = re.sub(rf"\b{old}\b", new, text)
    return Definition(text, frozenset(RENAMED.get(used, used) for used in _names(node)))


def _first_line(node: ast.stmt) -> int:
    """Return the index of the line where a statement begins, decorators included."""
    return min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))]) - 1


def _names(node: ast.AST) -> set[str]:
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def needed(roots: Iterable[str], found: Mapping[str, Definition]) -> set[str]:
    """Return all names that ``roots`` use, directly or through other definitions."""
    names: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name not in names:
            names.add(name)
            waiting += found[name].uses if name in found else ()
    return names


def import_block(names: set[str], imports: Mapping[str, str]) -> str:
    """Return the import statements of ``names``, the standard library's before torch's, one for each module."""
    single: list[str] = []
    collected: dict[str, list[str]] = {}
    for statement in sorted({imports[name] for name in names & set(imports)}):
        if statement.startswith("import "):
            single.append(statement)
        else:
            origin, _, name = statement.removeprefix("from ").partition(" import ")
            collected.setdefault(origin, []).append(name)
    statements = [*single, *(f"from {origin} import {', '.join(sorted(of))}" for origin, of in collected.items())]
    groups = [[s for s in statements if (s.split()[1].split(".")[0] == "torch") is torchs] for torchs in (False, True)]
    return "\n\n".join("\n".join(group) for group in groups if group)


def literal(architecture: Searched) -> str:
    """Return a searched architecture as Python source."""
    if isinstance(architecture, Genotype):
        return genotype_literal(architecture)
    return textwrap.fill(f"GENOTYPE = {architecture!r}", LINE, subsequent_indent="    ", break_long_words=False,
                         break_on_hyphens=False)


def genotype_literal(genotype: Genotype) -> str:
    """Return the genotype as Python source, with one node in each line."""
    lines = ["GENOTYPE = Genotype("]
    for kind in KINDS:
        nodes = genotype.nodes(kind)
        flat = isinstance(getattr(genotype, kind)[0][0], str)
        texts = [", ".join(f'("{operation}", {source})' for operation, source in edges) for edges in nodes]
        if not flat:
            texts = [f"({text}{_one(edges)})" for text, edges in zip(texts, nodes, strict=True)]
        for number, text in enumerate(texts):
            start = f"    {kind}=(" if number == 0 else " " * (len(kind) + 6)
            lines.append(start + text + (f"{_one(texts)})," if number == len(texts) - 1 else ","))
        concat = getattr(genotype, f"{kind}_concat")
        lines.append(f"    {kind}_concat=({', '.join(map(str, concat))}{_one(concat)}),")
    return _wrapped("\n".join([*lines, ")"]))


def _one(items: Sequence) -> str:
    """Return the comma that a tuple of one item needs."""
    return "," if len(items) == 1 else ""


def _wrapped(text: str) -> str:
    """Break the lines that are too long between two edges."""
    broken = []
    for line in text.splitlines():
        indent = " " * (len(re.match(r"[ \w=]*", line)[0]) + line.count("((") + 1)
        while len(line) > LINE:
            cut = line.rindex("), (", 0, LINE) + 2
            broken.append(line[:cut])
            line = indent + line[cut:].lstrip()
        broken.append(line)
    return "\n".join(broken)


def standalone_source(header: str, architecture: Searched | str, network: str, ending: str) -> str:
    """Return the whole file: header, imports, the definitions of cells and network, genotype, ending.

    Args:
        header: The text of the file's docstring.
        architecture: The searched architecture, or the name of a network with a design of its own.
        network: The name of the network's class or function in a module of the architecture.
        ending: Source that follows the genotype; it may use the file's names, ``hashlib`` and ``Path``.
    """
    found: dict[str, Definition] = {}
    imports = {"hashlib": "import hashlib", "Path": "from pathlib import Path"}
    sections = []
    for name in _modules(architecture):
        own, outside = definitions(importlib.import_module(name))
        found, imports = found | own, imports | outside
        sections.append((name.rpartition(".")[2], own))
    kinds = set() if isinstance(architecture, str) else {type(architecture).__name__}
    names = needed({network, *kinds, *_names(ast.parse(ending))}, found)
    escaped = header.replace("\\", "\\\\").replace('"""', "'''")
    blocks = [f'"""{escaped}\n"""', import_block(names, imports)]
    for title, own in sections:
        kept = [definition.text for name, definition in own.items() if name in names and found[name] is definition]
        blocks += [_rule(title), *kept]
    drawn = [] if isinstance(architecture, str) else [literal(architecture)]
    return _spaced([*blocks, _rule("this network"), *drawn, ending.strip()])


def _modules(architecture: Searched | str) -> Sequence[str]:
    """Return the modules that define a network; later ones use earlier ones."""
    if isinstance(architecture, str):
        return *BENEATH, ENTRIES[architecture].module
    space = space_of(architecture)
    assert space is not None
    return space.modules


def _rule(title: str) -> str:
    return f"# ---- {title} ".ljust(LINE, "-")


def _spaced(blocks: list[str]) -> str:
    """Join blocks with two empty lines around functions and classes, and one elsewhere."""
    text = blocks[0]
    for before, block in itertools.pairwise(blocks):
        wide = (_is_block(before) or _is_block(block)) and not before.startswith("# ----")
        text += ("\n\n\n" if wide else "\n\n") + block
    return text + "\n"


def _is_block(text: str) -> bool:
    return re.search(r"^(class|def|@)", text, re.MULTILINE) is not None
