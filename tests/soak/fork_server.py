"""A process that has imported redepth, and forks processes that run its command line at once.

A process of its own would import torch for seconds before it has anything to lose. Requests are lines of
JSON on stdin, each answered by a line on stdout:

    {"start": ARGUMENTS, "log": FILE, "imports": FILE or ""}    the process id
    {"wait": PROCESS}                                           the exit code, negative after a signal
    {"import": NAMES}                                           0

A process that has ended stays until it is waited for, so its number is not given to another one.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

Request = dict[str, Any]


def serve() -> Request | None:
    """Answer requests; return in each forked process, with the request that it is for."""
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        answer = 0
        if "start" in request:
            answer = os.fork()
            if not answer:
                return request
        elif "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        else:
            for name in request["import"]:
                with suppress(ImportError):
                    importlib.import_module(name)
        print(answer, flush=True)
    return None


def become(request: Request) -> None:
    """Make this process one that was started in a shell of its own, with its output in a file."""
    # Until the command line handles it, Ctrl-C ends the process without a word.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    sys.argv = ["redepth", *request["start"]]
    if request["imports"]:
        atexit.register(lambda: Path(request["imports"]).write_text(json.dumps(sorted(sys.modules))))


def run() -> int:
    """Run the command line and return its exit code."""
    from redepth.cli import main

    try:
        main()
    except SystemExit as end:
        return 0 if end.code is None else int(end.code)
    return 0


def leave(code: int) -> NoReturn:
    """End as the interpreter does, but keep the modules: to free them takes seconds."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__" and (started := serve()) is not None:
    become(started)
    leave(run())
