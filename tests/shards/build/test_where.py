"""`where=`: what it takes is what Python takes, with SQL's null; what it cannot mean is said with its place and the columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillreel.configs import RequestError
from stillreel.shards.build.where import Where

TABLE = pa.table(
    {
        "width": pa.array([10, 300, None], pa.int32()),
        "similarity": pa.array([0.2, 0.31, 0.5], pa.float32()),
        "caption": ["a dog", "A Cat", None],
        "moves": [["zoom", "pan"], [], None],
        "safe": [True, None, False],
        "empty": pa.nulls(3),
        "picture": [b"x", b"y", None],
        "odd name": [1, 2, 3],
        "source": pa.array(["a", "b", "a"]).dictionary_encode(),
        "hash": pa.array([1, 2**63, 3], pa.uint64()),
    }
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("similarity > 0.3 and width >= 256", [1]),
        ("not width > 20", [0]),
        ("5 < width < 100", [0]),
        ("width in [10, 11.5]", [0]),
        ("width not in (10,)", [1]),
        ("width in []", []),
        ("caption is null", [2]),
        ("caption is not null", [0, 1]),
        ("caption is None", [2]),
        ("'dog' in caption", [0]),
        ("'zoom' in moves", [0]),
        ("'zoom' not in moves", [1]),
        ("len(moves) > 1", [0]),
        ("len(caption) == 5", [0, 1]),
        ("caption.startswith('a')", [0]),
        ("lower(caption).startswith('a')", [0, 1]),
        ("endswith(caption, 'Cat')", [1]),
        ("matches(caption, '(dog|Cat)$')", [0, 1]),
        ("safe", [0]),
        ("not safe", [2]),
        ("safe == true", [0]),
        ("safe in [false]", [2]),
        ("empty > 3 or empty == 'x' or empty or 'x' in empty or empty in [1] or empty == empty", []),
        ("empty is null", [0, 1, 2]),
        ("column('odd name') * 2 - 1 >= 3", [1, 2]),
        ("1 / width < 0.01", [1]),
        ("min(width, 20) + max(similarity, 1) == 21", [1]),
        ("abs(-width) > 200", [1]),
        ("source == 'a'", [0, 2]),
        ("width > 0 or true", [0, 1, 2]),
        ("width >\n 20", [1]),
    ],
)
def test_rows_are_taken_as_python_would_take_them(text: str, expected: list[int]) -> None:
    mask = Where.parse(text).mask(TABLE).to_pylist()
    assert [row for row, taken in enumerate(mask) if taken] == expected
    Where.parse(text).check(TABLE.schema)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "expected an expression of 1 to 10,000 characters"),
        ("width >", "cannot be read at its end"),
        ("width = 3", "cannot be read at '= 3'.* ==,? and !="),
        ("width AND safe", "cannot be read at 'AND safe'.* with and, or, not"),
        ("1 < 2", "it names no column"),
        ("__import__('os').system('ls')", "it names no column"),
        ("(" * 500, "cannot be read"),
        ("-" * 9000 + "width > 0", "nested too deep"),
        (
            "widht > 3",
            r"at 'widht', character 1: no column widht; did you mean 'width'\?; columns: width \(int32\), sim",
        ),
        ("safe and caption > 3", "at 'caption > 3', character 10: text is compared with a number; columns: width"),
        ("width", "at 'width', character 1: is a number; expected true or false"),
        ("moves == 'zoom'", "a list is compared with text"),
        ("'a' < safe", "text is compared with true or false"),
        ("true < safe", "true or false is compared with true or false"),
        ("(width > 3) & safe", "write and, not its sign"),
        ("~safe", "write not, not ~"),
        ("width ** 2 > 3", r"only \+ - \* / are computed"),
        ("picture == 'x'", "column picture is binary; numbers, text, booleans and lists of text can be asked for"),
        ("width == null", "null is asked for by `is null`"),
        ("width is 3", "equality is =="),
        ("width in [3, 'x']", "expected constants of the kind of what is sought, a number"),
        ("width in [width]", "expected constants"),
        ("wide(width)", "no function wide; known are startswith"),
        ("startwith(caption, 'a')", "no function startwith; did you mean 'startswith'"),
        ("startswith(caption)", "expected startswith of 2 arguments"),
        ("startswith(caption, caption)", "expected text in quotes"),
        ("matches(caption, '(')", "Invalid regular expression"),
        ("len(width) > 1", "is a number; expected text or a list"),
        ("width.real > 1", "Attribute is not known here"),
        ("[width for width in moves]", "ListComp is not known here"),
        ("column(width) > 1", r"expected column\('NAME'\)"),
        ("width * 9223372036854775807 > 1", "overflow"),
        ("width > 9223372036854775808", "an integer beyond 64 bits"),
        ("hash > 3", "9223372036854775808 not in range"),
    ],
)
def test_what_it_cannot_mean_is_said(text: str, why: str) -> None:
    with pytest.raises(RequestError, match=why):
        Where.parse(text).mask(TABLE)


def test_it_says_which_columns_it_needs_and_checks_them_without_a_row() -> None:
    where = Where.parse("not contains(lower(caption), 'x') and column('odd name') > width or true is null")
    assert where.columns == {"caption", "odd name", "width"}
    with pytest.raises(RequestError, match="no column width"):
        where.check(TABLE.drop_columns(["width"]).schema)


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "i": st.none() | st.integers(-50, 50),
            "x": st.none() | st.floats(-50, 50).map(lambda x: round(x, 2)),
            "t": st.none() | st.text("abé ", max_size=4),
            "b": st.none() | st.booleans(),
        }
    ),
    max_size=8,
)
SCHEMA = pa.schema([("i", pa.int64()), ("x", pa.float64()), ("t", pa.string()), ("b", pa.bool_())])
number = st.deferred(
    lambda: (
        st.sampled_from(["i", "x", "len(t)"])
        | st.integers(-9, 9).map(str)
        | st.floats(-9, 9).map(lambda x: f"{x:.2f}")
        | st.tuples(number, st.sampled_from("+-*"), number).map(lambda p: f"({p[0]} {p[1]} {p[2]})")
        | number.map(lambda one: f"(-{one})")
        | number.map(lambda one: f"abs({one})")
        | st.tuples(st.sampled_from(["min", "max"]), number, number).map(lambda p: f"{p[0]}({p[1]}, {p[2]})")
    )
)
text = st.sampled_from(["t", "'a'", "'b é'", "lower(t)"])
order = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
truth = st.deferred(
    lambda: (
        st.sampled_from(
            ["b", "t is null", "x is not null", "'a' in t", "i not in [1, 2, -3]", "t in ['a', '']", "b in [true]"]
        )
        | st.tuples(number, order, number, order, number).map(" ".join)
        | st.tuples(text, order, text).map(" ".join)
        | st.tuples(truth, st.sampled_from(["==", "!="]), truth).map(lambda p: f"({p[0]}) {p[1]} ({p[2]})")
        | truth.map(lambda one: f"not ({one})")
        | st.tuples(truth, st.sampled_from(["and", "or"]), truth).map(lambda p: f"({p[0]}) {p[1]} ({p[2]})")
    )
)


def reference(text: str, row: Mapping[str, Any]) -> bool | None:
    """Three-valued evaluation of a tree, a node at a time, by Python's own operators."""
    import ast
    import operator as op

    binary: dict[type[ast.AST], Any] = {ast.Add: op.add, ast.Sub: op.sub, ast.Mult: op.mul}
    binary |= {ast.Lt: op.lt, ast.LtE: op.le, ast.Gt: op.gt, ast.GtE: op.ge, ast.Eq: op.eq, ast.NotEq: op.ne}
    binary |= {ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b}
    calls = {"len": len, "abs": abs, "lower": str.lower, "min": min, "max": max}

    def conjunction(values: Sequence[Any]) -> bool | None:
        return False if any(one is False for one in values) else None if None in values else True

    def value(node: ast.AST) -> Any:
        match node:
            case ast.Name("true"):
                return True
            case ast.Name(name):
                return row[name]
            case ast.Constant(constant):
                return constant
            case ast.List(items):
                return [value(one) for one in items]
            case ast.UnaryOp(ast.Not(), inner):
                found = value(inner)
                return None if found is None else not found
            case ast.UnaryOp(_, inner):
                found = value(inner)
                return None if found is None else -found
            case ast.BinOp(left, operator, right):
                a, b = value(left), value(right)
                return None if a is None or b is None else binary[type(operator)](a, b)
            case ast.Call(ast.Name(name), arguments):
                values = [value(one) for one in arguments]
                return None if None in values else calls[name](*values)
            case ast.BoolOp(ast.And(), parts):
                return conjunction([value(one) for one in parts])
            case ast.BoolOp(ast.Or(), parts):
                found = conjunction([None if one is None else not one for one in map(value, parts)])
                return None if found is None else not found
            case ast.Compare(left, [ast.Is()], _):
                return value(left) is None
            case ast.Compare(left, [ast.IsNot()], _):
                return value(left) is not None
            case ast.Compare(left, operators, rights):
                sides = [value(one) for one in (left, *rights)]
                return conjunction(
                    [
                        None if a is None or b is None else binary[type(operator)](a, b)
                        for a, operator, b in zip(sides, operators, sides[1:], strict=False)
                    ]
                )
        raise AssertionError(node)

    found = value(ast.parse(text, mode="eval").body)
    assert found is None or isinstance(found, bool)
    return found


@given(truth, ROWS)
def test_any_expression_takes_what_python_takes(text: str, rows: list[dict[str, Any]]) -> None:
    named = f"({text}) and (b == b or b is null)"  # names a column whatever was drawn
    mask = Where.parse(named).mask(pa.Table.from_pylist(rows, SCHEMA)).to_pylist()
    assert mask == [bool(reference(named, row)) for row in rows]


@given(st.text("iwx<>=().,[]'\" +-*/~&|0123and or not in is null lambda:@{}\n\\", max_size=40))
def test_no_text_breaks_it(text: str) -> None:
    try:
        where = Where.parse(text)
        where.mask(pa.table({"i": [1, None], "x": [0.5, None]}))
    except RequestError as error:
        assert str(error).startswith("where")
