"""The `headrace` command: its commands by panel of the help."""

import atexit
import contextlib
import gc
import logging
import os
import sys
from pathlib import Path

import typer

from flows.commands.panels import inspect, jobs, model, plan, run, store
from flows.commands.panels.command import EXIT_BUG, EXIT_INTERRUPTED, EXIT_USER_ERROR, epilog
from flows.terminal_output import make_robust, report_failure

OBJECTS_PER_COLLECTION = 20_000
"""New objects after which Python looks for cycles; at its own 700 that takes a fifth of the time of imports."""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="From raw text to a compressed, benchmarked language model.",
    epilog=epilog("headrace run configs/demo.yaml", "headrace run --help"),
)
for panel in (plan, run, jobs, inspect, model, store):
    app.add_typer(panel.app)


def main() -> None:
    """Entry point of the console script."""
    gc.set_threshold(OBJECTS_PER_COLLECTION)
    output = make_robust()
    status = EXIT_BUG
    if Path(getattr(sys.modules["__main__"], "__file__", None) or "").stem == "headrace":
        atexit.register(lambda: _leave(status))  # registered first, so called last
    try:
        app()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else EXIT_BUG if end.code else 0
    except KeyboardInterrupt:
        status = EXIT_INTERRUPTED
    finally:
        if report_failure(output):
            status = EXIT_USER_ERROR
    sys.exit(status)


def _leave(status: int) -> None:
    """End this process without taking its modules apart, which frees nothing and takes a second after a run."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
