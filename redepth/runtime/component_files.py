"""Python files with components, imported by their path. Worker processes import the same files, unchanged."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import traceback
from collections.abc import Iterable, Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from redepth import io
from redepth.errors import ConfigError, one_line

_PREFIX = "redepth_file_"
"""Before the name of a module that is made of such a file: it takes the place of no other module."""

_imported: dict[Path, str] = {}
"""The files in the order of their import -> SHA-256 of what was imported."""


def imported_files() -> dict[Path, str]:
    """Return the files that this process has imported, in their order -> SHA-256 of what was executed."""
    return dict(_imported)


def import_same(files: Mapping[Path, str]) -> None:
    """Import the `imported_files` of another process.

    Raises:
        ConfigError: as `import_file` does, or a file has changed since; it is not executed then.
    """
    for file, digest in files.items():
        import_file(file, digest)


def sha256_of_files(paths: Iterable[Path]) -> str:
    """Return what `io.sha256_of_files` does; an imported file counts as it was executed, not as it is now."""
    listed = list(paths)
    executed = _imported.get(listed[0]) if len(listed) == 1 else None
    return executed or io.sha256_of_files(listed)


def file_of(module: str) -> Path | None:
    """Return the file that a module was imported from by `import_file`; None for another module."""
    return next((path for path in _imported if _module_name(path) == module), None)


def import_file(path: io.StrPath, expected: str = "") -> bool:
    """Execute a Python file as a module of its own. A file that is imported already is left as it is.

    A file that has changed since is executed again. Nothing is written beside the file.

    Args:
        path: of the file.
        expected: SHA-256 that the file must have; empty if any will do.

    Returns:
        Whether the file was executed.

    Raises:
        ConfigError: naming the file and the line; another file of this name is imported; or the file is not
            the expected one.
    """
    # Absolute, because a worker may have another working directory.
    file = Path(os.path.realpath(path))
    source = _read(file, path)
    # Of what is executed below: the file may change at any time.
    digest = hashlib.sha256(source).hexdigest()
    if expected and digest != expected:
        raise ConfigError(f"component file {path}: changed since the run began; start the command again")
    if _imported.get(file) == digest:
        return False
    name = _module_name(file)
    other = file_of(name)
    if other not in (None, file):
        raise ConfigError(f"component file {path}: {other} has the same name; rename one of them")
    spec = spec_from_file_location(name, file)
    if spec is None:
        raise ConfigError(f"component file {path}: must be a Python file; rename it to end with .py")
    module = module_from_spec(spec)
    before = sys.modules.get(name)
    # Dataclasses and annotations look their module up while it is executed.
    sys.modules[name] = module
    try:
        # Not by the loader: its cache of byte code takes two versions of one second for the same.
        exec(compile(source, file, "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:  # a file may do anything
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before
        raise ConfigError(f"component file {path}{_line_of(error, file)}: {one_line(error)}") from error
    _imported[file] = digest
    return True


def _read(file: Path, given: io.StrPath) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"component file {given}: no such file") from None
    except OSError as error:
        raise ConfigError(f"component file {given}: cannot be read ({error.strerror})") from None


def _module_name(file: Path) -> str:
    return _PREFIX + re.sub(r"\W", "_", file.stem)


def _line_of(error: BaseException, file: Path) -> str:
    """Return where in the file an error is from, as ``, line 3``."""
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return f", line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame.lineno for frame in frames if frame.filename == str(file)]
    return f", line {own[-1]}" if own else ""
