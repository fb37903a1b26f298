# SPDX-License-Identifier: GPL-2.0-or-later
"""Mutants of a kernel, made systematically: every condition and every effect of the functions that a list names.

The source is parsed (tree-sitter), and each condition, statement, value and flag of a named function becomes a *point*
with a number.  The kernel parameter kvm.apf_mutant selects one point, which then does the wrong thing; all others do
what the source says.  What each kind of point does wrong is said in PointKind.  A point also notes that it was reached,
so that a run of the unmutated kernel tells which scenarios can see a mutant at all (kvm.apf_reached).

Nothing here depends on a release: a function that the tree does not have is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import tree_sitter_c
from tree_sitter import Language, Node, Parser

from harness.artifacts.kernels.mutation_points import FIRST, HEADER, Point, PointKind, definitions, header
from harness.artifacts.kernels.mutation_targets import Targets
from harness.errors import BuildFailed

_C = Language(tree_sitter_c.language())
_CONSTANT = re.compile(r"[A-Z][A-Z0-9_]+\Z")
_TRANSPARENT = {"likely", "unlikely", "WARN_ON_ONCE", "WARN_ON"}
"""Macros whose argument is a condition like any other."""
_NO_VALUE = {"container_of", "list_first_entry", "list_first_entry_or_null"}
"""Macros whose result is a pointer."""
_NO_EFFECT = re.compile(
    r"(might_sleep|lockdep_\w+|BUILD_BUG_ON|WARN_ON(_ONCE)?|(raw_)?spin_(un)?lock\w*|mmap_read_(un)?lock)\("
)
"""Statements that are no points.  A lock that is not taken is a data race that no single run decides, one that is not
given back is a deadlock of the host; the others only check."""
_FLAG = re.compile(r"(FOLL|KVM_FEATURE)_\w+\Z")
"""Constants that are left out where a function is called with them: flags.  Other constants are the function's own."""
_LOOPS = {"while_statement", "for_statement"}
_GIVES = {"assignment_expression", "init_declarator", "return_statement"}


@dataclass(slots=True)
class _Edits:
    """Insertions and replacements of one file, by byte offset."""

    inserts: list[tuple[int, int, bytes]] = field(default_factory=list)

    def around(self, node: Node, before: str, after: str) -> None:
        """Put text around a node; nested nodes stay properly nested."""
        size = node.end_byte - node.start_byte
        self.inserts.append((node.start_byte, -size, before.encode()))
        self.inserts.append((node.end_byte, size - (1 << 30), after.encode()))

    def applied(self, source: bytes) -> bytes:
        """The source with all of them."""
        parts, last = [], 0
        for offset, _, text in sorted(self.inserts, key=lambda e: (e[0], e[1])):
            parts += [source[last:offset], text]
            last = offset
        return b"".join([*parts, source[last:]])


def apply(tree: Path, targets: Targets) -> tuple[Point, ...]:
    """Mutate a source tree in place.

    :raise BuildFailed: none of the functions is in this tree, or a file cannot be written.
    """
    points: list[Point] = []
    try:
        for path in sorted({p for pattern in targets.files for p in tree.glob(pattern)}):
            changed, found = mutate(path.read_bytes(), str(path.relative_to(tree)), targets, FIRST + len(points))
            if found:
                path.unlink()  # hard links to the unmutated file stay as they are
                path.write_bytes(b"#include <linux/kvm_apf_point.h>\n" + changed)
                points += found
        if not points:
            raise BuildFailed("none of the functions to be mutated is in this tree")
        (tree / HEADER).write_text(header(len(points)))
        owner = tree / "virt/kvm/async_pf.c"
        owner.write_bytes(owner.read_bytes() + definitions().encode())
    except OSError as exc:
        raise BuildFailed(f"{exc.filename}: {exc.strerror}: cannot be mutated") from exc
    return tuple(points)


def mutate(source: bytes, file: str, targets: Targets, first: int) -> tuple[bytes, tuple[Point, ...]]:
    """The mutated text of one file, and its points, numbered from ``first``."""
    edits = _Edits()
    points: list[Point] = []
    for function in _find(Parser(_C).parse(source).root_node, "function_definition"):
        name = _name(function)
        if name not in targets.functions:
            continue
        for spot in _Spots(function, targets.functions[name]).found():
            number = first + len(points)
            text = " ".join(spot.text.split())
            points.append(Point(number, file, name, spot.node.start_point.row + 1, spot.kind, text))
            edits.around(spot.node, *_wrapping(spot, number))
    return edits.applied(source), tuple(points)


@dataclass(frozen=True, slots=True)
class _Spot:
    """What is mutated; ``whole``: the statement or expression whose value or part it is."""

    node: Node
    kind: PointKind
    whole: Node | None = None

    @property
    def text(self) -> str:
        """For people: "x = true", "return 0", "LIMIT of n < LIMIT", or just what it is."""
        if self.whole is None:
            return _text(self.node)
        whole = _text(self.whole).rstrip("; \n")
        return whole if self.whole.type in _GIVES else f"{_text(self.node)} of {whole}"


def _wrapping(spot: _Spot, number: int) -> tuple[str, str]:
    match spot.kind:
        case PointKind.NOT:
            return f"(apf_point({number}) != !!(", "))"
        case PointKind.NEVER:
            return f"(!apf_point({number}) && (", "))"
        case PointKind.IGNORED:
            return f"(apf_point({number}) || (", "))"
        case PointKind.SKIP:
            return f"do {{ if (!apf_point({number})) {{ ", " } } while (0);"
        case PointKind.NEIGHBOUR:
            return "((", f") ^ apf_point({number}))"
        case PointKind.ZERO:
            return f"(apf_point({number}) ? 0 : (", "))"


class _Spots:
    """What can be mutated in one function."""

    def __init__(self, function: Node, only: str) -> None:
        self.function = function
        self.only = re.compile(only) if only else None
        declared = function.child_by_field_name("type")
        self.returns = _text(declared) if declared is not None else ""
        pointer = function.child_by_field_name("declarator")
        self.returns_pointer = pointer is not None and pointer.type == "pointer_declarator"
        self.pointers, self.booleans = _locals(function)

    def found(self) -> Iterator[_Spot]:
        """In the order of the source."""
        spots = [s for s in self._all(self.function) if self._wanted(s.node)]
        yield from sorted(spots, key=lambda s: (s.node.start_byte, -s.node.end_byte, s.kind))

    def _wanted(self, node: Node) -> bool:
        """Of a function that does more: the parts that match, and what is inside a part that matches."""
        if self.only is None:
            return True
        part: Node | None = node
        while part is not None and part.type not in ("case_statement", "compound_statement", "function_definition"):
            head = part.child_by_field_name("condition") if part.type in ("if_statement", *_LOOPS) else part
            if head is not None and self.only.search(_text(head)):
                return True
            part = part.parent
        while part is not None and part.type != "function_definition":
            if part.type == "case_statement":
                value = part.child_by_field_name("value")
                return value is not None and self.only.search(_text(value)) is not None
            if part.type == "if_statement" and self.only.search(_text(part.child_by_field_name("condition"))):
                return True
            part = part.parent
        return False

    def _all(self, node: Node) -> Iterator[_Spot]:
        match node.type:
            case "if_statement":
                yield from self._conditions(node.child_by_field_name("condition"))
            case "while_statement" | "for_statement":
                yield from self._loop(node.child_by_field_name("condition"))
            case "do_statement" | "conditional_expression":
                yield from self._conditions(node.child_by_field_name("condition"))
            case "expression_statement":
                yield from self._statement(node)
            case "init_declarator":
                yield from self._value(node.child_by_field_name("declarator"), node.child_by_field_name("value"))
            case "return_statement":
                yield from self._return(node)
            case "call_expression":
                yield from self._flags(node.child_by_field_name("arguments"))
            case "binary_expression" if _operator(node) == "|":
                operands = (node.child_by_field_name("left"), node.child_by_field_name("right"))
                constants = (o for o in operands if o is not None and _CONSTANT.match(_text(o)))
                yield from (_Spot(o, PointKind.ZERO, node) for o in constants)
        for child in node.named_children:
            yield from self._all(child)

    def _conditions(self, node: Node | None) -> Iterator[_Spot]:
        """Each operand of && and ||, negated; a bound of a comparison, one off."""
        if node is None or _text(node) in ("true", "1", "(true)"):
            return
        inner = _operands(node)
        if inner:
            for operand in inner:
                yield from self._conditions(operand)
            return
        bare = _bare(node)
        if _callee(bare) == "IS_ENABLED":
            return  # decided when the kernel is configured
        yield _Spot(node, PointKind.NOT)
        if bare.type == "binary_expression" and _operator(bare) in (">=", "<", ">", "<="):
            right = bare.child_by_field_name("right")
            if right is not None:
                yield _Spot(right, PointKind.NEIGHBOUR, bare)

    def _loop(self, condition: Node | None) -> Iterator[_Spot]:
        """Negating a loop's condition walks off the end of a list; what is asked is whether the loop is needed."""
        if condition is None or _text(condition) in ("true", "1", "(true)"):
            return
        bare = _bare(condition)
        yield _Spot(bare, PointKind.NEVER)
        if bare.type == "binary_expression" and _operator(bare) == "&&":
            right = bare.child_by_field_name("right")
            if right is not None:
                yield _Spot(right, PointKind.IGNORED)

    def _statement(self, node: Node) -> Iterator[_Spot]:
        expression = node.named_children[0] if node.named_children else None
        if expression is None:
            return
        if expression.type == "assignment_expression":
            left, right = expression.child_by_field_name("left"), expression.child_by_field_name("right")
            if left is None or right is None:
                return
            if "->" in _text(left):
                yield _Spot(node, PointKind.SKIP)
            if "->" not in _text(left) or _text(right) in ("true", "false"):
                yield from self._value(left, right)
        elif _NO_EFFECT.match(_text(expression)):
            return
        elif expression.type in ("call_expression", "update_expression"):
            yield _Spot(node, PointKind.SKIP)

    def _value(self, left: Node | None, right: Node | None) -> Iterator[_Spot]:
        """A value that goes into a variable of the function, or a truth value."""
        if left is None or right is None or right.type == "initializer_list":
            return
        name = _text(left)
        if name in self.pointers or left.type in ("pointer_declarator", "array_declarator"):
            return
        if _text(right) in ("true", "false") or name in self.booleans:
            yield _Spot(right, PointKind.NOT, right.parent)
        elif _callee(right) not in _NO_VALUE and _text(right) != "NULL":
            yield _Spot(right, PointKind.NEIGHBOUR, right.parent)

    def _return(self, node: Node) -> Iterator[_Spot]:
        if not node.named_children or self.returns_pointer:
            return
        value = node.named_children[0]
        if _text(value).startswith("-E"):
            yield _Spot(value, PointKind.ZERO, node)
        elif self.returns == "bool":
            yield _Spot(value, PointKind.NOT, node)
        else:
            yield _Spot(value, PointKind.NEIGHBOUR, node)

    def _flags(self, arguments: Node | None) -> Iterator[_Spot]:
        """Flags given to functions, such as FOLL_WRITE."""
        if arguments is not None:
            flags = (a for a in arguments.named_children if _FLAG.match(_text(a)))
            yield from (_Spot(a, PointKind.ZERO, arguments.parent) for a in flags)


def _operands(node: Node) -> list[Node]:
    """What a condition is put together from; empty for one that is not."""
    bare = _bare(node)
    parts: list[Node | None]
    match bare.type:
        case "binary_expression" if _operator(bare) in ("&&", "||"):
            parts = [bare.child_by_field_name("left"), bare.child_by_field_name("right")]
        case "unary_expression" if _operator(bare) == "!":
            inner = bare.child_by_field_name("argument")
            parts = [*_operands(inner)] if inner is not None else []
        case "call_expression" if _callee(bare) in _TRANSPARENT:
            arguments = bare.child_by_field_name("arguments")
            parts = [*arguments.named_children] if arguments is not None else []
        case "conditional_expression":
            parts = [bare.child_by_field_name("consequence"), bare.child_by_field_name("alternative")]
        case _:
            parts = []
    return [p for p in parts if p is not None]


def _bare(node: Node) -> Node:
    """Without the parentheses around it."""
    while node.type == "parenthesized_expression" and node.named_children:
        node = node.named_children[0]
    return node


def _locals(function: Node) -> tuple[frozenset[str], frozenset[str]]:
    """(pointers, truth values) among the function's parameters and variables."""
    pointers, booleans = set(), set()
    for declaration in (*_find(function, "declaration"), *_find(function, "parameter_declaration")):
        kind = declaration.child_by_field_name("type")
        for part in declaration.children_by_field_name("declarator"):
            inner = part.child_by_field_name("declarator") if part.type == "init_declarator" else part
            if inner is None:
                continue
            if inner.type == "pointer_declarator":
                pointers.add(_text(inner).lstrip("* "))
            elif kind is not None and _text(kind) == "bool":
                booleans.add(_text(inner))
    return frozenset(pointers), frozenset(booleans)


def _find(node: Node, kind: str) -> Iterator[Node]:
    if node.type == kind:
        yield node
    for child in node.named_children:
        yield from _find(child, kind)


def _name(function: Node) -> str:
    declarator = function.child_by_field_name("declarator")
    while declarator is not None and declarator.type != "identifier":
        declarator = declarator.child_by_field_name("declarator")
    return _text(declarator) if declarator is not None else ""


def _callee(node: Node) -> str:
    called = node.child_by_field_name("function") if node.type == "call_expression" else None
    return _text(called) if called is not None else ""


def _operator(node: Node) -> str:
    return _text(node.child_by_field_name("operator"))


def _text(node: Node | None) -> str:
    return (node.text or b"").decode(errors="replace") if node is not None else ""
