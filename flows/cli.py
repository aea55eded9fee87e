"""The `headrace` command: its commands by panel of the help."""

import typer

from flows.commands.panels import inspect, model, run, store
from flows.commands.panels.command import epilog

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="From raw text to a compressed, benchmarked language model.",
    epilog=epilog("headrace run configs/demo.yaml", "headrace run --help"),
)
for panel in (run, inspect, model, store):
    app.add_typer(panel.app)


def main() -> None:
    """Entry point of the console script."""
    app()
