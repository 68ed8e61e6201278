"""How scattered the ideas of the library are: counts that a command takes of this code and of that of an earlier commit.

All counts are read off the sources, nothing is run. Comments and docstrings do not count.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .against import ROOT, source_of

PACKAGE = "src/spikedistill"
# For every kind of thing that is added to the library: one that is there, by all its names in code, and the most files that may
# name it, because whoever adds another one edits as many.
KINDS: dict[str, tuple[tuple[str, ...], int]] = {
    "objective": (("seal-unofficial", "seal_unofficial"), 1),
    "objective input": (("teacher_features",), 2),
    "network": (("sew_resnet18",), 1),
    "data set": (("fashion_mnist",), 1),
    "gradient rule": (("dsr", "Dsr", "Representation"), 3),
}
MOST_HANDS = 2
_PLAIN = ("int", "float", "str", "bool")
# Of C++: `neuron.decay * v_i + currents(t, i)`.
_LIF_IN_CPP = re.compile(r"\bdecay \* \w+ \+ current")


@dataclass(frozen=True)
class Chain:
    """A parameter that is passed on under its own name.

    Attributes:
        parameter: its name.
        functions: those that it goes through, the first one first.
        is_option: whether it is a number, text or switch, or several, where it comes in.
    """

    parameter: str
    functions: tuple[str, ...]
    is_option: bool


class House:
    """The sources of the package: texts by path below it."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.texts = texts
        self.trees = {path: ast.parse(text) for path, text in texts.items() if path.endswith(".py")}

    @classmethod
    def of(cls, commit: str | None = None) -> "House":
        """That of a commit, by any name that git knows; of the files as they lie here by default."""
        if commit is None:
            return cls._below(ROOT)
        with source_of(commit) as source:
            return cls._below(source.parent)

    @classmethod
    def _below(cls, root: Path) -> "House":
        folder = root / PACKAGE
        paths = sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".cpp"))
        return cls({path.relative_to(folder).as_posix(): path.read_text() for path in paths})

    def naming(self, names: tuple[str, ...]) -> list[str]:
        """The files that name a thing: as an identifier, a keyword, or a text that is that name.

        A loss that takes an input as its parameter is part of an objective, not of the input, and does not count.
        """
        return [path for path, tree in self.trees.items() if any(word in names for word in _words(tree, path, names))]

    def chains(self) -> list[Chain]:
        """The longest way of every parameter that goes by its own name through more than two functions, longest first.

        A call is taken for one of every function of the package that has the called name and such a parameter.
        """
        calls, options = _passed_on(self.trees)
        reached = {node for others in calls.values() for node in others}

        @cache
        def longest(node: tuple[str, str], seen: frozenset[tuple[str, str]]) -> tuple[str, ...]:
            rest = [longest(other, seen | {other}) for other in calls[node] if other not in seen]
            return (node[0], *max(rest, key=len, default=()))

        found = [
            Chain(node[1], way, node in options)
            for node in [*calls]
            if node not in reached and len(way := longest(node, frozenset([node]))) > MOST_HANDS
        ]
        return sorted(found, key=lambda chain: (-len(chain.functions), chain.parameter, chain.functions))

    def imports(self) -> list[tuple[str, str]]:
        """What each file imports of the package, not for types only, such as ("models/own.py", "neurons.LIF")."""
        return [(path, module) for path, tree in self.trees.items() for module in _imported(tree, path)]

    def lif_equations(self) -> list[str]:
        """The places that compute decay · membrane + current, as `file:function`, in C++ as `file:line`.

        In Python a sum with a product by something called `decay`, but for sums with a number (`1 + decay * x` is a gradient) and
        moving averages, in whose other term decay stands again.
        """
        places = [
            f"{path}:{function.name}"
            for path, tree in self.trees.items()
            for _, function in _functions(tree)
            if any(map(_is_lif, _own(function)))
        ]
        for path, text in self.texts.items():
            if path.endswith(".cpp"):
                lines = text.splitlines()
                places += [f"{path}:{number}" for number, line in enumerate(lines, 1) if _LIF_IN_CPP.search(line)]
        return sorted(places)


def to_markdown(houses: Mapping[str, House]) -> str:
    """The counts of several versions, side by side, as a table."""
    rows = [["", "goal", *houses], ["---"] * (2 + len(houses))]
    for kind, (names, goal) in KINDS.items():
        found = [str(len(house.naming(names))) for house in houses.values()]
        rows.append([f"files that a new {kind} touches (as `{names[0]}` does)", str(goal), *found])
    chains = [house.chains() for house in houses.values()]
    rows.append(["parameters passed by name through more than two functions", "", *(str(len(each)) for each in chains)])
    options = [str(sum(chain.is_option for chain in each)) for each in chains]
    rows.append(["of these, options: numbers, texts and switches", "", *options])
    longest = [f"{len(each[0].functions)} (`{each[0].parameter}`)" if each else "0" for each in chains]
    rows.append(["the longest way of one, in functions", "", *longest])
    equations = [str(len(house.lif_equations())) for house in houses.values()]
    rows.append(["places where the LIF equation stands", "", *equations])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def details(house: House) -> str:
    """What is behind the counts of a version."""
    lines = [f"{kind}: {', '.join(house.naming(names))}" for kind, (names, _) in KINDS.items()]
    lines += [f"{chain.parameter}: {' > '.join(chain.functions)}" for chain in house.chains()]
    return "\n".join([*lines, f"LIF: {', '.join(house.lif_equations())}"])


def _imported(tree: ast.AST, path: str) -> Iterator[str]:
    match tree:
        case ast.If(test=ast.Name("TYPE_CHECKING")):
            return
        case ast.ImportFrom(level=0, module=str(module)) if module.split(".")[0] == "spikedistill":
            yield from (".".join([*module.split(".")[1:], name.name]) for name in tree.names)
        case ast.ImportFrom(level=level) if level:
            folder = path.split("/")[:-level]
            yield from (".".join([*folder, *filter(None, [tree.module]), name.name]) for name in tree.names)
    for child in ast.iter_child_nodes(tree):
        yield from _imported(child, path)


def _words(tree: ast.AST, path: str, names: tuple[str, ...]) -> Iterator[str]:
    """Identifiers, keywords and texts of a tree, but for docstrings and losses that take one of the names."""
    is_loss = path.startswith("objectives/") and isinstance(tree, ast.FunctionDef) and {*names} & {*_parameters(tree)}
    if is_loss and "self" not in _parameters(tree):  # type: ignore[arg-type]
        return
    match tree:
        case ast.Name(id=word) | ast.Attribute(attr=word) | ast.arg(arg=word) | ast.keyword(arg=str(word)):
            yield word
        case ast.FunctionDef(name=word) | ast.ClassDef(name=word) | ast.Constant(value=str(word)):
            yield word
        case ast.alias(name=word, asname=other):
            yield from (word, other or word)
    for child in ast.iter_child_nodes(tree):
        if not (isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)):
            yield from _words(child, path, names)


def _arguments(function: ast.FunctionDef) -> list[ast.arg]:
    kinds = function.args
    return [*kinds.posonlyargs, *kinds.args, *kinds.kwonlyargs]


def _parameters(function: ast.FunctionDef) -> list[str]:
    return [argument.arg for argument in _arguments(function)]


def _own(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """What is in a function and in none that is defined within it."""
    for child in ast.iter_child_nodes(function):
        if isinstance(child, ast.FunctionDef):
            continue
        yield child
        yield from _own(child)  # type: ignore[arg-type]


def _is_lif(node: ast.AST) -> bool:
    if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Add):
        return False
    return any(
        isinstance(product, ast.BinOp)
        and isinstance(product.op, ast.Mult)
        and (_is_decay(product.left) or _is_decay(product.right))
        and not isinstance(other, ast.Constant)
        and not any(map(_is_decay, ast.walk(other)))
        for product, other in ((node.left, node.right), (node.right, node.left))
    )


def _is_decay(node: ast.AST) -> bool:
    return (isinstance(node, ast.Name) and node.id == "decay") or (
        isinstance(node, ast.Attribute) and node.attr == "decay"
    )


Node = tuple[str, str]  # a function, by its file and name, and a parameter of it


def _passed_on(trees: Mapping[str, ast.Module]) -> tuple[dict[Node, set[Node]], set[Node]]:
    """To which parameters of the same name, of other functions, a function's own are handed as they are; and which are options."""
    known: dict[str, list[tuple[str, list[str]]]] = defaultdict(list)  # by the name that is called
    functions, options = [], set()
    for path, tree in trees.items():
        for owner, function in _functions(tree):
            name = f"{path.removesuffix('.py')}.{owner}{function.name}"
            parameters = [each for each in _parameters(function) if each not in ("self", "cls")]
            called = owner.rstrip(".") if function.name == "__init__" else function.name
            known[called].append((name, parameters))
            functions.append((name, parameters, function))
            options |= {(name, each.arg) for each in _arguments(function) if _is_option(each.annotation)}
    calls: dict[Node, set[Node]] = defaultdict(set)
    for name, parameters, function in functions:
        for call in _own(function):
            if not isinstance(call, ast.Call):
                continue
            target = call.func
            called = target.id if isinstance(target, ast.Name) else getattr(target, "attr", "")
            for other, takes in known.get(called, ()):
                handed = [
                    *(argument.id for place, argument in enumerate(call.args)
                      if isinstance(argument, ast.Name) and takes[place : place + 1] == [argument.id]),
                    *(word.arg for word in call.keywords
                      if isinstance(word.value, ast.Name) and word.value.id == word.arg and word.arg in takes),
                ]  # fmt: skip
                for parameter in {*handed} & {*parameters}:
                    if other != name:
                        calls[name, parameter].add((other, parameter))
    return calls, options


def _is_option(annotation: ast.AST | None) -> bool:
    """Whether a parameter of this type is a number, text or switch, or several of them."""
    if annotation is None:
        return False
    words = {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)}
    return bool(words & {*_PLAIN, "Literal"}) and words <= {*_PLAIN, "Literal", "Sequence", "tuple", "list"}


def _functions(tree: ast.AST, owner: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Every function and method, with the class that it is of."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.FunctionDef):
            yield owner, child
            yield from _functions(child, owner)
        else:
            yield from _functions(child, f"{child.name}." if isinstance(child, ast.ClassDef) else owner)
