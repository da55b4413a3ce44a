"""Which presets and components can run on this machine, and the commands that make the others run.

The hub is not asked: weights are on this machine, or they are to be downloaded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial

from redepth import checkpoints
from redepth.cli.checks import Check, State, merged
from redepth.cli.parts import parts_of
from redepth.config import load_preset, preset_names
from redepth.contracts import HasBackends, HasNeeds
from redepth.errors import InputError, MissingDependencyError, NotDownloadedError, RedepthError
from redepth.registry import Entry, Registry

_WORDS: dict[State, str] = {
    "ready": "ready",
    "download": "weights not downloaded",
    "install": "package missing",
    "unavailable": "not here",
}
_PIP = re.compile(r'pip install (?:--[\w-]+ )*(?:"[^"]+"|[\w.-]+)')
_ALL = re.compile(f"{_PIP.pattern}(?: && {_PIP.pattern})*")


def family(name: str) -> list[Check]:
    """Return whether each preset or component of a family, by its name, can run here.

    Of data sets only the packages are checked, and of protocols nothing.
    """
    from redepth.components import FAMILIES
    from redepth.data import datasets

    with checkpoints.this_machine_only():
        if name == "presets":
            return [_preset(preset) for preset in preset_names()]
        if name == "datasets":
            return [_packages(entry) for entry in datasets.REGISTRY.entries().values()]
        if name not in FAMILIES:
            return []
        kind, registry = name.removesuffix("s"), FAMILIES[name]
        return [_component(kind, registry, entry) for entry in registry.entries().values()]


def backends(family_name: str, name: str) -> list[Check]:
    """Return whether each backend of a component can run here; empty if it has no choice of backends."""
    from redepth.components import FAMILIES

    try:
        cls = FAMILIES[family_name].entries()[name].load()
    except RedepthError:  # the line of the component says it already
        return []
    if not isinstance(cls, HasBackends):
        return []
    return [
        _without_package(f"{name} ({backend})", problem)
        if problem
        else Check(f"{name} ({backend})", "ready", _WORDS["ready"])
        for backend, problem in cls.backends().items()
    ]


def _preset(name: str) -> Check:
    preset = load_preset(name)
    command = f"redepth download {name}"
    parts = parts_of(preset)
    if preset.prompt.fallback == "none":
        parts.pop("captioner", None)
    return _joined(name, [_attempt(role, build, command) for role, build in parts.items()])


def _joined(name: str, parts: Sequence[Check]) -> Check:
    """Return the check of a preset: the worst of its parts, and all that they need."""
    order: tuple[State, ...] = ("ready", "download", "install", "unavailable")
    state = max((part.state for part in parts), key=order.index)
    missing = [part for part in parts if not part.ok]
    roles: dict[str, list[str]] = {}
    for part in missing:
        roles.setdefault(part.found, []).append(part.what)
    found = "; ".join(f"{problem}: {', '.join(names)}" for problem, names in roles.items())
    cure = "; ".join(part.cure for part in missing if part.cure)
    commands = merged(command for part in missing for command in part.commands)
    return Check(name, state, found or _WORDS["ready"], cure, tuple(commands))


def _packages(entry: Entry) -> Check:
    """Return whether the packages of a component are installed."""
    if missing := entry.missing():
        command = f'pip install "redepth[{",".join(missing)}]"'
        return Check(entry.name, "install", _WORDS["install"], commands=(command,))
    return Check(entry.name, "ready", _WORDS["ready"])


def _component(kind: str, registry: Registry, entry: Entry) -> Check:
    packages = _packages(entry)
    if not packages.ok:
        return packages
    command = f"redepth download {kind} {entry.name}"
    return _attempt(entry.name, partial(registry.build, entry.name, {}), command)


def _attempt(what: str, build: Callable[[], object], download: str) -> Check:
    """Build a component and ask it whether it can run; ``download`` is the command for its weights."""
    try:
        component = build()
        if isinstance(component, HasNeeds):
            component.ensure_available()
    except NotDownloadedError:
        return Check(what, "download", _WORDS["download"], commands=(download,))
    except MissingDependencyError as error:
        return _without_package(what, str(error))
    except InputError as error:
        # It needs a file of the user's, such as the map of a photo.
        return Check(what, "ready", "ready, with an option", str(error))
    except RedepthError as error:
        return Check(what, "unavailable", _WORDS["unavailable"], str(error))
    # A third-party component may do anything; the report goes on.
    except (Exception, SystemExit) as error:
        cure = f"mend or uninstall it: {type(error).__name__}: {error}"
        return Check(what, "unavailable", "broken", " ".join(cure.split()))
    return Check(what, "ready", _WORDS["ready"])


def _without_package(what: str, problem: str) -> Check:
    """Return the check of a component whose package is missing; the message holds the commands."""
    commands = tuple(merged(_PIP.findall(problem)))
    if not commands:
        return Check(what, "unavailable", _WORDS["unavailable"], problem)
    return Check(what, "install", _WORDS["install"], _ALL.sub("see below", problem), commands)
