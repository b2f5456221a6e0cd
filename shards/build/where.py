"""`where=`: an expression over the columns of a table, as Python writes it, and which rows it is true of.

    similarity > 0.3 and width >= 256        0.5 < width / height < 2        NSFW in ['UNLIKELY', 'UNSURE']
    not contains(lower(caption), 'stock')    punsafe is null or punsafe < 0.5   min(width, height) >= 224

The text is never run: it is parsed into Python's syntax tree, of which the few nodes below are known. Null is SQL's: what is
compared with it, or computed from it, is null, and a row of which the whole is null is not taken.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from stillreel.configs import RequestError
from stillreel.configs.settings import nearest

_MOST_CHARACTERS = 10_000
_NULLS = ("null", "NULL")
_TRUTHS = {"true": True, "false": False}
_COMPARE = {ast.Lt: "less", ast.LtE: "less_equal", ast.Gt: "greater", ast.GtE: "greater_equal", ast.Eq: "equal",
            ast.NotEq: "not_equal"}  # fmt: skip
_COMPUTE = {ast.Add: "add_checked", ast.Sub: "subtract_checked", ast.Mult: "multiply_checked", ast.Div: "divide"}
_MEANT = {ast.BitAnd: "and", ast.BitOr: "or", ast.Invert: "not"}


class _Value(NamedTuple):
    """An array or a scalar, and what it is: number, text, truth, list, or null where its type says nothing."""

    data: Any
    kind: str


@dataclass(frozen=True)
class Where:
    """A parsed expression; `columns` are those that it names."""

    text: str
    columns: frozenset[str]
    _tree: ast.expr = field(repr=False, compare=False)

    @classmethod
    def parse(cls, text: str) -> Where:
        """RequestError where the text is no expression of the kind that is known here, or names no column."""
        told = " ".join(text.split("\n")).strip()
        try:
            if not told or len(told) > _MOST_CHARACTERS:
                raise RequestError(
                    f"where: expected an expression of 1 to {_MOST_CHARACTERS:,} characters, e.g. width >= 256"
                )
            tree = ast.parse(told, mode="eval").body
            columns = frozenset(_columns(told, tree))
        except SyntaxError as error:
            at = (
                f" at {told[error.offset - 1 :][:30]!r}"
                if error.offset and error.offset <= len(told)
                else " at its end"
            )
            raise RequestError(
                f"where={told}: it cannot be read{at}: {error.msg}. It is written as in Python, with and, or, not, == and !="
            ) from None
        except (ValueError, RecursionError, MemoryError):
            raise RequestError(
                f"where={told[:60]}...: it cannot be read: null characters, or nested too deep"
            ) from None
        if not columns:
            raise RequestError(f"where={told}: it names no column")
        return cls(told, columns, tree)

    def check(self, schema: pa.Schema) -> None:
        """RequestError where a table of this schema lacks a column, or has it of a type that does not fit."""
        self.mask(schema.empty_table())

    def mask(self, table: pa.Table) -> pa.BooleanArray:
        """Which rows it is true of, without nulls. RequestError as `check`, or where a number is too large to compute with."""
        found = _Evaluation(self.text, table).truth(self._tree).data
        if isinstance(found, pa.Scalar):  # `width > 0 or true`
            found = pa.repeat(found, len(table))
        return found.fill_null(False)


def _columns(text: str, tree: ast.expr) -> list[str]:
    """Every name that is no function's and no constant's."""
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    named = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in called]
    quoted = [
        _quoted(text, node) for node in ast.walk(tree) if isinstance(node, ast.Call) and _name(node.func) == "column"
    ]
    return [name for name in named if name not in _NULLS and name not in _TRUTHS] + quoted


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _quoted(text: str, call: ast.Call) -> str:
    if len(call.args) == 1 and isinstance(call.args[0], ast.Constant) and isinstance(call.args[0].value, str):
        return call.args[0].value
    raise _refusal(text, call, "expected column('NAME'), of a column whose name is no word")


def _refusal(text: str, node: ast.expr, what: str) -> RequestError:
    place = ast.get_source_segment(text, node) or ""
    return RequestError(f"where={text}: at {place!r}, character {node.col_offset + 1}: {what}")


class _Evaluation:
    """One expression over one table."""

    def __init__(self, text: str, table: pa.Table) -> None:
        self._text = text
        self._table = table

    def truth(self, node: ast.expr) -> _Value:
        """The value of a node that must be true or false."""
        return self._expect(node, "truth")

    def _expect(self, node: ast.expr, *expected: str) -> _Value:
        value = self._value(node)
        if value.kind == "null":
            return _Value(value.data.cast(_TYPES[expected[0]]), expected[0])
        if value.kind not in expected:
            raise self._refusal(
                node, f"is {_A[value.kind]}; expected {' or '.join(_A[kind] for kind in expected)}{self._types()}"
            )
        return value

    def _value(self, node: ast.expr) -> _Value:
        evaluate = _NODES.get(type(node))
        if evaluate is None:
            known = f"and, or, not, comparisons, in [...], is null, + - * /, and {', '.join(_FUNCTIONS)}"
            raise self._refusal(node, f"{type(node).__name__} is not known here; known are {known}")
        try:
            return evaluate(self, node)
        except RecursionError:
            raise RequestError(f"where={self._text[:60]}...: nested too deep") from None
        except pa.ArrowException as error:
            raise self._refusal(node, str(error)) from None

    def _name(self, node: ast.Name) -> _Value:
        if node.id in _TRUTHS:
            return _Value(pa.scalar(_TRUTHS[node.id]), "truth")
        if node.id in _NULLS:
            raise self._refusal(node, "null is asked for by `is null` or `is not null`")
        return self._column(node, node.id)

    def _column(self, node: ast.expr, name: str) -> _Value:
        schema = self._table.schema
        if schema.get_field_index(name) < 0:
            raise self._refusal(node, f"no column {name}{nearest(name, schema.names)}{self._types()}")
        data = self._table[name].combine_chunks()
        if kinds.is_dictionary(data.type):
            data = data.dictionary_decode()
        kind = _kind(data.type)
        if not kind:
            raise self._refusal(
                node, f"column {name} is {data.type}; numbers, text, booleans and lists of text can be asked for"
            )
        if kind == "number":
            return _Value(data.cast(pa.int64() if kinds.is_integer(data.type) else pa.float64()), kind)
        return _Value(data.cast(pa.string()) if kind == "text" else data, kind)

    def _constant(self, node: ast.Constant) -> _Value:
        given = node.value
        if isinstance(given, bool):
            return _Value(pa.scalar(given), "truth")
        if isinstance(given, int) and not -(2**63) <= given < 2**63:
            raise self._refusal(node, "an integer beyond 64 bits")
        if isinstance(given, int | float):
            return _Value(pa.scalar(given), "number")
        if isinstance(given, str):
            return _Value(pa.scalar(given, pa.string()), "text")
        raise self._refusal(
            node, "null is asked for by `is null` or `is not null`" if given is None else "no number and no text"
        )

    def _both(self, node: ast.BoolOp) -> _Value:
        combine = pc.and_kleene if isinstance(node.op, ast.And) else pc.or_kleene
        found = self.truth(node.values[0]).data
        for part in node.values[1:]:
            found = combine(found, self.truth(part).data)
        return _Value(found, "truth")

    def _unary(self, node: ast.UnaryOp) -> _Value:
        if isinstance(node.op, ast.Not):
            return _Value(pc.invert(self.truth(node.operand).data), "truth")
        if isinstance(node.op, ast.Invert):
            raise self._refusal(node, "write not, not ~")
        number = self._expect(node.operand, "number").data
        return _Value(pc.negate_checked(number) if isinstance(node.op, ast.USub) else number, "number")

    def _binary(self, node: ast.BinOp) -> _Value:
        if type(node.op) not in _COMPUTE:
            meant = _MEANT.get(type(node.op))
            raise self._refusal(node, f"write {meant}, not its sign" if meant else "only + - * / are computed")
        left, right = (self._expect(side, "number").data for side in (node.left, node.right))
        if isinstance(node.op, ast.Div):  # as Python's: of integers, too, a fraction
            left, right = left.cast(pa.float64()), right.cast(pa.float64())
        return _Value(getattr(pc, _COMPUTE[type(node.op)])(left, right), "number")

    def _compare(self, node: ast.Compare) -> _Value:
        found: Any = None
        for left, op, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
            link = self._link(node, left, op, right)
            found = link if found is None else pc.and_kleene(found, link)
        return _Value(found, "truth")

    def _link(self, whole: ast.expr, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Any:
        if isinstance(op, ast.Is | ast.IsNot):
            if not (_name(right) in _NULLS or (isinstance(right, ast.Constant) and right.value is None)):
                raise self._refusal(whole, "after `is` stands null or not null; equality is ==")
            data = self._value(left).data
            return pc.is_null(data) if isinstance(op, ast.Is) else pc.is_valid(data)
        if isinstance(op, ast.In | ast.NotIn):
            inside = self._inside(left, right)
            return pc.invert(inside) if isinstance(op, ast.NotIn) else inside
        a, b = self._value(left), self._value(right)
        a, b = _typed_as(a, b), _typed_as(b, a)
        if a.kind != b.kind or a.kind == "list" or (a.kind == "truth" and not isinstance(op, ast.Eq | ast.NotEq)):
            raise self._refusal(whole, f"{_A[a.kind]} is compared with {_A[b.kind]}{self._types()}")
        return getattr(pc, _COMPARE[type(op)])(a.data, b.data)

    def _inside(self, left: ast.expr, right: ast.expr) -> Any:
        """`x in [1, 2]` of constants, `'dog' in caption` of text, `'zoom' in moves` of lists of text."""
        if isinstance(right, ast.List | ast.Tuple | ast.Set):
            choices = [self._value(one) for one in right.elts]
            value = _typed_as(self._value(left), choices[0]) if choices else self._value(left)
            if value.kind == "list" or any(
                one.kind != value.kind or not isinstance(one.data, pa.Scalar) for one in choices
            ):
                raise self._refusal(
                    right, f"expected constants of the kind of what is sought, {_A[value.kind]}{self._types()}"
                )
            given = pa.array([one.data.as_py() for one in choices])
            if value.kind == "number" and kinds.is_floating(given.type):
                value = _Value(value.data.cast(pa.float64()), "number")
            found = pc.is_in(value.data, given.cast(value.data.type))
            return pc.if_else(pc.is_valid(value.data), found, pa.scalar(None, pa.bool_()))
        text, within = self._literal(left), self._expect(right, "text", "list")
        return pc.match_substring(within.data, text) if within.kind == "text" else _has(within.data, text)

    def _literal(self, node: ast.expr) -> str:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        raise self._refusal(node, "expected text in quotes")

    def _call(self, node: ast.Call) -> _Value:
        name, given = _name(node.func), node.args
        if isinstance(node.func, ast.Attribute):  # caption.startswith('a') is startswith(caption, 'a')
            name, given = node.func.attr, [node.func.value, *given]
        if name == "column":
            return self._column(node, _quoted(self._text, node))
        if name not in _FUNCTIONS:
            raise self._refusal(
                node, f"no function {name}{nearest(name, _FUNCTIONS)}; known are {', '.join(_FUNCTIONS)}"
            )
        function = _FUNCTIONS[name]
        if node.keywords or len(given) != function.arguments:
            raise self._refusal(
                node, f"expected {name} of {function.arguments} argument{'s' * (function.arguments > 1)}"
            )
        first = self._expect(given[0], *function.takes).data
        if function.arguments == 1:
            return _Value(function.call(first), function.gives)
        second = self._expect(given[1], "number").data if function.gives == "number" else self._literal(given[1])
        return _Value(function.call(first, second), function.gives)

    def _types(self) -> str:
        return "; columns: " + ", ".join(f"{one.name} ({one.type})" for one in self._table.schema)

    def _refusal(self, node: ast.expr, what: str) -> RequestError:
        return _refusal(self._text, node, what)


_NODES: dict[type[ast.expr], Callable[[_Evaluation, Any], _Value]] = {
    ast.Name: _Evaluation._name,
    ast.Constant: _Evaluation._constant,
    ast.BoolOp: _Evaluation._both,
    ast.UnaryOp: _Evaluation._unary,
    ast.BinOp: _Evaluation._binary,
    ast.Compare: _Evaluation._compare,
    ast.Call: _Evaluation._call,
}
_TYPES = {
    "null": pa.float64(),
    "number": pa.float64(),
    "text": pa.string(),
    "truth": pa.bool_(),
    "list": pa.list_(pa.string()),
}
_A = {"number": "a number", "text": "text", "truth": "true or false", "list": "a list", "null": "null"}


class _Function(NamedTuple):
    """A function by its name in an expression: what its first argument is (a second is a number, or text in quotes)."""

    arguments: int
    takes: tuple[str, ...]
    gives: str
    call: Callable[..., Any]


def _typed_as(value: _Value, other: _Value) -> _Value:
    """A column that holds nothing, and so has no type, as one of another's kind."""
    return _Value(value.data.cast(_TYPES[other.kind]), other.kind) if value.kind == "null" else value


def _smallest(a: Any, b: Any) -> Any:
    return pc.min_element_wise(a, b, skip_nulls=False)


def _largest(a: Any, b: Any) -> Any:
    return pc.max_element_wise(a, b, skip_nulls=False)


def _length(data: Any) -> Any:
    found = (
        pc.list_value_length(data)
        if kinds.is_list(data.type) or kinds.is_large_list(data.type)
        else pc.utf8_length(data)
    )
    return found.cast(pa.int64())


def _has(lists: Any, text: str) -> Any:
    """Of each list whether it holds a text; null of a null one."""
    held = pc.list_parent_indices(lists).filter(pc.equal(pc.list_flatten(lists), text).fill_null(False))
    found = pc.is_in(pa.array(range(len(lists)), pa.int64()), held.cast(pa.int64()))
    return pc.if_else(pc.is_valid(lists), found, pa.scalar(None, pa.bool_()))


_FUNCTIONS = {
    "startswith": _Function(2, ("text",), "truth", pc.starts_with),
    "endswith": _Function(2, ("text",), "truth", pc.ends_with),
    "contains": _Function(2, ("text",), "truth", pc.match_substring),
    "matches": _Function(2, ("text",), "truth", pc.match_substring_regex),
    "lower": _Function(1, ("text",), "text", pc.utf8_lower),
    "len": _Function(1, ("text", "list"), "number", _length),
    "abs": _Function(1, ("number",), "number", pc.abs_checked),
    "min": _Function(2, ("number",), "number", _smallest),
    "max": _Function(2, ("number",), "number", _largest),
}


def _kind(kind: pa.DataType) -> str:
    """What a column of a type can be asked for; empty where for nothing."""
    if kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_decimal(kind):
        return "number"
    if kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind):
        return "text"
    if kinds.is_boolean(kind):
        return "truth"
    if (kinds.is_list(kind) or kinds.is_large_list(kind)) and _kind(kind.value_type) == "text":
        return "list"
    return "null" if kinds.is_null(kind) else ""
