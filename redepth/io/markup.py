"""Parse YAML and JSON strictly: each text is read in one way, or refused.

A user's settings and the files of a checkpoint may come from anywhere. So a text is bounded in size, depth
and length of numbers, has no key twice, and needs no more time than its length allows.

YAML is read by the rules of its version 1.2, in which ``on``, ``yes``, ``2026-01-31`` and ``1:30`` are texts
and ``1e-3`` is a number. Anchors, aliases and tags are refused, and numbers that versions of YAML read
differently (``0123``, ``0x1F``).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any, NoReturn

import yaml

TEXT_LIMIT = 2**17
"""Largest YAML text in characters."""
DEPTH_LIMIT = 32
"""Deepest nesting."""
NODE_LIMIT = 20_000
"""Most keys and values of a YAML text."""
DIGIT_LIMIT = 18
"""Most digits of a whole number in YAML: larger ones do not fit into 64 bits."""
JSON_DIGIT_LIMIT = 100
"""Most digits of a whole number in JSON: tokenizers write 10^30 for no limit."""
JSON_DEPTH_LIMIT = 100

_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_DECIMAL = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_OTHER_BREAKS = frozenset("\x85\u2028\u2029")
"""The characters besides CR and LF that are the end of a line in YAML 1.1."""
_AMBIGUOUS = re.compile(r"[-+]?(0[0-9_]+(\.[0-9_]*)?|0[xob][0-9a-fA-F_]+|[0-9][0-9_]*_[0-9_.]*)")


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text: mappings with texts as keys, lists, texts, numbers, booleans, None.

    Raises:
        ValueError: the text is not valid, too large, or could be read in several ways; one line that names
            the line of the text.
    """
    if len(text) > TEXT_LIMIT:
        raise ValueError(f"longer than {TEXT_LIMIT} characters")
    try:
        return _Builder().build(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        _refuse(" ".join((error.problem or error.context or "not valid YAML").split()), mark)
    except yaml.reader.ReaderError as error:
        code = error.character if isinstance(error.character, int) else 0
        raise ValueError(f"the character U+{code:04X} is not allowed in YAML") from None
    except _Refused as error:
        raise ValueError(str(error)) from None
    except Exception as error:  # the parser raises what its own calls raise, such as a ValueError of chr()
        raise ValueError(f"not valid YAML ({type(error).__name__})") from None


class _Refused(Exception):
    """A text is refused; the message is one line."""


def _refuse(problem: str, mark: Any) -> NoReturn:
    where = "" if mark is None else f"line {mark.line + 1}: "
    raise ValueError(where + problem)


def _reject(problem: str, event: yaml.Event) -> NoReturn:
    mark: Any = event.start_mark
    raise _Refused(f"line {mark.line + 1}: {problem}")


class _Builder:
    """Builds one value from the parser's events, without recursion."""

    def __init__(self) -> None:
        self._open: list[dict[str, Any] | list[Any]] = []
        self._keys: list[str | None] = []
        self._nodes = 0
        self._result: Any = None

    def build(self, text: str) -> Any:
        documents = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    _reject("a second document starts here; write one alone", event)
            elif isinstance(event, yaml.CollectionEndEvent):
                self._open.pop()
                self._keys.pop()
            elif isinstance(event, yaml.NodeEvent):
                self._node(event)
        return self._result

    def _node(self, event: yaml.NodeEvent) -> None:
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            _reject("anchors and aliases are not supported; write the values out", event)
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag is not None:
            _reject("tags are not supported; write the plain value", event)
        self._nodes += 1
        if self._nodes > NODE_LIMIT:
            _reject(f"more than {NODE_LIMIT} keys and values", event)
        if isinstance(event, yaml.ScalarEvent):
            self._add(self._scalar(event), event)
            return
        if len(self._open) == DEPTH_LIMIT:
            _reject(f"nested more than {DEPTH_LIMIT} deep", event)
        made: dict[str, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
        self._add(made, event)
        self._open.append(made)
        self._keys.append(None)

    def _scalar(self, event: yaml.ScalarEvent) -> Any:
        # The first flag says that the text is plain: without quotes, and no block.
        plain = event.implicit[0]
        is_key = bool(self._open) and isinstance(self._open[-1], dict) and self._keys[-1] is None
        if not plain:
            return event.value
        try:
            value = plain_value(event.value)
        except ValueError as error:
            _reject(str(error), event)
        if is_key and not isinstance(value, str):
            _reject(f"the key {_quoted(event.value)} is not a text; put it in quotes", event)
        return value

    def _add(self, value: Any, event: yaml.NodeEvent) -> None:
        if not self._open:
            self._result = value
            return
        parent = self._open[-1]
        if isinstance(parent, list):
            parent.append(value)
            return
        key = self._keys[-1]
        if key is None:
            if not isinstance(value, str):
                _reject("a key must be a text", event)
            if value in parent:
                _reject(f"the key {_quoted(value)} is there twice; remove one", event)
            self._keys[-1] = value
        else:
            parent[key] = value
            self._keys[-1] = None


def plain_value(text: str) -> Any:
    """Return the value of a text without quotes.

    Raises:
        ValueError: it is a number that is too long, or that versions of YAML read differently.
    """
    if text in _WORDS:
        return _WORDS[text]
    if _WHOLE.fullmatch(text):
        if len(text.lstrip("+-")) > DIGIT_LIMIT:
            raise ValueError(f"a number of more than {DIGIT_LIMIT} digits")
        return int(text)
    if _AMBIGUOUS.fullmatch(text):
        raise ValueError(
            f"{_quoted(text)} could be a text or a number; put it in quotes, or write it as a decimal number"
        )
    return _float(text) if _DECIMAL.fullmatch(text) else text


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {_quoted(text)} is too large")
    return value


class _Dumper(yaml.SafeDumper):
    """Puts texts in quotes that `parse_yaml` would read as something else, and writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text_node(dumper: _Dumper, text: str) -> yaml.Node:
    if _OTHER_BREAKS.intersection(text):
        # Escaped in double quotes: as they are, YAML reads them as the end of a line.
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
    try:
        is_text = isinstance(plain_value(text), str)
    except ValueError:
        is_text = False
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_text else "'")


_Dumper.add_representer(str, _text_node)


def dump_yaml(value: Any) -> str:
    """Return YAML, in the order of the keys, that `parse_yaml` reads back to an equal value."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def parse_json(text: str, *, infinite: bool = False) -> Any:
    """Return the value of a JSON text.

    Args:
        text: the JSON.
        infinite: whether Infinity and -Infinity are numbers, as Python writes them.

    Raises:
        ValueError: it is not JSON, nested too deeply, has a key twice, a number that is too long, or NaN or
            Infinity, which JSON does not have; one line.
    """
    if _depth(text) > JSON_DEPTH_LIMIT:
        raise ValueError(f"nested more than {JSON_DEPTH_LIMIT} deep")
    try:
        return json.loads(
            text,
            object_pairs_hook=_without_doubles,
            parse_int=_whole,
            parse_float=_float,
            parse_constant=_infinity if infinite else _no_constant,
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}: {error.msg}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _depth(text: str) -> int:
    """Return how deeply a JSON text is nested, without its quoted texts."""
    depth = most = 0
    for bracket in re.sub(r'"(?:[^"\\]|\\.)*"|[^][{}"]+', "", text):
        depth += 1 if bracket in "[{" else -1
        most = max(most, depth)
    return most


def _without_doubles(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made:
            raise ValueError(f"the key {_quoted(key)} is there twice")
        made[key] = value
    return made


def _whole(text: str) -> int:
    if len(text) > JSON_DIGIT_LIMIT:
        raise ValueError(f"a number of more than {JSON_DIGIT_LIMIT} digits")
    return int(text)


def _infinity(name: str) -> float:
    return float(name) if name != "NaN" else _no_constant(name)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
