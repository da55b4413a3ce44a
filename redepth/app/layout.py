"""The page of the app: its components and where they stand. `redepth.app.events` makes them work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from redepth.app.examples import Example
from redepth.app.frame import empty_html
from redepth.app.offers import Offer, runnable
from redepth.app.results import FIRST_PAIR, PAIRS
from redepth.app.words import note_html
from redepth.registry import require

STYLE = Path(__file__).parent / "style.css"

READY = "Upload a photo or pick an example, then press Refine."


@dataclass(frozen=True)
class Form:
    """The components that are filled in."""

    photo: Any
    size: Any
    gallery: Any
    preset: Any
    about: Any
    members: Any
    steps: Any
    budget: Any
    seed: Any
    prompt: Any
    run: Any
    cancel: Any

    @property
    def settings(self) -> list[Any]:
        """The inputs of a run, in the order of `Service.settings`, the photo first."""
        return [self.photo, self.preset, self.members, self.steps, self.budget, self.seed, self.prompt]


@dataclass(frozen=True)
class Output:
    """The components that show a run and its result."""

    status: Any
    tabs: Any
    live: Any
    pair: Any
    slider: Any
    light: Any
    space_tab: Any
    space: Any
    words: Any
    archive: Any
    files: Any
    command: Any
    script: Any

    @property
    def changing(self) -> list[Any]:
        """Those that a run changes."""
        return [component for name, component in vars(self).items() if name != "space_tab"]


def theme() -> Any:
    """Return a theme of system fonts: nothing is fetched from another server."""
    gr = require("gradio", "app")
    system = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    mono = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]
    return gr.themes.Base(
        primary_hue="orange",
        neutral_hue="zinc",
        radius_size="md",
        spacing_size="sm",
        text_size="md",
        font=[gr.themes.Font(name) for name in system],
        font_mono=[gr.themes.Font(name) for name in mono],
    ).set(body_text_color_subdued="*neutral_500", body_text_color_subdued_dark="*neutral_400")


def header() -> None:
    """Place the title."""
    gr = require("gradio", "app")
    gr.HTML(
        '<div class="redepth-header"><h1>redepth</h1><p>Refine the depth of a photo at test time. '
        "Everything runs on the machine that this page comes from.</p></div>"
    )


def form(offers: Sequence[Offer], examples: Sequence[Example], chosen: str) -> Form:
    """Place the inputs."""
    gr = require("gradio", "app")
    offer = next(offer for offer in offers if offer.name == chosen)
    photo = gr.Image(
        label="Photo",
        type="filepath",
        image_mode=None,
        sources=["upload", "clipboard"],
        height=250,
        elem_id="photo",
        buttons=[],
    )
    size = gr.HTML("", elem_id="size")
    gallery = gr.Gallery(
        [(str(example.thumbnail), example.title) for example in examples],
        show_label=False,
        columns=len(examples),
        object_fit="cover",
        allow_preview=False,
        interactive=False,
        buttons=[],
        elem_id="examples",
    )
    preset = gr.Dropdown(
        [offer.name for offer in runnable(offers)], value=chosen, label="Preset", elem_id="preset"
    )
    about = gr.HTML(about_html(offer), elem_id="about")
    with gr.Row():
        members = gr.Number(offer.members, label="Members", min_width=85, elem_id="members")
        steps = gr.Number(offer.steps, label="Steps", min_width=85, elem_id="steps")
        budget = gr.Textbox("", label="Budget", placeholder="60s", min_width=85, elem_id="budget")
        seed = gr.Number(0, label="Seed", min_width=85, elem_id="seed")
    prompt = gr.Textbox(
        "",
        label="Prompt",
        placeholder="what the photo shows; empty: the preset's captioner writes it",
        visible=offer.reads_prompt,
        elem_id="prompt",
    )
    run = gr.Button("Refine", variant="primary", elem_id="run")
    cancel = gr.Button("Cancel", variant="stop", visible=False, elem_id="cancel")
    not_here(offers)
    return Form(photo, size, gallery, preset, about, members, steps, budget, seed, prompt, run, cancel)


def about_html(offer: Offer) -> str:
    """Return what a preset is."""
    return f'<p class="redepth-about">{escape(offer.description)}</p>'


def not_here(offers: Sequence[Offer]) -> None:
    """Place the list of presets that cannot run here, with what each of them needs."""
    gr = require("gradio", "app")
    missing = [offer for offer in offers if offer.hindrance]
    if not missing:
        return
    with gr.Accordion(f"{len(missing)} presets cannot run here yet", open=False, elem_id="not-here"):
        rows = (f"<dt>{escape(o.name)}</dt><dd>{escape(o.hindrance)}</dd>" for o in missing)
        gr.HTML(f'<dl class="redepth-missing">{"".join(rows)}</dl>')


def output() -> Output:
    """Place what shows a run and its result."""
    gr = require("gradio", "app")
    status = gr.HTML(note_html(READY), elem_id="status")
    with gr.Tabs(selected="live", overflow_behavior="wrap", elem_id="tabs") as tabs:
        with gr.Tab("Progress", id="live"):
            live = gr.HTML(empty_html("Here the surface improves while a photo is refined."), elem_id="live")
        with gr.Tab("Compare", id="compare"):
            pair = gr.Radio(list(PAIRS), value=FIRST_PAIR, show_label=False, container=False, elem_id="pair")
            slider = gr.ImageSlider(
                type="filepath", show_label=False, interactive=False, max_height=560, elem_id="slider"
            )
        with gr.Tab("Light", id="light"):
            light = gr.HTML(empty_html("Here you drag the light over the surface."), elem_id="light")
        with gr.Tab("3D", id="space") as space_tab:
            space = gr.HTML(empty_html("Here you turn the surface."), elem_id="space")
        with gr.Tab("Diagnostics", id="words"):
            words = gr.HTML(empty_html("Here is what the diagnostics say, in words."), elem_id="words")
        with gr.Tab("Files", id="files"):
            archive = gr.DownloadButton("All files as zip", interactive=False, elem_id="archive")
            files = gr.File(
                file_count="multiple", interactive=False, label="Files of the result", elem_id="files"
            )
        with gr.Tab("Repeat", id="repeat"):
            command, script = _code("Command line", "shell"), _code("Python", "python")
    return Output(
        status, tabs, live, pair, slider, light, space_tab, space, words, archive, files, command, script
    )


def _code(label: str, language: str) -> Any:
    gr = require("gradio", "app")
    return gr.Code(
        "",
        language=language,
        label=label,
        lines=1,
        wrap_lines=True,
        show_line_numbers=False,
        interactive=False,
        buttons=["copy"],
        elem_id=language,
    )
