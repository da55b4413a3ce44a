"""The one kind of pickle that is read: a published ``model.pt`` of tensors and settings, without its code.

Authors of a few networks publish their weights in this form alone. torch's restricted reader builds tensors
and plain values from it and refuses all else, so that nothing in the file runs. What it is given is checked
before: an archive as torch writes it, whose entries are stored as they are and whose pickle is small.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from redepth.checkpoints.files import repair_advice
from redepth.checkpoints.messages import reason
from redepth.errors import WeightsError, cut

PICKLE_LIMIT = 16 * 2**20
"""Most bytes of an archive that are no weights: its pickle names the tensors and holds the settings."""

_CODE = re.compile(r"GLOBAL (\S+)")
"""What the reader's message names of an object that it refuses."""

_WEIGHTS = "/data/"
"""The folder of an archive that holds the numbers of its tensors."""


def read_pickled(path: Path) -> dict[str, Any]:
    """Return the dictionary of tensors and settings in a ``model.pt``.

    Raises:
        WeightsError: the file is damaged, too large for what it says, or holds anything else.
    """
    import torch

    _check_archive(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of the reader: a dozen types, with one meaning for the user
        raise WeightsError(
            f"'{path}' holds more than tensors and settings, or is damaged ({_problem(error)}): "
            f"{repair_advice(path.resolve())}, from whom you trust"
        ) from error
    if not isinstance(content, dict):
        raise WeightsError(f"'{path}' must hold a dictionary of tensors and settings")
    if not all(_is_whole(tensor) for tensor in _tensors(content)):
        raise WeightsError(
            f"'{path}' has tensors that are larger than their numbers in it: do not use it, or save it again "
            "with contiguous tensors"
        )
    return content


def _problem(error: Exception) -> str:
    """Return why the reader refuses a file; never its advice, which is to read such a file without it."""
    if type(error).__name__ != "UnpicklingError":
        return cut(reason(error), 200)
    code = _CODE.search(str(error))
    return f"its pickle names {cut(code[1])}, which is code" if code else "its pickle asks for other objects"


def _tensors(content: object) -> Iterator[Any]:
    """Yield the tensors in dictionaries and sequences, each container once."""
    import torch

    waiting, seen = [content], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, Mapping | list | tuple | set | frozenset) and id(value) not in seen:
            seen.add(id(value))
            waiting += [*value.keys(), *value.values()] if isinstance(value, Mapping) else value


def _is_whole(tensor: Any) -> bool:
    """Return whether each entry of a tensor has a number of its own in the file."""
    import torch

    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        return False
    return bool(tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes())


def _check_archive(path: Path) -> None:
    """Refuse what torch does not write: other files, packed entries, no pickle or one that is too large."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise WeightsError(
            f"'{path}' is no archive of weights, or is damaged ({cut(str(error))}): "
            f"{repair_advice(path.resolve())}"
        ) from error
    packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    others = [entry for entry in entries if _WEIGHTS not in entry.filename]
    pickles = [entry for entry in others if entry.filename.endswith("/data.pkl")]
    if packed or len(pickles) != 1 or sum(entry.file_size for entry in others) > PICKLE_LIMIT:
        raise WeightsError(
            f"'{path}' is no archive as torch writes it: do not use it, or save it again with torch.save"
        )
