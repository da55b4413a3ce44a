"""How a checkpoint's files are called, what may stand for what, and what a folder or a listing lacks."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from redepth.errors import WeightsError

_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
_VOCABULARIES = frozenset({"vocab.json", "merges.txt", "vocab.txt", "spiece.model"})
"""Files of a tokenizer that `tokenizer.json` holds as well."""

_COMPANIONS = {
    "tokenizer_config.json": ("special_tokens_map.json", "added_tokens.json", "tokenizer.json"),
    "preprocessor_config.json": ("processor_config.json",),
}
"""What the libraries read beside a file wherever it is there."""

_NO_NAME = re.compile(r"[\\:\x00-\x1f]")
"""What Windows takes for the end of a folder's or a drive's name, and what is in no name."""
_UPWARD = frozenset({"", ".", ".."})
"""Parts of a path that leave a folder: an empty one is in front of an absolute path."""

_CONVERT = (
    "python -c \"import torch, safetensors.torch as s; w = torch.load('{old}', weights_only=True); "
    "s.save_file({{k: v.clone() for k, v in w.items()}}, '{new}', {{'format': 'pt'}})\""
)


def forms(name: str) -> list[str]:
    """Return a file's name, and the names of what may stand for it."""
    folder, slash, base = name.rpartition("/")
    if base in _VOCABULARIES:
        return [name, f"{folder}{slash}tokenizer.json"]
    if base == "preprocessor_config.json":
        return [name, f"{folder}{slash}processor_config.json"]
    if match := re.fullmatch(r"([\w-]+)((?:\.\w+)?)\.safetensors", base):
        return [name, f"{folder}{slash}{match[1]}.safetensors.index{match[2]}.json"]
    return [name]


def is_index(name: str) -> bool:
    """Return whether a file says which shards weights are in."""
    return ".safetensors.index" in name.rpartition("/")[2]


def shards(name: str, index: Path) -> list[str]:
    """Return the names of the shards that an index of this name lists.

    Raises:
        WeightsError: it cannot be read, is no index, or names a file outside its own folder.
    """
    try:
        placed = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        parts = sorted({part for part in placed if isinstance(part, str)})
        whole = all(isinstance(part, str) for part in placed)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        whole, parts = False, []
    if not whole:
        raise WeightsError(f"'{index}' is no index of weights: {cure(index.resolve())}")
    if (outside := first_outside(parts)) is not None:
        raise WeightsError(f"'{index}' names a file outside its folder, {outside!r}: do not use it")
    folder, slash, _ = name.rpartition("/")
    return [f"{folder}{slash}{part}" for part in parts]


def first_outside(names: Iterable[str]) -> str | None:
    """Return the first name that could lead out of a repository's folder, on any system, or None."""
    return next((name for name in names if _NO_NAME.search(name) or _UPWARD & {*name.split("/")}), None)


def cure(path: Path) -> str:
    """Return what to do about a damaged file; in the cache its name is a link, so it is what is linked to."""
    from huggingface_hub import constants

    in_cache = Path(constants.HF_HUB_CACHE).resolve() in path.parents
    return f"delete '{path}' and run again" if in_cache else f"get '{path}' anew"


def lacking(find: Callable[[str], Path | None], files: Iterable[str]) -> list[str]:
    """Return the files of which no form is found, and the missing parts of sharded ones."""
    found_not = []
    for name in files:
        found = next((path for form in forms(name) if (path := find(form)) is not None), None)
        if found is None:
            found_not.append(name)
        elif is_index(found.name):
            found_not += [part for part in shards(name, found) if find(part) is None]
    return found_not


def chosen(names: Collection[str], files: Iterable[str], optional: Iterable[str]) -> list[str]:
    """Return what is downloaded of a listing's names: each file's first form, and what is read beside it."""
    taken: dict[str, None] = {}
    for name in files:
        there = [form for form in forms(name) if form in names]
        # Of weights one form is enough; a tokenizer may read both.
        taken |= dict.fromkeys(there[:1] if name.endswith(".safetensors") else there)
        folder, slash, base = name.rpartition("/")
        beside = (f"{folder}{slash}{other}" for other in _COMPANIONS.get(base, ()))
        taken |= dict.fromkeys(other for other in beside if other in names)
    return list(taken | dict.fromkeys(name for name in optional if name in names))


def download_command(repository: str, revision: str | None, files: Iterable[str]) -> str:
    """Return the command that downloads files, by patterns: whether weights are sharded is not known here."""
    patterns: dict[str, None] = {}
    for name in files:
        folder, slash, base = name.rpartition("/")
        if base in _VOCABULARIES or base == "tokenizer_config.json":
            new = [f"{folder}/*"] if slash else ["*.json", "*.txt"]
        elif name.endswith(".safetensors"):
            new = [f"{name}*", f"{name.removesuffix('.safetensors')}-*.safetensors"]
        else:
            new = [name]
        patterns |= dict.fromkeys(new)
    at = f" --revision {revision}" if revision else ""
    return f"hf download {repository}{at}" + "".join(f' --include "{pattern}"' for pattern in patterns)


def folder_complaint(folder: Path, files: Iterable[str]) -> str:
    """Return what a folder lacks and what to do about it, or an empty string."""

    def find(name: str) -> Path | None:
        return folder / name if (folder / name).is_file() else None

    missing = lacking(find, files)
    if not missing:
        return ""
    if said := pickled(folder, missing):
        return said
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return f"'{folder}' has no {missing[0]}{more}: it is no whole checkpoint of this kind"


def pickled(folder: Path, missing: Iterable[str]) -> str:
    """Return the complaint about weights that a folder has as a pickle only, or an empty string."""
    for name in missing:
        stem = folder / name.removesuffix(".safetensors")
        alike = stem.parent.glob("*") if name.endswith(".safetensors") and stem.parent.is_dir() else ()
        pickles = sorted(path for path in alike if path.suffix in _PICKLES)
        if pickles and not (folder / name).is_file():
            command = _CONVERT.format(old=pickles[0].as_posix(), new=(folder / name).as_posix())
            return f"'{pickles[0]}' is a pickle, which can run code when it is read; convert it: {command}"
    return ""


def listing_complaint(repository: str, names: Collection[str], files: Iterable[str]) -> str:
    """Return what a hub repository lacks and what to do about it, or an empty string."""
    missing = [name for name in files if not set(names) & set(forms(name))]
    for name in missing:
        place = name.rpartition("/")[:2]
        here = (n for n in sorted(names) if n.endswith(_PICKLES) and n.rpartition("/")[:2] == place)
        if name.endswith(".safetensors") and (pickle := next(here, None)):
            return (
                f"'{repository}' has {pickle} only, a pickle, which can run code when it is read; "
                "https://huggingface.co/spaces/safetensors/convert makes a safetensors revision of it: give "
                "that as the revision, such as refs/pr/1"
            )
    return f"'{repository}' has no {missing[0]}: it is no checkpoint of this kind" if missing else ""


def damaged(folder: Path) -> Path | None:
    """Return the first safetensors file below a folder that cannot be read, itself and no link to it."""
    from safetensors import safe_open

    for path in sorted(folder.rglob("*.safetensors")):
        try:
            with safe_open(path, framework="np") as file:
                file.keys()
        except Exception:  # whatever it is, this is the file
            return path.resolve()
    return None
