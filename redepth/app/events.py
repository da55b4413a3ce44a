"""What happens on the app's page: gradio's events, each a short call of the service."""

# Without postponed annotations: gradio looks for `gr.Request` and `gr.SelectData` in those of a handler.

import uuid
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from redepth.app.examples import Example
from redepth.app.frame import live_html, page_frame
from redepth.app.jobs import Event, Failed, Finished, Started, checked, events_of
from redepth.app.layout import Form, Output, about_html
from redepth.app.progress import Progress
from redepth.app.results import FIRST_PAIR
from redepth.app.running import CancelledError
from redepth.app.service import Service, shown_name
from redepth.app.sessions import Fields
from redepth.app.words import (
    BAD,
    UNKNOWN,
    diagnostics_html,
    note_html,
    progress_html,
    step_html,
    summary_html,
)
from redepth.errors import RedepthError
from redepth.registry import require

QUEUE = "refine"
"""The refinements of pages and of clients stand in one queue."""

PRIVATE = {"api_visibility": "private", "show_progress": "hidden"}
AT_ONCE = {**PRIVATE, "queue": False}


def connect(demo: Any, form: Form, output: Output, service: Service, examples: Sequence[Example]) -> None:
    """Connect the components of a page; called inside of it."""
    gr = require("gradio", "app")
    _connect_form(gr, form, service, examples)
    _connect_run(gr, form, output, service)
    _connect_views(gr, output, service)
    connect_client(gr, form, service)
    _connect_end(gr, demo, service)


# --- the form -------------------------------------------------------------------------------------


def _connect_form(gr: Any, form: Form, service: Service, examples: Sequence[Example]) -> None:
    # Gradio would decode a photo here and write a copy; redepth decodes it, by its own rules.
    form.photo.preprocess = _path_of

    def pick(event: gr.SelectData) -> str:
        return str(examples[event.index].path)

    def describe(photo: str | None) -> str:
        return "" if photo is None else size_html(service, Path(photo))

    def choose(preset: str) -> tuple[Any, ...]:
        offer = service.offer(preset)
        return about_html(offer), offer.members, offer.steps, gr.update(visible=offer.reads_prompt)

    form.gallery.select(pick, None, form.photo, **AT_ONCE)
    form.photo.change(describe, form.photo, form.size, **AT_ONCE)
    form.preset.change(choose, form.preset, [form.about, form.members, form.steps, form.prompt], **AT_ONCE)


def _path_of(payload: Any) -> str | None:
    """Return the path of an upload, as gradio has stored it."""
    return None if payload is None else payload.path


def size_html(service: Service, photo: Path) -> str:
    """Return the size of a photo, or why it cannot be used."""
    try:
        height, width = service.size_of(photo)
    except RedepthError as error:
        return note_html(service.explain(error), BAD)
    return f'<p class="redepth-about">{escape(shown_name(photo))}, {width} x {height} pixels</p>'


# --- a run of the page ----------------------------------------------------------------------------


def _connect_run(gr: Any, form: Form, output: Output, service: Service) -> None:
    going, ended = gr.update(visible=True, interactive=True), gr.update(visible=False)
    # Changes whenever a run is cancelled that waits in gradio's queue.
    withdrawn = gr.State("")

    def begin(
        photo: str | None,
        preset: str | None,
        members: float | None,
        steps: float | None,
        budget: str | None,
        seed: float | None,
        prompt: str | None,
        request: gr.Request,
    ) -> dict[Any, Any]:
        fields = Fields(photo, preset, members, steps, budget, seed, prompt)
        try:
            checked(service, fields)
        except RedepthError as error:
            raise _error(gr, service.explain(error)) from error
        session = service.sessions.get(request.session_hash)
        # A page has one form: what it asked for before, and is not running, was lost on the way.
        session.withdraw()
        session.begin(fields)
        return {form.run: ended, form.cancel: going, output.status: progress_html("waiting for its turn")}

    def refine(request: gr.Request) -> Iterator[dict[Any, Any]]:
        session = service.sessions.get(request.session_hash)
        job = session.waiting()
        if job is None:  # it was cancelled, which the form has been told
            yield {output.status: gr.skip()}
            return
        for event in events_of(service, session, job):
            changed = changes(gr, output, event)
            if isinstance(event, Finished | Failed):
                changed |= {form.run: going, form.cancel: ended}
            yield changed
            _raise_if_failed(gr, event)

    def stop(request: gr.Request) -> dict[Any, Any]:
        if service.sessions.get(request.session_hash).stop():
            # Its last event answers the form.
            return {form.cancel: gr.update(interactive=False)}
        told = note_html(str(CancelledError()))
        return {form.run: going, form.cancel: ended, output.status: told, withdrawn: uuid.uuid4().hex}

    begun = form.run.click(
        begin,
        form.settings,
        [form.run, form.cancel, output.status],
        # The queue shows errors; no other run stands in this one.
        concurrency_limit=None,
        **PRIVATE,
    )
    refining = begun.success(
        refine,
        None,
        [form.run, form.cancel, *output.changing],
        # Else the name of the function, which is that of the endpoint for clients.
        api_name="page",
        api_visibility="private",
        show_progress="minimal",
        show_progress_on=[output.status],
        concurrency_limit=service.concurrent,
        concurrency_id=QUEUE,
    )
    form.cancel.click(stop, None, [form.run, form.cancel, output.status, withdrawn], **AT_ONCE)
    # Only then: gradio would end a run that goes on without its partial result.
    withdrawn.change(None, cancels=[refining])


def _raise_if_failed(gr: Any, event: Event) -> None:
    if isinstance(event, Failed) and not event.cancelled:
        raise _error(gr, event.message)


def _error(gr: Any, message: str) -> Exception:
    # Gradio takes the text as HTML, and the name of a file may be in it.
    error: Exception = gr.Error(escape(message), print_exception=False)
    return error


def changes(gr: Any, output: Output, event: Event) -> dict[Any, Any]:
    """Return what an event of a job changes on the page."""
    if event is None:
        return {output.status: gr.skip()}
    if isinstance(event, str):
        return {output.status: progress_html(event)}
    if isinstance(event, Progress):
        return {output.status: step_html(event), output.live: live_html(event)}
    if isinstance(event, Failed):
        return {output.status: note_html(event.message, UNKNOWN if event.cancelled else BAD)}
    if isinstance(event, Started):
        return {
            output.tabs: gr.update(selected="live"),
            output.command: event.settings.command(event.photo),
            output.script: event.settings.script(event.photo),
        }
    return _result_changes(gr, output, event)


def _result_changes(gr: Any, output: Output, finished: Finished) -> dict[Any, Any]:
    result, shown = finished.result, finished.shown
    return {
        output.status: summary_html(result),
        output.tabs: gr.update(selected="compare"),
        output.pair: FIRST_PAIR,
        output.slider: tuple(map(str, shown.pair(FIRST_PAIR))),
        output.light: page_frame(shown.page, "light"),
        output.space: "",
        output.words: diagnostics_html(result),
        output.archive: gr.update(value=str(shown.archive), interactive=True),
        output.files: [str(path) for path in shown.files],
    }


def _connect_views(gr: Any, output: Output, service: Service) -> None:
    def compare(pair: str, request: gr.Request) -> Any:
        shown = service.sessions.get(request.session_hash).shown
        return gr.skip() if shown is None else tuple(map(str, shown.pair(pair)))

    def turn(request: gr.Request) -> str:
        shown = service.sessions.get(request.session_hash).shown
        return gr.skip() if shown is None else page_frame(shown.page, "space")

    # When it is opened: a browser draws few pictures by WebGL at the same time.
    output.space_tab.select(turn, None, output.space, **AT_ONCE)
    output.pair.input(compare, output.pair, output.slider, **AT_ONCE)


def _connect_end(gr: Any, demo: Any, service: Service) -> None:
    def leave(request: gr.Request) -> None:
        service.sessions.end(request.session_hash)

    # A closed tab, or a client that is gone.
    demo.unload(leave)


# --- a run of a client ----------------------------------------------------------------------------


def connect_client(gr: Any, form: Form, service: Service) -> None:
    """Add the endpoint ``/refine`` for clients; its components are not on the page."""
    files = gr.File(file_count="multiple", label="Files", visible=False)
    record = gr.JSON(label="Record", visible=False)
    trigger = gr.Button(visible=False)

    def refine(
        photo: str | None,
        preset: str | None,
        members: float | None,
        steps: float | None,
        budget: str | None,
        seed: float | None,
        prompt: str | None,
        request: gr.Request,
    ) -> Iterator[tuple[Any, Any]]:
        session = service.sessions.get(request.session_hash)
        job = session.begin(Fields(photo, preset, members, steps, budget, seed, prompt))
        for event in events_of(service, session, job):
            yield _answer(gr, event)
            _raise_if_failed(gr, event)

    trigger.click(
        refine,
        form.settings,
        [files, record],
        api_name="refine",
        api_description="Refine a photo. Returns the files of the result, and what run.json holds.",
        show_progress="hidden",
        concurrency_limit=service.concurrent,
        concurrency_id=QUEUE,
    )


def _answer(gr: Any, event: Event) -> tuple[Any, Any]:
    """Return what a client is told of an event."""
    if isinstance(event, Finished):
        return [str(path) for path in event.shown.files], dict(event.shown.record)
    if isinstance(event, Progress):
        return gr.skip(), {"progress": event.line}
    if isinstance(event, str):
        return gr.skip(), {"progress": event}
    return gr.skip(), gr.skip()
