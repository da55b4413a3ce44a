"""The checks of this machine: software, devices, optional packages, embedded weights, the hub."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from redepth import checkpoints
from redepth.checkpoints.embedded import WEIGHTS

CHECKSUMS = "SHA256SUMS"

State = Literal["ready", "download", "install", "unavailable"]
"""Whether something can run: now, after a download, after an installation, or not here."""

_NEEDS = {"gpu": "an NVIDIA GPU", "cuda-build": "a CUDA build of torch"}
_EXTRA = re.compile(r'pip install "redepth\[([^]]+)\]"')


@dataclass(frozen=True)
class Extra:
    """An optional package.

    Attributes:
        module: whose presence is looked for.
        name: of the extra that installs it.
        purpose: what it is for.
        needs: what it needs that pip does not install: a GPU, or torch built for CUDA.
        apart: whether it is installed by a command of its own, and only by those who look for it.
    """

    module: str
    name: str
    purpose: str
    needs: Literal["", "gpu", "cuda-build"] = ""
    apart: bool = False


EXTRAS = (
    Extra("pillow_heif", "heic", "photos in HEIC"),
    Extra("OpenEXR", "exr", "maps in OpenEXR"),
    Extra("kornia", "guided", "maps that follow the photo's edges (output.upsample: guided)"),
    Extra("fast_simplification", "mesh", "fewer triangles in mesh.glb"),
    Extra("av", "video", "clips: videos"),
    Extra("cv2", "video", "clips: optical flow"),
    Extra("gradio", "app", "the web app"),
    Extra("h5py", "bench", "benchmarks: NYU Depth V2"),
    Extra("skimage", "bench", "benchmarks: the scene motorcycle"),
    Extra("ray", "ray", "several machines (--ray)"),
    Extra("einops", "da3", "the depth models depth-anything-3-*"),
    Extra("scipy", "moge", "the depth models moge-1, moge-2 and moge-3"),
    Extra("peft", "vsd", "the score vsd"),
    Extra("sentencepiece", "t5", "the prior pixart-sigma: its text encoder's vocabulary", apart=True),
    Extra("triton", "triton", "faster kernels on a GPU", needs="gpu"),
    Extra("bitsandbytes", "int8", "captions and priors in 8 or 4 bits, on a GPU", needs="gpu"),
    Extra("pytorch3d", "pytorch3d", "the renderer mesh", needs="cuda-build"),
    Extra("nvdiffrast", "nvdiffrast", "the renderer mesh, fast; non-commercial licence", "gpu", apart=True),
    Extra("mitsuba", "mitsuba", "rendering the path-traced scenes", apart=True),
)

APART = frozenset(extra.name for extra in EXTRAS if extra.apart)


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        what: what was looked at.
        state: whether it can run.
        found: what was found, in words.
        cure: what to do, in words; empty if nothing, or if the commands say all.
        commands: what to run, each on a line of its own.
        vital: whether it decides the exit code.
    """

    what: str
    state: State
    found: str
    cure: str = ""
    commands: tuple[str, ...] = ()
    vital: bool = False

    @property
    def ok(self) -> bool:
        """Whether it can run now."""
        return self.state == "ready"


def machine() -> dict[str, list[Check]]:
    """Return the checks of the machine by section."""
    return {
        "software": _software(),
        "devices": _devices(),
        "extras": _extras(),
        "hub": _hub(),
        "embedded weights": embedded_weights(),
    }


def merged(commands: Iterable[str]) -> list[str]:
    """Return commands without repetition; the extras of redepth are installed by one.

    Extras that stand apart keep a command of their own.
    """
    others: dict[str, None] = {}
    extras: set[str] = set()
    for command in commands:
        installed = extras_in([command])
        if installed and not installed & APART:
            extras |= installed
        else:
            others[command] = None
    install = [f'pip install "redepth[{",".join(sorted(extras))}]"'] if extras else []
    return [*install, *others]


def extras_in(commands: Iterable[str]) -> set[str]:
    """Return the extras of redepth that commands install."""
    matches = map(_EXTRA.fullmatch, commands)
    return {extra for match in matches if match for extra in match[1].split(",")}


# --- software, devices, weights -------------------------------------------------------------------


def sha256(path: Path) -> str:
    """Return the file's SHA-256 in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def embedded_weights(folder: Path = WEIGHTS) -> list[Check]:
    """Compare every file of the embedded weights with its recorded checksum."""
    cure = "reinstall redepth; in a clone: git checkout -- redepth/checkpoints/weights"
    listing = folder / CHECKSUMS
    if not listing.is_file() or not listing.read_text().strip():
        return [Check("all", "unavailable", f"no {CHECKSUMS}", cure, vital=True)]
    checks = []
    for line in listing.read_text().splitlines():
        digest, _, name = line.partition("  ")
        if not name:
            continue
        path = folder / name
        ok = path.is_file() and sha256(path) == digest
        found = checkpoints.size_text(path.stat().st_size) if ok else "missing or changed"
        state: State = "ready" if ok else "unavailable"
        checks.append(Check(name, state, found, "" if ok else cure, vital=True))
    return checks


def _software() -> list[Check]:
    from redepth.components import versions

    return [
        Check(name, "install" if found.startswith("not") else "ready", found, vital=name != "redepth")
        for name, found in versions().items()
    ]


def _devices() -> list[Check]:
    import torch

    cuda = torch.cuda.is_available()
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else []
    mps = torch.backends.mps.is_available()
    need = "needs an NVIDIA GPU and a CUDA build of torch (pytorch.org/get-started)"
    threads = torch.get_num_threads()
    return [
        Check("cpu", "ready", f"{threads} thread{'s' if threads > 1 else ''}", vital=True),
        Check("cuda", *(("ready", ", ".join(names)) if cuda else ("unavailable", "none found", need))),
        Check("mps", *(("ready", "found") if mps else ("unavailable", "none found", "needs an Apple GPU"))),
    ]


def _extras() -> list[Check]:
    import torch

    there = {"": True, "gpu": torch.cuda.is_available(), "cuda-build": torch.version.cuda is not None}
    checks = []
    for extra in EXTRAS:
        found = f"{extra.module}: {extra.purpose}"
        if importlib.util.find_spec(extra.module) is not None:
            checks.append(Check(extra.name, "ready", found))
        elif not there[extra.needs]:
            checks.append(
                Check(extra.name, "unavailable", found, f"missing, and needs {_NEEDS[extra.needs]}")
            )
        else:
            command = f'pip install "redepth[{extra.name}]"'
            checks.append(Check(extra.name, "install", found, "missing", (command,)))
    return checks


def _hub() -> list[Check]:
    from huggingface_hub import constants

    problem = checkpoints.unreachable()
    cure = "weights that are here are used; connect, or unset HF_HUB_OFFLINE, to fetch others"
    cached = Path(constants.HF_HUB_CACHE).is_dir()
    return [
        Check("hub", *(("unavailable", problem, cure) if problem else ("ready", "reachable"))),
        Check("cache", "ready", constants.HF_HUB_CACHE + ("" if cached else " (not there yet)")),
    ]
