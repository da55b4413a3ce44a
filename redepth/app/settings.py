"""The settings of one run: checked, as overrides of a preset, and as the command line that repeats it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from redepth import components, io
from redepth.config import Preset, load_preset
from redepth.errors import ConfigError, brief, nearest
from redepth.literals import MAX_SEED, Export

FILES: tuple[Export, ...] = (
    "map",
    "preview",
    "initial",
    "uncertainty",
    "normals",
    "comparison",
    "mesh",
    "view",
)
"""The files of a result that the app writes. Every result has them."""

LONGEST_PROMPT = 2000
"""Most characters of a prompt. A text encoder reads fewer, and says so."""


@dataclass(frozen=True)
class RunSettings:
    """The settings of one run.

    Attributes:
        preset: a name, or the file that the app was started with.
        members: None: the preset's.
        steps: None: the preset's.
        budget: time limit such as ``60s``; empty: the preset's.
        seed: of all random numbers.
        prompt: empty: none, or that of the preset's captioner.
        device: as for ``redepth refine --device``.
        max_pixels: of a photo.
    """

    preset: str
    members: int | None = None
    steps: int | None = None
    budget: str = ""
    seed: int = 0
    prompt: str = ""
    device: str = "auto"
    max_pixels: int = io.MAX_PIXELS

    @property
    def changes(self) -> list[str]:
        """The overrides of members and steps."""
        chosen = {"members": self.members, "steps": self.steps}
        return [f"optim.{name}={value}" for name, value in chosen.items() if value is not None]

    @property
    def overrides(self) -> list[str]:
        """All overrides of the preset, as for `redepth.refine`, without the files that are written."""
        budget = [f"optim.budget={json.dumps(self.budget)}"] if self.budget else []
        return [*self.changes, *budget, *(["prompt.captioner=none"] if self.prompt else [])]

    def resolved(self) -> Preset:
        """Return the preset with the overrides, every option checked.

        Raises:
            ConfigError: a setting is wrong.
        """
        written = f"output.write={json.dumps(list(FILES))}"
        return components.resolve(load_preset(self.preset, [*self.overrides, written]))

    def command(self, photo: str) -> str:
        """Return the line for a shell that repeats the run.

        Args:
            photo: name of the photo's file.
        """
        words = ["redepth", "refine", _as_argument(photo), "--preset", self.preset]
        for change in self.changes:
            words += ["--set", change]
        if self.budget:
            words += ["--budget", self.budget]
        if self.prompt:
            words += ["--prompt", self.prompt]
        words += ["--seed", str(self.seed)]
        if self.device != "auto":
            words += ["--device", self.device]
        if self.max_pixels != io.MAX_PIXELS:
            words += ["--max-pixels", str(self.max_pixels)]
        return shlex.join([*words, "--write", ",".join(FILES)])

    def script(self, photo: str) -> str:
        """Return the Python lines that repeat the run.

        Args:
            photo: name of the photo's file.
        """
        written = f"output.write={','.join(FILES)}"
        arguments = {"preset": self.preset, "overrides": [*self.overrides, written]}
        options: dict[str, Any] = {"seed": self.seed}
        if self.prompt:
            options["prompt"] = self.prompt
        if self.device != "auto":
            options["device"] = self.device
        if self.max_pixels != io.MAX_PIXELS:
            options["max_pixels"] = self.max_pixels
        lines = [f"    {name}={value!r}," for name, value in (arguments | options).items()]
        call = [f"result = redepth.refine(\n    {photo!r},", *lines, ")", "result.save('out/photo')"]
        return "\n".join(["import redepth\n", *call])


def settings_of_form(
    preset: str | None,
    members: float | None = None,
    steps: float | None = None,
    budget: str | None = None,
    seed: float | None = None,
    prompt: str | None = None,
    *,
    offered: Mapping[str, str],
) -> RunSettings:
    """Return the settings that a form, or a client, has filled in.

    Args:
        preset: one of those that are offered.
        members: a whole number from 1 on; None: the preset's.
        steps: likewise.
        budget: a time with or without a unit; empty: the preset's.
        seed: a whole number from 0 on; None: 0.
        prompt: empty: none.
        offered: presets that may be chosen, name -> what `load_preset` reads: no other file is read.

    Raises:
        ConfigError: a value is wrong, or the settings do not go together.
    """
    if preset is None or preset not in offered:
        raise ConfigError(
            f"preset {brief(preset)} is not offered here{nearest(str(preset), list(offered))} "
            f"(choose {', '.join(offered)})"
        )
    text = " ".join((prompt or "").split())
    if len(text) > LONGEST_PROMPT:
        raise ConfigError(f"the prompt has {len(text)} characters: give {LONGEST_PROMPT} at most")
    settings = RunSettings(
        preset=offered[preset],
        members=_whole("members", members, 1),
        steps=_whole("steps", steps, 1),
        budget=(budget or "").strip(),
        seed=_whole("seed", seed, 0) or 0,
        prompt=text,
    )
    settings.resolved()
    return settings


def _whole(name: str, value: float | None, least: int) -> int | None:
    """Return a field of a form as a whole number. Raises ConfigError."""
    if value is None:
        return None
    number = cast(object, value)  # a client may send anything
    # The range first: a number may be too large to be made a float, or be none.
    if isinstance(number, int | float) and not isinstance(number, bool) and least <= number <= MAX_SEED:
        whole = int(number)
        if whole == number:
            return whole
    raise ConfigError(f"{name}: give a whole number from {least} on, got {brief(value)}")


def _as_argument(name: str) -> str:
    """Return a file's name such that no option is read from it."""
    return f"./{name}" if name.startswith("-") else name
