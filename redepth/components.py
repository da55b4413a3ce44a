"""The component families: listing them, checking a preset's choices, and building what it names."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, get_args, get_origin
from weakref import WeakValueDictionary

import torch
from pydantic import AfterValidator, ValidationError

from redepth import __version__, depth_models, priors, renderers
from redepth.config import Component, Preset, Term, load_preset, preset_names
from redepth.config.calibration import same_runs
from redepth.contracts import (
    DepthModel,
    HasNeeds,
    LightsAlbedo,
    NeedsDevice,
    Objective,
    Prior,
    Renderer,
    UsesCamera,
)
from redepth.data import datasets
from redepth.depth_models.marigold_normals import MarigoldNormals
from redepth.errors import ConfigError, RedepthError, brief, nearest
from redepth.exports import check_packages
from redepth.literals import FamilyName
from redepth.ops.camera import Camera
from redepth.optim import objectives
from redepth.optim.execution import check_execution
from redepth.optim.limits import check_memory_limit
from redepth.optim.parameterizations import check_supported
from redepth.priors.prompts import Captioner
from redepth.protocols import load_protocol, protocol_names
from redepth.registry import Entry, Registry, options_schema
from redepth.renderers.albedo import check_apart
from redepth.runtime import component_files

FAMILIES: dict[str, Registry] = {
    "depth-models": depth_models.REGISTRY,
    "renderers": renderers.REGISTRY,
    "priors": priors.REGISTRY,
    "objectives": objectives.REGISTRY,
}

_resolved: WeakValueDictionary[int, Preset] = WeakValueDictionary()
"""The presets that `resolve` has returned, by identity. A changed copy is another object: checked anew."""


def list_components(family: str) -> dict[str, str]:
    """Return name -> one-line summary of a family's components, third-party ones included.

    ``family`` is ``presets``, ``depth-models``, ``renderers``, ``priors``, ``objectives``, ``datasets`` or
    ``protocols``.

    Raises:
        ConfigError: for another family.
    """
    if family == "presets":
        return {name: load_preset(name).description for name in preset_names()}
    if family == "protocols":
        return {name: load_protocol(name).description for name in protocol_names()}
    registries = {**FAMILIES, "datasets": datasets.REGISTRY}
    if family not in registries:
        names = get_args(FamilyName)
        hint = nearest(family, names)
        raise ConfigError(f"unknown family {brief(family)}{hint} (valid: {', '.join(names)})")
    return {name: entry.summary for name, entry in registries[family].entries().items()}


def import_components(path: str | Path) -> list[str]:
    """Import a Python file whose classes register themselves as components, and return what it registers.

    Worker processes import it, too. On a Ray cluster the file must have the same path on every machine.

    Args:
        path: of the file. Other modules that it imports must be installed.

    Returns:
        Each component, as ``renderer my-renderer``; none if the file was imported before.

    Raises:
        ConfigError: in one line with the file and the number of the line; or it registers nothing.
    """
    before = _all_entries()
    executed = component_files.import_file(path)
    added = [key for key, entry in _all_entries().items() if before.get(key) != entry]
    if executed and not added:
        raise ConfigError(
            f"component file {path}: registers no component; put a line such as "
            '@redepth.renderers.register("my-renderer") above its class'
        )
    return [f"{family} {name}" for family, name in added]


def _all_entries() -> dict[tuple[str, str], Entry]:
    registries = (*FAMILIES.values(), datasets.REGISTRY)
    return {(r.family, name): entry for r in registries for name, entry in r.entries().items()}


def resolve(preset: Preset) -> Preset:
    """Check a preset with every component's options, and write the components' defaults out.

    ``diagnostics.calibrated_for`` stays where the settings are those of the preset that it names.
    A preset that this function has returned before is returned unchanged.

    Raises:
        ConfigError: naming the key, what is wrong with it and the nearest valid one.
        MissingDependencyError: if a component needs a package that is not installed.
    """
    if _resolved.get(id(preset)) is preset:
        return preset
    # A copy with changed values (`model_copy`) has not been validated.
    resolved = _calibrated(_with_defaults(load_preset(preset.model_dump())))
    _check_together(resolved)
    _resolved[id(resolved)] = resolved
    return resolved


def _with_defaults(preset: Preset) -> Preset:
    """Return a preset with the options of its components checked and their defaults written out."""
    update = {
        "depth_model": _checked(depth_models.REGISTRY, preset.depth_model),
        "renderer": _checked(renderers.REGISTRY, preset.renderer),
        "prior": _checked(priors.REGISTRY, preset.prior),
        "optim": preset.optim.model_copy(update={"objectives": _checked_terms(preset)}),
    }
    return preset.model_copy(update=update)


def _calibrated(preset: Preset) -> Preset:
    """Empty ``calibrated_for`` of a preset whose runs are not those that its thresholds were chosen on."""
    name = preset.diagnostics.calibrated_for
    if not name:
        return preset
    with suppress(RedepthError):  # of a name that is none of a preset
        if same_runs(preset, _with_defaults(load_preset(name))):
            return preset
    diagnostics = preset.diagnostics.model_copy(update={"calibrated_for": ""})
    return preset.model_copy(update={"diagnostics": diagnostics})


def _check_together(preset: Preset) -> None:
    """Find choices that do not work together, before any weights are read. Raises ConfigError."""
    check_supported(preset.optim.parameterization, depth_models.REGISTRY.get(preset.depth_model.name))
    prior = priors.REGISTRY.get(preset.prior.name)
    check_execution(preset.optim, prior(**preset.prior.options))


def check_camera(preset: Preset, camera: Camera | Literal["model"] | None) -> None:
    """Find a component that cannot do with the camera of a photo, before any weights are read.

    Raises:
        ConfigError: the renderer has not this camera, or the depth model estimates none.
    """
    if isinstance(camera, Camera):
        renderer = renderers.REGISTRY.get(preset.renderer.name)(**preset.renderer.options)
        if isinstance(renderer, UsesCamera):
            renderer.look_through(camera)
    elif camera == "model":
        name = preset.depth_model.name
        if not hasattr(depth_models.REGISTRY.get(name), "predicted_camera"):
            raise ConfigError(
                f"camera model: the depth model {name} estimates no camera ({_models_with_camera()} "
                "do); give --fov DEG or --intrinsics (camera= in Python)"
            )


def _models_with_camera() -> str:
    """Return the names of the depth models that estimate the camera of a photo."""
    registry = depth_models.REGISTRY
    names = [name for name, entry in registry.entries().items() if "redepth." in str(entry.target)]
    return ", ".join(name for name in names if hasattr(registry.get(name), "predicted_camera"))


def check_albedo(preset: Preset, source: Path | None, height: int, width: int, photos: int = 1) -> None:
    """Read the file of the albedo that a preset's renderer lights of a photo, if there is one, and check it.

    Args:
        preset: resolved.
        source: the photo's file; None if it has none.
        height: of the photo.
        width: of the photo.
        photos: how many photos are refined.

    Raises:
        InputError: there is none of this photo, it cannot be read, or it does not fit the photo.
    """
    renderer = _built(renderers.REGISTRY, preset.renderer)
    if isinstance(renderer, LightsAlbedo):
        renderer.check_albedo(source, height, width, photos)


def check_albedos_apart(preset: Preset, photos: Sequence[Path]) -> None:
    """Refuse, before any work, a file of an albedo that a preset's renderer would light on several photos.

    Args:
        preset: resolved.
        photos: all photos of a call.

    Raises:
        InputError: the albedo is one file and there are several photos, or two photos have one name.
    """
    check_apart(lit_albedo(preset), photos)


def lit_albedo(preset: Preset) -> str:
    """Return what a preset's renderer lights: an `AlbedoName`, or where files of albedos are."""
    renderer = _built(renderers.REGISTRY, preset.renderer)
    return renderer.albedo if isinstance(renderer, LightsAlbedo) else "photo"


def with_current_options(preset: Preset) -> Preset:
    """Return the preset of a stored record as it would be resolved now.

    The options of its components have their current names, and those that are new have their defaults.
    """
    sections = {
        "depth_model": (depth_models.REGISTRY, preset.depth_model),
        "renderer": (renderers.REGISTRY, preset.renderer),
        "prior": (priors.REGISTRY, preset.prior),
    }
    update: dict[str, Any] = {}
    for section, (registry, component) in sections.items():
        # A record can be read where its component is not installed, or has other options now.
        with suppress(RedepthError):
            options = registry.with_current_names(component.name, component.options, warn=False)
            update[section] = Component.model_validate({"name": component.name, **options})
            update[section] = _checked(registry, update[section])
    with suppress(RedepthError):
        update["optim"] = preset.optim.model_copy(update={"objectives": _checked_terms(preset)})
    return preset.model_copy(update=update)


def as_resolved_now(preset: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the preset of a stored record, as JSON holds it, by `with_current_options`.

    What is no preset of this version is returned as it is.
    """
    try:
        return with_current_options(Preset.model_validate(preset)).model_dump(mode="json")
    except ValidationError:
        return preset


StoredPreset = Annotated[Preset, AfterValidator(with_current_options)]
"""The type of a preset in a stored record, which may be of an earlier version."""


def _checked(registry: Registry, component: Component) -> Component:
    options = registry.check(component.name, component.options, also=("name",))
    return Component.model_validate({"name": component.name, **options})


def _checked_terms(preset: Preset) -> dict[str, Term]:
    terms = {}
    for name, term in preset.optim.objectives.items():
        where = f"optim.objectives.{name}"
        options = objectives.REGISTRY.check(name, term.options, where=where, also=("weight",))
        terms[name] = Term.model_validate({"weight": term.weight, **options})
    if not preset.optim.prior_weight and not terms:
        raise ConfigError(
            "optim.prior_weight is 0 and optim.objectives is empty: nothing is left to optimise; add "
            "optim.objectives.smoothness.weight, or give the prior a weight"
        )
    return terms


@dataclass(frozen=True, eq=False)
class Components:
    """The components that a preset names.

    Attributes:
        preset: resolved.
        depth_model: on the device once it is loaded.
        renderer: on the CPU; most need no weights.
        prior: on the device once it is loaded.
        objectives: name -> (weight, objective).
        captioner: writes prompts, loads itself when needed; None if the preset has none.
        normals: estimates the normals of photos, on the CPU once it is loaded; None if the preset has none.
    """

    preset: Preset
    depth_model: DepthModel
    renderer: Renderer
    prior: Prior
    objectives: dict[str, tuple[float, Objective]]
    captioner: Captioner | None
    normals: MarigoldNormals | None = None

    def load(self, device: torch.device) -> Components:
        """Load the weights of the components, in place: one record serves one device.

        Raises:
            WeightsError: if they are corrupted or of another class.
        """
        if isinstance(self.renderer, LightsAlbedo):
            self.renderer.load(device)
        if self.normals is not None:
            self.normals.load()
        return replace(self, depth_model=self.depth_model.load(device), prior=self.prior.load(device))


def build(preset: Preset, device: torch.device) -> Components:
    """Build the components of a preset; no weights are loaded yet.

    Raises:
        ConfigError: an option is wrong, or the memory limit cannot be kept on the device.
        WeightsError: weights are missing and unreachable.
    """
    preset = resolve(preset)
    check_memory_limit(preset.optim, device)
    check_packages(preset.output)
    depth_model = _built(depth_models.REGISTRY, preset.depth_model)
    renderer = _built(renderers.REGISTRY, preset.renderer)
    prior = _built(priors.REGISTRY, preset.prior)
    weighted = {
        name: (term.weight, objectives.REGISTRY.build(name, term.options))
        for name, term in preset.optim.objectives.items()
    }
    captioner, normals = captioner_of(preset, device), normals_of(preset)
    terms = (term for _, term in weighted.values())
    parts = (depth_model, renderer, prior, *terms, captioner, normals)
    # Before weights are looked for, which may ask the hub.
    for component in parts:
        if isinstance(component, NeedsDevice):
            component.check_device(device)
    for component in parts:
        if isinstance(component, HasNeeds):
            component.ensure_available()
    return Components(preset, depth_model, renderer, prior, weighted, captioner, normals)


def normals_of(preset: Preset) -> MarigoldNormals | None:
    """Return what estimates the normals of a resolved preset, not loaded; None where it wants no estimate."""
    term = preset.optim.objectives.get("normals")
    if term is None or not term.weight or term.options.get("source") != "marigold":
        return None
    settings = ("checkpoint", "revision", "steps", "ensemble")
    return MarigoldNormals(**{name: term.options[name] for name in settings})


def captioner_of(preset: Preset, device: torch.device) -> Captioner | None:
    """Return the captioner that a preset names, not loaded; None where it names none."""
    chosen = preset.prompt
    if chosen.captioner == "none":
        return None
    return Captioner(
        chosen.captioner,
        device,
        checkpoint=chosen.checkpoint,
        revision=chosen.revision,
        local_files_only=chosen.local_files_only,
        dtype=chosen.dtype,
        fallback=chosen.fallback,
    )


def _built(registry: Registry, component: Component) -> Any:
    # The preset is resolved: its options have been checked and their defaults written out.
    return registry.get(component.name)(**component.options)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide a result."""
    installed = {"python": platform.python_version()}
    for name in ("redepth", "torch", "numpy", "transformers", "diffusers", "pillow"):
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            installed[name] = "not installed as a package"
    return installed


# --- what a result depends on ---------------------------------------------------------------------


def named_files(preset: Preset, source: Path | None = None) -> dict[str, list[Path]]:
    """Return the files that a resolved preset's options name, and the source of third-party components.

    An option counts if it is text or a path and something exists under its value: a file; a folder with files
    of the photo's stem, which are taken; or a checkpoint's folder, of which all files are taken. An option of
    the type `Path` may also name any other folder, of which all files are taken. A value that the type lists,
    such as ``grey`` of ``Literal["grey"] | str``, names no file.

    Args:
        preset: resolved.
        source: the photo's file, if it has one.

    Returns:
        The option, such as ``depth_model.path``, or ``the code of MODULE`` -> its files.
    """
    found = {}
    for section, registry, component_name, options in _chosen(preset):
        component = registry.get(component_name)
        for name, option in _text_options(component).items():
            if (value := options.get(name)) not in option.names:
                found[f"{section}.{name}"] = _files_under(value, source, whole=option.is_path)
        found |= _source_files(component)
    found["prompt.checkpoint"] = _files_under(preset.prompt.checkpoint, None, whole=False)
    return {name: files for name, files in found.items() if files}


def component_versions(preset: Preset) -> dict[str, str]:
    """Return the versions of redepth and of the packages that a resolved preset's components are from."""
    found = {"redepth": __version__}
    for _, registry, name, _ in _chosen(preset):
        if (distribution := registry.distribution(name)) is not None:
            found |= dict([distribution])
        for package in {module.partition(".")[0] for module in _modules(registry.get(name))}:
            found |= {name: version(name) for name in _distributions(package)}
    return found


@cache
def _distributions(package: str) -> tuple[str, ...]:
    return tuple(packages_distributions().get(package, ()))


def _chosen(preset: Preset) -> Iterator[tuple[str, Registry, str, dict[str, Any]]]:
    """Yield each component of a preset: its section, its family, its name, its options."""
    for section, registry, component in (
        ("depth_model", depth_models.REGISTRY, preset.depth_model),
        ("renderer", renderers.REGISTRY, preset.renderer),
        ("prior", priors.REGISTRY, preset.prior),
    ):
        yield section, registry, component.name, component.options
    for name, term in preset.optim.objectives.items():
        yield f"optim.objectives.{name}", objectives.REGISTRY, name, term.options


@dataclass(frozen=True)
class _TextOption:
    """An option that may be text or a path.

    Attributes:
        is_path: whether it may be a path.
        names: the values that its type lists.
    """

    is_path: bool
    names: tuple[str, ...]


@cache
def _text_options(component: type) -> dict[str, _TextOption]:
    """Return the options of a component that may be text or a path."""
    found = {}
    for name, field in options_schema(component).model_fields.items():
        kinds, names = _option_types(field.annotation)
        if any(issubclass(kind, str | PurePath) for kind in kinds):
            found[name] = _TextOption(any(issubclass(kind, PurePath) for kind in kinds), names)
    return found


def _option_types(annotation: Any) -> tuple[tuple[type, ...], tuple[str, ...]]:
    """Return the classes that an annotation allows, the members of a union; and the literals."""
    if annotation is Any:
        return (str,), ()
    if isinstance(annotation, type):
        return (annotation,), ()
    if get_origin(annotation) is Literal:
        return (), get_args(annotation)
    inner = get_args(annotation)[:1] if get_origin(annotation) is Annotated else get_args(annotation)
    parts = [_option_types(part) for part in inner]
    return tuple(k for kinds, _ in parts for k in kinds), tuple(n for _, names in parts for n in names)


def _files_under(value: Any, source: Path | None, whole: bool) -> list[Path]:
    if not isinstance(value, str | PurePath) or not str(value):
        return []
    path = os.path.expanduser(value)
    if os.path.isfile(path):
        return [Path(path)]
    if not os.path.isdir(path):
        return []
    folder = Path(path)
    with suppress(OSError):
        return _files_in(folder, source, whole)
    return []


def _files_in(folder: Path, source: Path | None, whole: bool) -> list[Path]:
    belonging = [file for file in folder.iterdir() if source is not None and file.stem == source.stem]
    if files := [file for file in belonging if file.is_file()]:
        return files
    if whole or any((folder / name).is_file() for name in ("config.json", "model_index.json")):
        return [file for file in folder.rglob("*") if file.is_file()]
    return []


def _modules(component: type) -> set[str]:
    """Return the third-party modules that define a component or a base class of it."""
    own = {"redepth", "torch", "builtins", "typing", "typing_extensions", "abc"}
    return {base.__module__ for base in component.__mro__ if base.__module__.partition(".")[0] not in own}


def _source_files(component: type) -> dict[str, list[Path]]:
    found = {}
    for name in _modules(component):
        path = getattr(sys.modules.get(name), "__file__", None)
        if path is not None:
            file = component_files.file_of(name)
            found[f"the code of {name if file is None else file.name}"] = [Path(path)]
    return found
