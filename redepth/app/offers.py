"""The presets that the app offers, and why others cannot run on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from redepth import checkpoints, components, io, priors
from redepth.config import DEFAULT_PRESET, Preset, load_preset, preset_names
from redepth.errors import ConfigError, NotDownloadedError, RedepthError
from redepth.runtime.device import choose_device

OFFLINE = "embedded"
"""The preset that runs on every machine."""


@dataclass(frozen=True)
class Offer:
    """A preset, as the app shows it.

    Attributes:
        name: of the preset, or of its file without the folders: pages show it.
        description: of the preset.
        members: of the preset.
        steps: of the preset.
        reads_prompt: whether its prior reads a prompt.
        hindrance: why it cannot run on this machine; empty if it can.
        file: the path that the user gave, if the preset is the user's.
    """

    name: str
    description: str = ""
    members: int = 0
    steps: int = 0
    reads_prompt: bool = False
    hindrance: str = ""
    file: str = ""

    @property
    def source(self) -> str:
        """What `load_preset` reads, and what a command line says: the name, or the file."""
        return self.file or self.name


def shown_name(source: str) -> str:
    """Return the name under which a preset is offered: that of a file has no folders."""
    return source if source in preset_names() else io.displayed(Path(source).name)


def offer_of(source: str, device: str = "auto") -> Offer:
    """Look whether a preset can run here: its options, its packages, its weights.

    Nothing is loaded, and the hub is not asked: who presses a button must not start a download of gigabytes.
    """
    name = shown_name(source)
    file = "" if source in preset_names() else source
    try:
        preset = components.resolve(load_preset(source))
        hindrance = _hindrance(source, preset, device)
        return Offer(
            name,
            preset.description,
            preset.optim.members,
            preset.optim.steps,
            _reads_prompt(preset),
            hindrance,
            file,
        )
    except RedepthError as error:
        return Offer(name, hindrance=str(error), file=file)


def _reads_prompt(preset: Preset) -> bool:
    prior = priors.REGISTRY.get(preset.prior.name)(**preset.prior.options)
    return bool(getattr(prior, "reads_prompt", True))


def _hindrance(name: str, preset: Preset, device: str) -> str:
    try:
        with checkpoints.this_machine_only():
            components.build(preset, choose_device(device))
    except NotDownloadedError:
        return f"its weights are not on this machine; run: redepth download {name}"
    except RedepthError as error:
        return str(error)
    return ""


def all_offers(own: str | None = None, device: str = "auto") -> list[Offer]:
    """Look at all presets that ship, and at the one that the app was started with.

    Raises:
        ConfigError: the preset that the app was started with cannot run.
    """
    names = preset_names()
    offers = [offer_of(name, device) for name in ([own] if own and own not in names else []) + names]
    hindrance = next((offer.hindrance for offer in offers if offer.source == own), "")
    if hindrance:
        raise ConfigError(f"--preset {own} cannot run here: {hindrance}")
    return offers


def runnable(offers: Sequence[Offer]) -> list[Offer]:
    """Return the offers that can run here."""
    return [offer for offer in offers if not offer.hindrance]


def first_choice(offers: Sequence[Offer], own: str | None = None) -> str:
    """Return the preset that is chosen at the start: one's own, the default one, or the embedded one."""
    names = {offer.source: offer.name for offer in runnable(offers)}
    return next(names[source] for source in (own, DEFAULT_PRESET, OFFLINE, *names) if source in names)
