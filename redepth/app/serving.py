"""The server of the app: built, started, and ended without leaving a file behind."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redepth import io
from redepth.app import safety
from redepth.app.examples import make_examples
from redepth.app.offers import all_offers, first_choice
from redepth.app.service import Service
from redepth.errors import RedepthError
from redepth.registry import require

log = logging.getLogger(__name__)

LIFETIME = 24 * 3600
"""Seconds after which gradio removes an upload."""


@dataclass(frozen=True)
class AppOptions:
    """The options of the server.

    Attributes:
        host: name or address that it listens on.
        port: None: the first free one from 7860 on.
        preset: chosen at the start, and offered if it is a file.
        device: of the refinements.
        share: whether gradio makes a public link.
        max_upload: largest upload in bytes.
        max_pixels: of a photo.
        concurrent: refinements at the same time.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    preset: str | None = None
    device: str = "auto"
    share: bool = False
    max_upload: int = 20_000_000
    max_pixels: int = io.MAX_PIXELS
    concurrent: int = 1

    @property
    def is_private(self) -> bool:
        """Whether only this machine can reach the app."""
        return safety.is_loopback(self.host) and not self.share


@dataclass(frozen=True)
class Serving:
    """A running server.

    Attributes:
        address: of the app.
        public_address: the link that gradio made, if it was asked for.
        service: what it does.
    """

    address: str
    public_address: str | None
    service: Service


@contextmanager
def serving(options: AppOptions) -> Iterator[Serving]:
    """Run the app's server in a thread, until the context ends; then its files are gone.

    Gradio takes the folder of uploads from the environment of the process: of several servers in one
    process only the last takes uploads.

    Raises:
        MissingDependencyError: gradio is not installed.
        RedepthError: the preset cannot run here, or the port is taken.
    """
    offers = all_offers(options.preset, options.device)
    with _root() as root, safety.private_environment(root / "files"):
        require("gradio", "app")
        service = Service(
            root / "files",
            offers,
            device=options.device,
            max_pixels=options.max_pixels,
            concurrent=options.concurrent,
        )
        demo = page(service, make_examples(root / "examples"), first_choice(offers, options.preset))
        try:
            _, address, public = _launched(demo, options)
            yield Serving(address, public, service)
        finally:
            service.close()
            demo.close(verbose=False)


@contextmanager
def _root() -> Iterator[Path]:
    """Make the folder of all files of the app, and remove it at the end."""
    with tempfile.TemporaryDirectory(prefix="redepth-app-", ignore_cleanup_errors=True) as name:
        root = Path(name).resolve()
        for part in ("files", "examples"):
            (root / part).mkdir()
        yield root


def page(service: Service, examples: Any, chosen: str) -> Any:
    """Return the app's page, a `gradio.Blocks`."""
    from redepth.app import events, layout

    gr = require("gradio", "app")
    with safety.guarded(gr.Blocks)(
        title="redepth", analytics_enabled=False, delete_cache=(3600, LIFETIME), fill_width=True
    ) as demo:
        layout.header()
        with gr.Row(equal_height=False, elem_id="main"):
            with gr.Column(scale=2, min_width=320, elem_id="form"):
                form = layout.form(service.offers, examples, chosen)
            with gr.Column(scale=5, min_width=320, elem_id="output"):
                output = layout.output()
        events.connect(demo, form, output, service, examples)
    return demo.queue(default_concurrency_limit=service.concurrent)


def _launched(demo: Any, options: AppOptions) -> tuple[Any, str, str | None]:
    from redepth.app import layout

    # As starlette's Middleware: the class, and what it is made with after the application.
    guard = (safety.Guard, (), {"only_loopback": options.is_private})
    try:
        launched: tuple[Any, str, str | None] = demo.launch(
            server_name=options.host,
            server_port=options.port,
            share=options.share,
            inbrowser=False,
            prevent_thread_lock=True,
            quiet=True,
            show_error=True,
            max_file_size=options.max_upload,
            allowed_paths=[],
            enable_monitoring=False,
            run_history=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            strict_cors=True,
            footer_links=["api"],
            app_kwargs={"middleware": [guard]},
            theme=layout.theme(),
            css_paths=layout.STYLE,
        )
    except OSError as error:
        where = f"{options.host}:{options.port}" if options.port else options.host
        raise RedepthError(
            f"the app cannot listen on {where}: {error}; choose another --port or --host"
        ) from error
    return launched
