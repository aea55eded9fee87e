"""The `headrace` command: its commands by panel of the help."""

import sys

import typer

from flows.commands.panels import inspect, jobs, model, run, store
from flows.commands.panels.command import EXIT_USER_ERROR, epilog
from flows.terminal_output import make_robust, report_failure

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="From raw text to a compressed, benchmarked language model.",
    epilog=epilog("headrace run configs/demo.yaml", "headrace run --help"),
)
for panel in (run, jobs, inspect, model, store):
    app.add_typer(panel.app)


def main() -> None:
    """Entry point of the console script."""
    output = make_robust()
    try:
        app()
    finally:
        if report_failure(output):
            sys.exit(EXIT_USER_ERROR)
