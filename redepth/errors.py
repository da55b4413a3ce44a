"""Errors that a user can fix: the command line prints them as one line and exits with 2. And a warning."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Mapping


class RedepthError(Exception):
    """An input or a setting cannot be used; the message says what is wrong, where, and what to do."""


class ConfigError(RedepthError):
    """A preset, an override or an option is unknown, of the wrong type or out of range."""


class InputError(RedepthError):
    """A photo, ground truth or mask cannot be read or used."""


class MissingDependencyError(RedepthError, ImportError):
    """An optional package is not installed; the message has the command that installs it."""


class WeightsError(RedepthError):
    """A checkpoint is missing, unreachable, corrupted or of another class."""


class NotDownloadedError(WeightsError):
    """A checkpoint of the hub is not on this machine, and the hub was not reached or not asked.

    Attributes:
        problem: the message without what to do.
    """

    def __init__(self, problem: str, cure: str = "") -> None:
        super().__init__(f"{problem}: {cure}" if cure else problem)
        self.problem = problem


class OutputError(RedepthError, OSError):
    """A result cannot be written; the message names the file and what hinders."""


class PartlyWrittenError(OutputError):
    """Some chosen files of a result cannot be written; the others and its record are in their folder.

    Args:
        folder: of the result.
        failures: choice -> why it is not there.
    """

    def __init__(self, folder: str, failures: Mapping[str, str]) -> None:
        self.folder, self.failures = folder, dict(failures)
        listed = "; ".join(f"{name} is not written: {why}" for name, why in failures.items())
        super().__init__(f"{listed} (the other files are in {folder})")


class RenamedOptionWarning(DeprecationWarning):
    """An option is set by its former name, which the next release refuses."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest valid name, or an empty string."""
    matches = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f"; did you mean '{matches[0]}'?" if matches else ""


def one_line(error: BaseException) -> str:
    """Return what an error says on one line, with its class unless it is a user's error."""
    if isinstance(error, MemoryError):
        return "not enough memory for it; free some, or give a smaller photo"
    text = printable(" ".join(str(error).split())) or type(error).__name__
    return text if isinstance(error, RedepthError) else f"{type(error).__name__}: {text}"


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxdict, _SHORT.maxlist, _SHORT.maxtuple, _SHORT.maxset = 2, 3, 3, 3, 3
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 60


def brief(value: object) -> str:
    """Return the ``repr`` of a value for a message, on one line and cut where it is long or deep."""
    try:
        text = " ".join(_SHORT.repr(value).split())
    except (
        Exception
    ):  # Python writes no number of more than some thousand digits, and objects may do anything
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def cut(text: str, limit: int = 80) -> str:
    """Return a text for a message: on one line, with its middle left out beyond a number of characters."""
    # Only the ends are looked at, however long the text is.
    if len(text) > limit:
        half = limit // 2 - 2
        text = f"{text[:half]}...{text[-half:]}"
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """Return a text with its characters that a terminal acts on, such as colours, as escapes."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
