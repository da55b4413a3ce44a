"""Names of a checkpoint's files: their alternative forms, their shards, and which of them are missing."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from redepth.errors import InputError, WeightsError, brief
from redepth.io import read_text
from redepth.io.markup import parse_json

INDEX_LIMIT = 16 * 2**20
"""Largest index of weights in bytes."""

_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
_VOCABULARIES = frozenset({"vocab.json", "merges.txt", "vocab.txt", "spiece.model"})
"""Files of a tokenizer whose content `tokenizer.json` holds as well."""

_COMPANIONS = {
    "tokenizer_config.json": ("special_tokens_map.json", "added_tokens.json", "tokenizer.json"),
    "preprocessor_config.json": ("processor_config.json",),
}

_FORBIDDEN_CHARACTERS = re.compile(r"[\\:\x00-\x1f]")
"""Separators of folders and drives on Windows, and control characters."""
_FORBIDDEN_PARTS = frozenset({"", ".", ".."})
"""Parts of a path that may leave a folder; an empty first part makes a path absolute."""

_PLAIN_PATH = re.compile(r"[\w./@+ -]+")
_CONVERT = (
    "python -c \"import torch, safetensors.torch as s; w = torch.load('{old}', weights_only=True); "
    "s.save_file({{k: v.clone() for k, v in w.items()}}, '{new}', {{'format': 'pt'}})\""
)


def alternatives(name: str) -> list[str]:
    """Return a file's name and the names of files that can replace it."""
    folder, slash, base = name.rpartition("/")
    if base in _VOCABULARIES:
        return [name, f"{folder}{slash}tokenizer.json"]
    if base == "preprocessor_config.json":
        return [name, f"{folder}{slash}processor_config.json"]
    match = re.fullmatch(r"([\w-]+)((?:\.\w+)?)\.safetensors", base)
    if match:
        return [name, f"{folder}{slash}{match[1]}.safetensors.index{match[2]}.json"]
    return [name]


def companions(name: str) -> list[str]:
    """Return the names of files that the libraries read beside a file if they exist."""
    folder, slash, base = name.rpartition("/")
    return [f"{folder}{slash}{other}" for other in _COMPANIONS.get(base, ())]


def is_index(name: str) -> bool:
    """Return whether a file is the index of sharded weights."""
    return ".safetensors.index" in name.rpartition("/")[2]


def shards(name: str, index: Path) -> list[str]:
    """Return the names of the shards that an index lists.

    Args:
        name: of the index inside its repository.
        index: the file.

    Raises:
        WeightsError: it cannot be read, is not an index, or names a file that is not safetensors or lies
            outside its own folder.
    """
    try:
        files = list(parse_json(read_text(index, limit=INDEX_LIMIT))["weight_map"].values())
        valid = all(isinstance(file, str) for file in files)
    except (InputError, ValueError, KeyError, AttributeError, TypeError):
        valid = False
    if not valid:
        raise WeightsError(f"'{index}' is not an index of weights: {repair_advice(index.resolve())}")
    parts = sorted(set(files))
    outside = first_outside(parts)
    if outside is not None:
        raise WeightsError(f"'{index}' names a file outside its folder, {brief(outside)}: do not use it")
    other = next((part for part in parts if not part.endswith(".safetensors")), None)
    if other is not None:
        raise WeightsError(
            f"'{index}' names {brief(other)}, and weights are read from safetensors alone: do not use it"
        )
    folder, slash, _ = name.rpartition("/")
    return [f"{folder}{slash}{part}" for part in parts]


def first_outside(names: Iterable[str]) -> str | None:
    """Return the first name that could leave a repository's folder on any operating system, or None."""
    for name in names:
        if _FORBIDDEN_CHARACTERS.search(name) or _FORBIDDEN_PARTS & set(name.split("/")):
            return name
    return None


def repair_advice(path: Path) -> str:
    """Return what to do about a damaged file.

    Args:
        path: of the file, with links resolved: in the cache a blob is damaged, not the link to it.
    """
    from huggingface_hub import constants

    in_cache = Path(constants.HF_HUB_CACHE).resolve() in path.parents
    return f"delete '{path}' and run again" if in_cache else f"replace '{path}' by an intact copy"


def missing_files(find: Callable[[str], Path | None], files: Iterable[str]) -> list[str]:
    """Return the files that exist in no form, and the missing shards of those that are sharded.

    Args:
        find: returns the path of a file, or None if it does not exist.
        files: the required files.
    """
    missing = []
    for name in files:
        paths = [path for path in map(find, alternatives(name)) if path is not None]
        if not paths:
            missing.append(name)
        elif is_index(paths[0].name):
            missing += [part for part in shards(name, paths[0]) if find(part) is None]
    return missing


def files_to_download(names: Collection[str], files: Iterable[str], optional: Iterable[str]) -> list[str]:
    """Return which files of a listing to download: a form of each file, its companions, optional files."""
    selected = []
    for name in files:
        available = [form for form in alternatives(name) if form in names]
        # One form of weights is enough; a tokenizer may read both.
        selected += available[:1] if name.endswith(".safetensors") else available
        selected += companions(name)
    selected += optional
    return [name for name in dict.fromkeys(selected) if name in names]


def download_command(repository: str, revision: str | None, files: Iterable[str]) -> str:
    """Return the command that downloads files; its patterns match sharded weights too."""
    patterns: dict[str, None] = {}
    for name in files:
        folder, slash, base = name.rpartition("/")
        if base in _VOCABULARIES or base == "tokenizer_config.json":
            matching = [f"{folder}/*"] if slash else ["*.json", "*.txt"]
        elif name.endswith(".safetensors"):
            matching = [f"{name}*", f"{name.removesuffix('.safetensors')}-*.safetensors"]
        else:
            matching = [name]
        patterns |= dict.fromkeys(matching)
    at = f" --revision {revision}" if revision else ""
    return f"hf download {repository}{at}" + "".join(f' --include "{pattern}"' for pattern in patterns)


def folder_problem(folder: Path, files: Iterable[str]) -> str:
    """Return which files a folder lacks and what to do about it, or an empty string."""

    def find(name: str) -> Path | None:
        return folder / name if (folder / name).is_file() else None

    missing = missing_files(find, files)
    if not missing:
        return ""
    problem = pickle_problem(folder, missing)
    if problem:
        return problem
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return f"'{folder}' has no {missing[0]}{more}: the checkpoint is incomplete or of another kind"


def pickle_problem(folder: Path, missing: Iterable[str]) -> str:
    """Return what to do about weights that a folder has only as a pickle, or an empty string."""
    for name in missing:
        path = folder / name
        if path.suffix != ".safetensors" or path.is_file() or not path.parent.is_dir():
            continue
        pickles = sorted(other for other in path.parent.iterdir() if other.suffix in _PICKLES)
        if pickles:
            said = f"{brief(str(pickles[0]))} is a pickle, which can run code when it is read"
            old, new = pickles[0].as_posix(), path.as_posix()
            # The command may be pasted into a shell, so it holds no name that a shell would take for more.
            if not _PLAIN_PATH.fullmatch(old + new):
                return f"{said}: convert it to '{path.name}'"
            return f"{said}; convert it: {_CONVERT.format(old=old, new=new)}"
    return ""


def listing_problem(repository: str, names: Collection[str], files: Iterable[str]) -> str:
    """Return which files a hub repository lacks and what to do about it, or an empty string."""
    missing = [name for name in files if not set(names) & set(alternatives(name))]
    if not missing:
        return ""
    for name in missing:
        folder = name.rpartition("/")[0]
        pickles = [n for n in sorted(names) if n.endswith(_PICKLES) and n.rpartition("/")[0] == folder]
        if name.endswith(".safetensors") and pickles:
            return (
                f"'{repository}' has {pickles[0]} only, a pickle, which can run code when it is read; "
                "https://huggingface.co/spaces/safetensors/convert creates a safetensors revision of it: "
                "pass that revision, such as refs/pr/1"
            )
    return f"'{repository}' has no {missing[0]}: the checkpoint is of another kind"


def first_damaged(folder: Path) -> Path | None:
    """Return the first safetensors file below a folder that cannot be read, with links resolved."""
    from safetensors import safe_open

    for path in sorted(folder.rglob("*.safetensors")):
        try:
            with safe_open(path, framework="np") as file:
                file.keys()
        except Exception:  # any error means that the file is damaged
            return path.resolve()
    return None
