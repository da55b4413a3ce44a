"""The checks of this machine: what can run, and the command that makes the rest run."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from redepth import checkpoints
from redepth.checkpoints.embedded import WEIGHTS
from redepth.config import load_preset, preset_names
from redepth.contracts import HasBackends, HasNeeds
from redepth.errors import RedepthError, WeightsError
from redepth.registry import Entry, Registry

CHECKSUMS = "SHA256SUMS"
EXTRAS = {
    "OpenEXR": "exr",
    "einops": "da3",
    "pillow_heif": "heic",
    "h5py": "bench",
    "skimage": "bench",
    "peft": "vsd",
    "bitsandbytes": "int8",
    "triton": "triton",
    "pytorch3d": "pytorch3d",
    "nvdiffrast": "nvdiffrast",
    "mitsuba": "mitsuba",
}


@dataclass(frozen=True)
class Check:
    """One line of the report; ``vital`` ones decide the exit code."""

    what: str
    ok: bool
    found: str
    cure: str = ""
    vital: bool = False


def report() -> dict[str, list[Check]]:
    """Return the checks by section."""
    return {
        "software": _software(),
        "devices": _devices(),
        "extras": _extras(),
        "weights": [*_hub(), *embedded_weights()],
        "presets": [_preset(name) for name in preset_names()],
        "components": _components(),
    }


def sha256(path: Path) -> str:
    """Return the file's SHA-256 in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def embedded_weights(folder: Path = WEIGHTS) -> list[Check]:
    """Compare every file of the embedded weights with its recorded checksum."""
    cure = "reinstall redepth; in a clone: git checkout -- redepth/checkpoints/weights"
    listing = folder / CHECKSUMS
    if not listing.is_file() or not listing.read_text().strip():
        return [Check("embedded weights", False, f"no {CHECKSUMS}", cure, vital=True)]
    checks = []
    for line in listing.read_text().splitlines():
        digest, _, name = line.partition("  ")
        if not name:
            continue
        path = folder / name
        ok = path.is_file() and sha256(path) == digest
        found = f"{path.stat().st_size / 1e6:.1f} MB" if ok else "missing or changed"
        checks.append(Check(f"embedded: {name}", ok, found, "" if ok else cure, vital=True))
    return checks


def _software() -> list[Check]:
    from redepth.components import versions

    return [
        Check(name, not found.startswith("not"), found, vital=name != "redepth")
        for name, found in versions().items()
    ]


def _devices() -> list[Check]:
    import torch

    cuda = torch.cuda.is_available()
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else []
    name = ", ".join(names) or "none found"
    cure = "" if cuda else "a CUDA build of torch and an NVIDIA GPU (pytorch.org/get-started)"
    mps = torch.backends.mps.is_available()
    return [
        Check("cpu", True, f"{torch.get_num_threads()} threads", vital=True),
        Check("cuda", cuda, name, cure),
        Check("mps", mps, "found" if mps else "none found", "" if mps else "an Apple GPU"),
    ]


def _extras() -> list[Check]:
    checks = []
    for module, extra in EXTRAS.items():
        ok = importlib.util.find_spec(module) is not None
        cure = "" if ok else f'pip install "redepth[{extra}]"'
        checks.append(Check(extra, ok, module if ok else "not installed", cure))
    return checks


def _hub() -> list[Check]:
    from huggingface_hub import constants

    reachable = checkpoints.hub_reachable()
    cure = "" if reachable else "connect, or unset HF_HUB_OFFLINE; or use --preset embedded"
    return [
        Check("hub", reachable, "reachable" if reachable else "not reachable", cure),
        Check("cache", Path(constants.HF_HUB_CACHE).is_dir(), constants.HF_HUB_CACHE),
    ]


def _preset(name: str) -> Check:
    from redepth.components import FAMILIES, captioner_of
    from redepth.runtime.device import choose_device

    preset = load_preset(name)
    problems = []
    chosen = {"depth-models": preset.depth_model, "priors": preset.prior}
    for family, component in chosen.items():
        try:
            _available(FAMILIES[family].build(component.name, component.options))
        except RedepthError as error:
            problems.append(str(error))
    captioner = captioner_of(preset, choose_device())
    if captioner is not None:
        try:
            captioner.ensure_available()
        except RedepthError as error:
            problems.append(str(error))
    return Check(name, not problems, "can run" if not problems else "cannot run", "; ".join(problems))


def family(name: str) -> list[Check]:
    """Return whether each preset or component of a family, by its name, can run here."""
    from redepth.components import FAMILIES

    if name == "presets":
        return [_preset(preset) for preset in preset_names()]
    registry = FAMILIES.get(name)
    if registry is None:  # data sets and protocols run anywhere
        return []
    return [_component(registry, component, entry) for component, entry in registry.entries().items()]


def _components() -> list[Check]:
    from redepth.components import FAMILIES

    checks = []
    for name, registry in FAMILIES.items():
        for check, entry in zip(family(name), registry.entries().values(), strict=True):
            what = f"{name}: {check.what}"
            checks += [replace(check, what=what), *_backends(what, entry)]
    return checks


def _component(registry: Registry, name: str, entry: Entry) -> Check:
    missing = entry.missing()
    cure = f'pip install "redepth[{",".join(missing)}]"' if missing else ""
    found = "missing package" if missing else "can run"
    if not missing:
        try:
            _available(registry.build(name, {}))
        except RedepthError as error:
            found, cure = "needs options, weights or a package", _briefly(entry, error)
        # A third-party component may do anything; the report goes on.
        except (Exception, SystemExit) as error:
            found, cure = "broken", f"mend or uninstall it: {type(error).__name__}: {error}"
    return Check(name, not cure, found, cure)


def _briefly(entry: Entry, error: RedepthError) -> str:
    """Return the command alone that downloads a published model; there are dozens of them."""
    checkpoint, revision = (entry.defaults.get(key) for key in ("checkpoint", "revision"))
    if not isinstance(error, WeightsError) or checkpoint is None:
        return str(error)
    return f"hf download {checkpoint}" + (f" --revision {revision}" if revision else "")


def _backends(component: str, entry: Entry) -> list[Check]:
    """Return a line per backend: whether it can run here."""
    try:
        cls = entry.load()
    except RedepthError:  # the line of the component says it already
        return []
    if not isinstance(cls, HasBackends):
        return []
    return [
        Check(f"{component} ({backend})", not cure, "cannot run here" if cure else "can run", cure)
        for backend, cure in cls.backends().items()
    ]


def _available(component: Any) -> None:
    if isinstance(component, HasNeeds):
        component.ensure_available()
