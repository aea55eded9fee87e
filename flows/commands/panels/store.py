"""Panel Store: `runs`, `pin`, `unpin`, `gc`, `verify`."""

from typing import Annotated

import typer

from flows.commands.panels.command import AsJson, RunId, Store, command, complete_runs, print_json
from flows.store_location import store_url

PANEL = "Store"
app = typer.Typer()


@command(app, PANEL, "headrace runs", "headrace runs --limit 200", "headrace runs --store s3://bucket/store")
def runs(
    limit: Annotated[int, typer.Option(metavar="N", min=0, help="the newest N runs; 0 for all")] = 50,
    before: Annotated[
        str | None,
        typer.Option(metavar="RUN_ID", help="only runs older than this one", autocompletion=complete_runs),
    ] = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """List the runs in the store, newest first."""
    from flows.commands.show import print_runs, run_page, runs_json

    page = run_page(store_url(store), limit or None, before)
    print_runs(page)
    if as_json:
        print_json(runs_json(page))


@command(app, PANEL, "headrace pin latest", "headrace pin quiet-otter-3f9a")
def pin(run_id: RunId, store: Store = None) -> None:
    """Keep all artifacts that a run needs, whatever its age."""
    from flows.commands.pin import pin_run

    pin_run(store_url(store), run_id)


@command(app, PANEL, "headrace unpin quiet-otter-3f9a")
def unpin(run_id: RunId, store: Store = None) -> None:
    """Undo `headrace pin`; the run itself is not changed."""
    from flows.commands.pin import unpin_run

    unpin_run(store_url(store), run_id)


@command(app, PANEL, "headrace gc", "headrace gc --older-than 12h", "headrace gc --apply --older-than 30d")
def gc(
    older_than: Annotated[
        str, typer.Option(metavar="AGE", help="age limit of runs and artifacts: a number and m, h, d or w")
    ] = "30d",
    apply: Annotated[bool, typer.Option("--apply", metavar="", help="remove it; by default nothing is")] = False,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Show, or remove with --apply, what no run needs.

    Keeps all that runs need which are pinned, not finished by a live process, or younger than the limit; removes older
    artifacts, and whatever the age partitions and progress of stages that are finished.
    """
    from flows.commands.gc import collect_garbage, garbage_json

    rows = collect_garbage(store_url(store), older_than, apply)
    if as_json:
        print_json(garbage_json(rows, apply))


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
