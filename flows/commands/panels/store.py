"""Panel Store: `runs`, `verify`."""

from typing import Annotated

import typer

from flows.commands.panels.command import AsJson, Store, command, complete_runs, print_json
from flows.store_location import store_url

PANEL = "Store"
app = typer.Typer()


@command(app, PANEL, "headrace runs", "headrace runs --store s3://bucket/store")
def runs(store: Store = None, as_json: AsJson = False) -> None:
    """List the runs in the store, newest first."""
    from flows.commands.show import print_runs, runs_json
    from infra.store.runs import RunStore

    records, unreadable = RunStore(store_url(store)).listing()
    print_runs(records, unreadable)
    if as_json:
        print_json(runs_json(records, unreadable))


@command(app, PANEL, "headrace verify", "headrace verify latest")
def verify(
    run_id: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN_ID", help="check the artifacts of one run; default: all", autocompletion=complete_runs
        ),
    ] = None,
    store: Store = None,
) -> None:
    """Check every file of the store against its manifest.

    Reads all bytes; exit status 1 if a file is damaged.
    """
    from flows.commands.verify import verify_store

    if not verify_store(store_url(store), run_id):
        raise typer.Exit(1)
