"""YAML as plain text with positions: nothing guessed, nothing dropped, and it never raises."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from shaken_plugin.config import yamlfile
from shaken_plugin.config.yamlfile import MAX_DEPTH, Document, parse, render
from shaken_plugin.errors import Problem


@pytest.fixture(params=["C", "Python"], autouse=True)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both parsers that PyYAML may come with must say the same."""
    monkeypatch.setattr(yamlfile, "_Loader", yaml.CSafeLoader if request.param == "C" else yaml.SafeLoader)


def one_problem(text: str) -> Problem:
    document = parse(text, "file.yaml")
    (problem,) = document.problems
    assert problem.file == "file.yaml"
    return problem


# --- Values -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "0123", "+12155551212", "0x1F", "1_000", "1e3", "12:30:45", "yes", "no", "on", "off", "true", "False", "y",
        "2027-06-30", "2027-06-30T10:00:00Z", ".inf", ".nan", "-0", "=", "1.50",
    ],
)  # fmt: skip
def test_a_scalar_stays_the_text_that_stands_in_the_file(text: str) -> None:
    # SafeLoader turns 0123 into 83 and +12155551212 into an integer.
    assert parse(f"value: {text}", "f").data == {"value": text}
    assert parse(f"- {text}", "f").data == [text]


@pytest.mark.parametrize("text", ["", "~", "null", "Null", "NULL"])
def test_nothing_is_nothing_only_without_quotes(text: str) -> None:
    assert parse(f"value: {text}", "f").data == {"value": None}
    for quote in "'\"":
        assert parse(f"value: {quote}{text}{quote}", "f").data == {"value": text}


@pytest.mark.parametrize(
    ("text", "value"),
    [("'it''s'", "it's"), ('"a\\tb"', "a\tb"), ("|\n  a\n  b\n", "a\nb\n"), (">\n  a\n  b\n", "a b\n"), ("a # b", "a")],
)
def test_quotes_blocks_and_comments_are_yamls_own(text: str, value: str) -> None:
    assert parse(f"v: {text}", "f").data == {"v": value}


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n"])
def test_an_empty_file_has_no_data_and_no_problem(text: str) -> None:
    document = parse(text, "f")
    assert (document.data, document.problems) == (None, [])


@pytest.mark.parametrize("text", ["\ufeffa: b\n", "a: b\r\n", "a: b", "%YAML 1.1\n---\na: b\n...\n"])
def test_byte_order_mark_line_ends_and_markers_do_not_matter(text: str) -> None:
    document = parse(text, "f")
    assert (document.data, document.problems) == ({"a": "b"}, [])


# --- Places -------------------------------------------------------------------------------------


def test_every_key_and_value_has_its_line_and_column() -> None:
    document = parse("a: 1\nb:\n  - x\n  - { c: 'ü', d: y }\n", "f")
    assert document.keys == {("a",): (1, 1), ("b",): (2, 1), ("b", 1, "c"): (4, 7), ("b", 1, "d"): (4, 15)}
    assert document.places == {
        (): (1, 1),
        ("a",): (1, 4),
        ("b",): (3, 3),
        ("b", 0): (3, 5),
        ("b", 1): (4, 5),
        ("b", 1, "c"): (4, 10),
        ("b", 1, "d"): (4, 18),
    }


@pytest.mark.parametrize(
    ("path", "at_key", "place"),
    [
        (("a",), False, (1, 4)),
        (("a",), True, (1, 1)),
        (("a", "missing", 7), False, (1, 4)),
        (("a", "missing"), True, (1, 4)),
        (("missing",), True, (1, 1)),
        ((), False, (1, 1)),
    ],
)
def test_a_problem_stands_at_the_nearest_place_that_is_known(
    path: yamlfile.Path, at_key: bool, place: tuple[int, int]
) -> None:
    document = parse("a: 1\n", "f")
    document.problem(path, "wrong", at_key=at_key)
    assert document.problems == [Problem("f", *place, render(path), "wrong")]


def test_a_problem_of_no_document_stands_at_its_start() -> None:
    document = Document("f")
    document.problem(("a",), "wrong")
    assert str(document.problems[0]) == "f:1:1: a: wrong"


@pytest.mark.parametrize(
    ("path", "text"),
    [((), ""), (("a",), "a"), (("a", 0, "b"), "a[0].b"), ((0,), "[0]"), (("a", 1, 2), "a[1][2]")],
)
def test_paths_read_as_one_writes_them(path: yamlfile.Path, text: str) -> None:
    assert render(path) == text


# --- Mistakes -----------------------------------------------------------------------------------


def test_a_key_that_stands_twice_is_a_problem_at_the_second_and_names_the_first() -> None:
    assert one_problem("a: 1\nb: 2\na: 3\n") == Problem("file.yaml", 3, 1, "a", "stands twice, first in line 1")
    assert parse("a: 1\na: 3\n", "f").data == {"a": "1"}


def test_keys_stand_twice_only_within_one_mapping() -> None:
    assert parse("- a: 1\n- a: 2\n", "f").problems == []


def test_an_alias_is_a_problem_where_it_stands() -> None:
    problem = one_problem("a: &x [1]\nb: *x\n")
    assert (problem.path, "aliases" in problem.message) == ("b", True)


def test_an_alias_of_its_own_collection_ends() -> None:
    assert "aliases" in one_problem("a: &x\n  b: *x\n").message


def test_billion_laughs_ends_at_once() -> None:
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    document = parse("\n".join(lines), "f")
    assert len(document.problems) == 29 * 9


@pytest.mark.parametrize("tag", ["!own", "!!binary", "!!python/object:os.system", "!!set", "!!omap", "!<tag:x,1:y>"])
@pytest.mark.parametrize("value", ["aGk=", "'quoted'", "{a: b}", "[a]"])
def test_a_tag_is_a_problem_where_it_stands(tag: str, value: str) -> None:
    problem = one_problem(f"a: 1\nb: {tag} {value}\n")
    assert (problem.line, problem.path) == (2, "b")
    assert "tags" in problem.message


@pytest.mark.parametrize("text", ["? [a, b]\n: c\n", "{a: b}: c\n", "? {x: y}\n: c\n"])
def test_a_key_that_is_no_name_is_a_problem(text: str) -> None:
    assert one_problem(text).message == "a key must be a plain name"


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("a: b: c\n", 1, 5),
        ("a: 1\n b: 2\n", 2, 3),
        ("a: 'open\n", 2, 1),
        ("a: [1, 2\n", 2, 1),
        ("a:\n\t- b\n", 2, 1),
        ("a: @b\n", 1, 4),
        ("a: *nobody\n", 1, 4),
        ("a: 1\n---\nb: 2\n", 2, 1),
    ],
    ids=["colon", "indent", "quote", "bracket", "tab", "reserved", "alias", "two documents"],
)
def test_what_is_not_yaml_is_one_problem_with_its_place(text: str, line: int, column: int) -> None:
    problem = one_problem(text)
    assert problem.message.startswith("not YAML: ")
    assert problem.line == line
    assert abs(problem.column - column) <= 1  # the two parsers differ by one at times


@pytest.mark.parametrize("text", ["a: \x00", "a: \x07", "\ud800: a"])
def test_characters_that_yaml_does_not_allow_are_a_problem(text: str) -> None:
    document = parse(text, "f")
    assert len(document.problems) == 1
    assert document.problems[0].message.startswith("not YAML: ")


def _nested(kind: str, depth: int) -> str:
    return {
        "flow": "[" * depth + "]" * depth,
        "mapping": "".join("{a: " for _ in range(depth)) + "}" * depth,
        "block": "- " * depth + "x",
    }[kind]


@pytest.mark.parametrize("kind", ["flow", "mapping", "block"])
def test_nesting_is_bounded(kind: str) -> None:
    assert parse(_nested(kind, MAX_DEPTH), "f").problems == []
    problem = one_problem(_nested(kind, MAX_DEPTH + 1))
    assert problem.message == f"nested deeper than {MAX_DEPTH}"
    assert problem.column > MAX_DEPTH


@pytest.mark.parametrize("kind", ["flow", "block"])
def test_hostile_nesting_does_not_use_up_the_stack(kind: str) -> None:
    assert "nested deeper" in one_problem(_nested(kind, 100_000)).message


def test_a_file_that_is_too_long_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yamlfile, "MAX_LENGTH", 10)
    assert parse("a: 4567890", "f").problems == []
    assert one_problem("a: 45678901").message == "longer than 10 characters"


@pytest.mark.parametrize("data", ["text", "[1]", "12"])
def test_a_file_may_be_something_else_than_a_mapping(data: str) -> None:
    document = parse(data, "f")
    expected: Any = ["1"] if data == "[1]" else data
    assert (document.data, document.problems) == (expected, [])
