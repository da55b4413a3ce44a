"""The app command."""

from __future__ import annotations

import webbrowser
from contextlib import ExitStack, suppress
from threading import Event
from typing import Annotated

import typer

from redepth.cli import completion, console, options
from redepth.cli.view import has_screen
from redepth.errors import ConfigError


def app(
    host: Annotated[
        str, typer.Option(help="Name or address to listen on; by default only this machine reaches the app.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port; by default the first free one from 7860 on.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            help="Preset name or YAML file that is chosen at the start.",
            autocompletion=completion.presets,
        ),
    ] = None,
    device: options.Device = "auto",
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the app in a browser.")] = True,
    share: Annotated[
        bool, typer.Option("--share", help="Make a public link through gradio's servers, for a week.")
    ] = False,
    max_upload: Annotated[str, typer.Option(help="Largest upload, such as 20MB.")] = "20MB",
    max_pixels: options.MaxPixels = 100_000_000,
    concurrent: Annotated[
        int, typer.Option(min=1, max=64, help="Refinements at the same time, each with its own models.")
    ] = 1,
    threads: options.Threads = None,
    imports: options.Imports = None,
    quiet: options.Quiet = False,
) -> None:
    """Open an app in the browser: refine a photo, see it improve, drag the light, take the files."""
    from redepth.app.serving import AppOptions, serving
    from redepth.runtime.work import use_threads

    use_threads(threads)
    chosen = AppOptions(
        host=host,
        port=port,
        preset=preset,
        device=device,
        share=share,
        max_upload=_upload_limit(max_upload),
        max_pixels=max_pixels,
        concurrent=concurrent,
    )
    if not chosen.is_private:
        console.warn(
            "everybody who can reach this app can use this machine to refine photos; there is no password"
        )
    with ExitStack() as stack:
        with console.status("starting the app"):
            running = stack.enter_context(serving(chosen))
        # Ctrl-C is the usual end of a server, and no failure.
        with suppress(KeyboardInterrupt):
            console.out.print(f"redepth runs at {running.address}; Ctrl-C ends it", highlight=False)
            if running.public_address:
                console.out.print(f"public link: {running.public_address}", highlight=False)
            if open_browser and has_screen():
                webbrowser.open(running.address)
            Event().wait()


def _upload_limit(text: str) -> int:
    from redepth.config.units import memory

    try:
        return memory(text)
    except ValueError as error:
        raise ConfigError(f"--max-upload {text}: {error}") from None
