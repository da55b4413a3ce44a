"""YAML and JSON are read in one way or refused, in a time that their length bounds."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import yaml

from redepth.config.loading import PRESETS
from redepth.io.markup import DEPTH_LIMIT, NODE_LIMIT, TEXT_LIMIT, dump_yaml, parse_json, parse_yaml
from redepth.protocols.loading import PROTOCOLS

BOMB = "a: &a [x, x]\n" + "".join(
    f"{n}: &{n} [*{m}, *{m}]\n" for m, n in zip("abcdefghi", "bcdefghij", strict=True)
)

SHIPPED = sorted([*PRESETS.glob("*.yaml"), *PROTOCOLS.glob("*.yaml")])


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_files_mean_what_they_meant(path: Any) -> None:
    assert parse_yaml(path.read_text()) == yaml.safe_load(path.read_text())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a:", {"a": None}),
        ("a: ~", {"a": None}),
        ("\ufeffa: 1", {"a": 1}),
        ("a: 1e-3", {"a": 0.001}),
        ("a: 1E3", {"a": 1000.0}),
        ("a: .5", {"a": 0.5}),
        ("a: -7", {"a": -7}),
        ("a: .inf", {"a": math.inf}),
        ("a: True", {"a": True}),
        ("a: on", {"a": "on"}),
        ("a: no", {"a": "no"}),
        ("a: 2026-01-31", {"a": "2026-01-31"}),
        ("a: 2026-99-99", {"a": "2026-99-99"}),
        ("a: 1:30", {"a": "1:30"}),
        ("a: '0123'", {"a": "0123"}),
        ('a: "1"', {"a": "1"}),
        ("on: 1", {"on": 1}),
        ("'1': x", {"1": "x"}),
        ("a: |\n  1\n  2\n", {"a": "1\n2\n"}),
        ("{a: [1, {b: 2}], c: []}", {"a": [1, {"b": 2}], "c": []}),
    ],
)
def test_yaml_is_read_by_its_plain_rules(text: str, value: Any) -> None:
    assert parse_yaml(text) == value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("optim: {a: 1}\nprior: {}\noptim: {b: 1}", "line 3: the key 'optim' is there twice"),
        ("{a: 1, a: 1}", "twice"),
        ('a: 1\n"a": 2', "line 2: the key 'a' is there twice"),
        (BOMB, "line 1: anchors and aliases"),
        ("a: *b", "anchors and aliases"),
        ("a: &b 1", "anchors and aliases"),
        ("a: &b {<<: *b}", "anchors and aliases"),
        ("a: !!int x", "tags"),
        ("a: !!python/object/apply:os.system [ls]", "tags"),
        ("a: !!timestamp 2026-99-99", "tags"),
        ("!!set {a, b}", "tags"),
        ("a: 0123", "'0123' could be a text or a number"),
        ("a: 0x1F", "could be"),
        ("a: 0o17", "could be"),
        ("a: 1_000", "could be"),
        ("a: " + "9" * 5000, "more than 18 digits"),
        ("a: 1" + "0" * 5000 + ".0", "too large"),
        ("a: 1e999", "too large"),
        ("1: a", "line 1: the key '1' is not a text"),
        ("null: a", "key 'null' is not a text"),
        ("true: a", "key 'true' is not a text"),
        ("? [a]\n: b", "a key must be a text"),
        ("a: 1\n--- \nb: 1", "line 2: a second document"),
        ("[" * 2000, f"nested more than {DEPTH_LIMIT} deep"),
        ("- " * 2000, "nested more than"),
        ("{a: " * 2000, "nested more than"),
        ("- a\n" * (NODE_LIMIT + 1), "more than 20000 keys and values"),
        ("a" * (TEXT_LIMIT + 1), "longer than"),
        ("a: \x07", "U+0007"),
        ('a: "\\U00110000"', "not valid YAML"),
        ("%YAML " + "9" * 5000 + ".1\n---\na", "not valid YAML"),
        ("a: [1", "line 1: "),
        ("a: b: c", "line 1: "),
        ("a:\n\t- b", "line 2: "),
        ("a: '", "line 1: "),
    ],
)
def test_yaml_that_could_be_misread_is_refused_in_one_line(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)) as error:
        parse_yaml(text)
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 200


@pytest.mark.parametrize(
    "value",
    [
        {"a": text}
        for text in (
            "on",
            "1",
            "1e3",
            "0o17",
            "1_0",
            "2026-01-31",
            "",
            "~",
            "x: y",
            "#",
            "*a",
            "😀",
            "a\nb",
            "a\x85b",
            "a\u2028b \u2029",
            ".nan",
        )
    ]
    + [{"a": 1e-7, "b": [1, 2.5, None, True], "c": {"d": math.inf}}],
)
def test_what_is_written_is_read_back(value: Any) -> None:
    assert parse_yaml(dump_yaml(value)) == value


def test_a_list_that_stands_twice_is_written_twice() -> None:
    shared = [1, 2]
    assert parse_yaml(dump_yaml({"a": shared, "b": shared})) == {"a": shared, "b": shared}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * 100_000, "nested more than 100 deep"),
        ('{"a":' * 2000, "nested more than"),
        ('{"a": 1, "a": 2}', "the key 'a' is there twice"),
        ("9" * 5000, "more than 100 digits"),
        ("NaN", "NaN"),
        ("[-Infinity]", "Infinity"),
        ("[1e999]", "too large"),
        ("{", "line 1: "),
        ("", "line 1: "),
        ('"' + "\\" * 100_001, "line 1: "),
    ],
)
def test_json_is_refused_in_one_line(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)) as error:
        parse_json(text)
    assert "\n" not in str(error.value)


def test_infinity_is_read_where_it_is_allowed() -> None:
    assert parse_json("[-Infinity, Infinity]", infinite=True) == [-math.inf, math.inf]
    with pytest.raises(ValueError, match="NaN"):
        parse_json("NaN", infinite=True)


def test_json_is_read() -> None:
    limit = 10**30
    text = f'{{"a": ["[[[\\"{{", {limit}, 1.5, null]}}'
    assert parse_json(text) == {"a": ['[[["{', limit, 1.5, None]}
