"""One registry per family of components: names of ``"module:Class"`` paths, classes and entry points.

A component's options are the typed keyword arguments of its constructor. A pydantic model built from that
signature checks them (names, types, ranges) before any weights are loaded.

A class declares renamed options in ``renamed_options: ClassVar[dict[str, str]]``, former name -> current one.
The registry accepts the former names, with a `RenamedOptionWarning`, for one release. Where the values got
other names, too, ``renamed_values: ClassVar[dict[str, dict[str, str]]]`` has those of each former option.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from functools import lru_cache
from importlib.metadata import EntryPoints, entry_points
from typing import Any, TypeVar, cast, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, create_model, field_validator
from pydantic.fields import FieldInfo
from typing_extensions import get_protocol_members

from redepth.errors import (
    ConfigError,
    MissingDependencyError,
    RedepthError,
    RenamedOptionWarning,
    brief,
    cut,
    nearest,
)

C = TypeVar("C", bound=type)
log = logging.getLogger(__name__)

_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_MOST_COMPLAINTS = 5
_UNION_BRANCH = re.compile(r"literal\[|constrained-|function-")


def require(module: str, extra: str) -> Any:
    """Import an optional module.

    Raises:
        MissingDependencyError: if it cannot be imported; the message names the extra that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f'{module} is needed for this: pip install "redepth[{extra}]" ({error})'
        ) from error


@dataclass(frozen=True)
class Entry:
    """One registered component.

    Attributes:
        name: of the component.
        target: its class, or ``"module:Class"``.
        summary: one line.
        needs: optional modules that it imports, each with the extra that installs it.
        licence: of the weights that it downloads, if any.
        defaults: replace defaults of the constructor, so that several names can share a class.
    """

    name: str
    target: str | type
    summary: str = ""
    needs: tuple[tuple[str, str], ...] = ()
    licence: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> type:
        """Import and return the class."""
        if not isinstance(self.target, str):
            return self.target
        for module, extra in self.needs:
            require(module, extra)
        module_name, _, attribute = self.target.partition(":")
        try:
            component = getattr(importlib.import_module(module_name), attribute)
        except RedepthError:
            raise
        except (Exception, SystemExit) as error:  # a third-party module may do anything while it is imported
            problem = (
                f"it ends the program ({error})" if isinstance(error, SystemExit) else cut(str(error), 300)
            )
            raise ConfigError(
                f"component '{self.name}' ({self.summary}) cannot import {self.target}: {problem}"
            ) from error
        if not inspect.isclass(component):
            raise ConfigError(f"component '{self.name}': {self.target} is not a class")
        return component

    def missing(self) -> list[str]:
        """Return the extras that must be installed before the component can run."""
        return [extra for module, extra in self.needs if importlib.util.find_spec(module) is None]


class Registry:
    """The components of one family, by name.

    Args:
        family: the singular used in messages and presets, such as ``"renderer"``.
        group: the entry-point group that third-party packages use, such as ``"redepth.renderers"``.
        contract: the protocol that its components follow, or its ``"module:Class"``: whoever needs the names
            alone, such as a shell that completes them, imports no torch.
    """

    def __init__(self, family: str, group: str, contract: type | str) -> None:
        self.family = family
        self.group = group
        self._contract = contract
        self._entries: dict[str, Entry] = {}
        self._warned: set[str] = set()

    @property
    def contract(self) -> type:
        """The protocol that its components follow."""
        if isinstance(self._contract, str):
            module, _, name = self._contract.partition(":")
            self._contract = cast(type, getattr(importlib.import_module(module), name))
        return self._contract

    def add(
        self,
        name: str,
        target: str,
        summary: str,
        needs: tuple[tuple[str, str], ...] = (),
        licence: str = "",
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        """Register ``"module:Class"`` without importing it; the arguments are those of `Entry`."""
        self._entries[name] = Entry(name, target, summary, needs, licence, defaults or {})

    def register(self, name: str) -> Callable[[C], C]:
        """Class decorator that makes a class a component under this name.

        Raises:
            ConfigError: if another class already has the name.
        """

        def decorate(component: C) -> C:
            known = self._entries.get(name)
            if known is not None and _path(known.target) != _path(component):
                raise ConfigError(
                    f"{self.family} '{name}' is already registered by {_path(known.target)}; "
                    "choose another name"
                )
            summary = (inspect.getdoc(component) or "").partition("\n")[0]
            self._entries[name] = Entry(name, component, summary)
            return component

        return decorate

    def entries(self) -> dict[str, Entry]:
        """Return every component by name, those of installed packages included."""
        installed: dict[str, Entry] = {}
        for point in _installed(self.group, tuple(sys.path)):
            known = self._entries.get(point.name) or installed.get(point.name)
            if known is None:
                summary = f"from package {_distribution(point)}"
                installed[point.name] = Entry(point.name, point.value, summary)
            elif _path(known.target) != point.value:
                self._warn_once(f"{self.family} '{point.name}' of package {_distribution(point)}")
        return {**installed, **self._entries}

    def distribution(self, name: str) -> tuple[str, str] | None:
        """Return the name and the version of the package whose entry point a component is, if it is one."""
        if name not in self._entries:
            for point in _installed(self.group, tuple(sys.path)).select(name=name):
                if point.dist is not None:
                    return point.dist.name, point.dist.version
        return None

    def _warn_once(self, component: str) -> None:
        if component not in self._warned:
            self._warned.add(component)
            log.warning("%s is ignored: the name is taken", component)

    def get(self, name: str) -> type:
        """Return the class registered under the name.

        Raises:
            ConfigError: for an unknown name, with the nearest valid one.
            MissingDependencyError: if it needs a package that is not installed.
        """
        entries = self.entries()
        if name not in entries:
            valid = ", ".join(sorted(entries))
            hint = nearest(name, entries)
            raise ConfigError(f"unknown {self.family} '{cut(name)}'{hint} (valid: {valid})")
        return entries[name].load()

    def check(
        self, name: str, options: Mapping[str, Any], *, where: str = "", also: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Return the options of a component with defaults filled in and types coerced.

        An option that is set by its former name is returned under its current one, with a warning.

        Args:
            name: of the component.
            options: the options that are set.
            where: the section's key in messages; the family by default.
            also: further keys of the section, which are not options of the component.

        Raises:
            ConfigError: naming the key, what was wrong and the nearest valid key.
        """
        component = self.get(name)
        schema = options_schema(component)
        current = self.with_current_names(name, options, where=where)
        try:
            checked = schema(**{**self.entries()[name].defaults, **current}).model_dump()
            # Constructors are light; they check options that depend on each other.
            built = component(**checked)
        except ValidationError as error:
            names = [*also, *schema.model_fields]
            raise ConfigError(explain(error, where or self.family, lambda _: names, schema)) from None
        except ValueError as error:
            raise ConfigError(f"{where or self.family}: {error}") from None
        missing = [m for m in sorted(get_protocol_members(self.contract)) if not hasattr(built, m)]
        if missing:
            raise ConfigError(
                f"{self.family} '{name}' lacks {', '.join(missing)}, which "
                f"{self.contract.__module__}.{self.contract.__name__} requires"
            )
        return checked

    def with_current_names(
        self, name: str, options: Mapping[str, Any], *, where: str = "", warn: bool = True
    ) -> dict[str, Any]:
        """Return the options of a component, each under its current name.

        Args:
            name: of the component.
            options: the options that are set.
            where: the section's key in messages; the family by default.
            warn: whether a former name gives a `RenamedOptionWarning`.

        Raises:
            ConfigError: if an option is set by both of its names.
        """
        component = self.get(name)
        current_names: Mapping[str, str] = getattr(component, "renamed_options", {})
        current_values: Mapping[str, Mapping[str, str]] = getattr(component, "renamed_values", {})
        section = where or self.family
        for former, current in current_names.items():
            if former not in options:
                continue
            if current in options:
                raise ConfigError(
                    f"{section}.{former} is the former name of {section}.{current}, and both are set: "
                    f"remove {section}.{former}"
                )
            if warn:
                renamed = current_values.get(former, {}).get(str(options[former]))
                other = "" if renamed is None else f"={renamed}"
                message = f"{section}.{former} is deprecated, use its new name {section}.{current}{other}"
                warnings.warn(message, RenamedOptionWarning, stacklevel=_level_of_caller())
        return {
            current_names.get(option, option): current_values.get(option, {}).get(str(value), value)
            for option, value in options.items()
        }

    def build(self, name: str, options: Mapping[str, Any]) -> Any:
        """Check the options and construct the component."""
        return self.get(name)(**self.check(name, options))


def options_schema(component: type) -> type[BaseModel]:
    """Build the pydantic model of a constructor's keyword arguments."""
    # A dataclass inherits fields whose annotations belong to the namespaces of its base classes.
    source = component if is_dataclass(component) else component.__init__  # type: ignore[misc]
    hints = get_type_hints(source, include_extras=True)
    fields: dict[str, Any] = {}
    for parameter in list(inspect.signature(component).parameters.values()):
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (hints.get(parameter.name, Any), default)
    return create_model(component.__name__ + "Options", __base__=_Options, **fields)


class Checked(BaseModel):
    """The base of schemas whose numbers are numbers: pydantic itself takes true for 1."""

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        kinds = set(_kinds(cls.model_fields[str(info.field_name)].annotation))
        if {int, float} & kinds and bool not in kinds and _holds_boolean(value):
            raise ValueError("must be a number, not true or false")
        return value


class _Options(Checked):
    model_config = ConfigDict(extra="forbid", protected_namespaces=(), allow_inf_nan=False)


def _kinds(annotation: Any) -> Iterator[Any]:
    """Yield the types of an annotation: itself, and the parts of unions, lists and the like."""
    yield annotation
    for part in get_args(annotation):
        yield from _kinds(part)


def _holds_boolean(value: Any) -> bool:
    if isinstance(value, Mapping):
        value = list(value.values())
    return any(map(_holds_boolean, value)) if isinstance(value, list | tuple) else isinstance(value, bool)


Location = tuple[int | str, ...]


def explain(
    error: ValidationError, where: str, valid: Callable[[Location], Sequence[str]], schema: type[BaseModel]
) -> str:
    """Turn a pydantic error into one line: key, problem, value, allowed range, nearest valid key.

    Args:
        error: of pydantic.
        where: prefix of every key.
        valid: returns the valid keys at the location of an unknown one.
        schema: the model that raised the error.
    """
    complaints: dict[tuple[str, str], list[str]] = {}
    for item in error.errors():
        # pydantic adds the branch of a union, such as "literal['auto']", to the location of the value.
        parts = [cut(str(part)) for part in item["loc"] if not _UNION_BRANCH.match(str(part))]
        key = ".".join([where, *parts]).strip(".")
        if item["type"] == "extra_forbidden":
            names = valid(item["loc"][:-1])
            listed = f" (valid: {', '.join(sorted(names))})" if names else ""
            complaints[f"unknown key '{key}'", f"{nearest(parts[-1], names)}{listed}"] = []
        else:
            value = "" if item["type"] == "missing" else f", got {brief(item['input'])}"
            if item["type"] == "literal_error":
                value += nearest(str(item["input"]), re.findall("'([^']*)'", item["ctx"]["expected"]))
            message = cut(item["msg"].removeprefix("Value error, "), 300)
            message = message[:1].lower() + message[1:]
            complaints.setdefault((f"{key}: ", value + _range(schema, item["loc"])), []).append(message)
    lines = [key + " or ".join(messages) + rest for (key, rest), messages in complaints.items()]
    if len(lines) > _MOST_COMPLAINTS:
        lines[_MOST_COMPLAINTS:] = [f"and {len(lines) - _MOST_COMPLAINTS} more"]
    return "; ".join(lines)


def _range(schema: type[BaseModel], loc: Location) -> str:
    """Return the range of the field at ``loc``, such as "(allowed: >= 1, <= 64)", if it has two bounds."""
    field = schema.model_fields.get(str(loc[0])) if loc else None
    if field is None:
        return ""
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
        return _range(field.annotation, loc[1:])
    bounds = {}
    for constraint in _constraints(field.metadata, field.annotation):
        for name, sign in _SIGNS.items():
            if (bound := getattr(constraint, name, None)) is not None:
                bounds[name] = f"{sign} {bound}"
    if len(bounds) < 2:
        return ""
    return f" (allowed: {', '.join(bounds[name] for name in _SIGNS if name in bounds)})"


def _constraints(metadata: Sequence[Any], annotation: Any) -> Iterator[Any]:
    """Yield the constraints of a field, also those inside a union such as ``Annotated[...] | None``."""
    for constraint in metadata:
        if isinstance(constraint, FieldInfo):
            yield from _constraints(constraint.metadata, None)
        else:
            yield constraint
    for part in get_args(annotation):
        yield from _constraints(getattr(part, "__metadata__", ()), None)


def _path(target: str | type) -> str:
    return target if isinstance(target, str) else f"{target.__module__}:{target.__qualname__}"


def _level_of_caller() -> int:
    """Return the ``stacklevel``, seen from the calling function, of the nearest caller outside of redepth."""
    package = __name__.partition(".")[0]
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        frame, level = frame.f_back, level + 1
    return level


@lru_cache(maxsize=32)
def _installed(group: str, search_path: tuple[str, ...]) -> EntryPoints:
    """Return the entry points of a group. Reading all packages is slow, and a photo needs it often."""
    return entry_points(group=group)


def _distribution(point: Any) -> str:
    return point.dist.name if point.dist is not None else point.value
