"""Panel Cluster: `submit`, `attach`, `logs`, `cancel`."""

from typing import Annotated

import typer

from flows.commands.panels.command import (
    AsJson,
    ConfigPath,
    Fresh,
    Overrides,
    RunId,
    Store,
    Until,
    command,
    print_json,
)
from flows.store_location import store_url

PANEL = "Cluster"
Address = Annotated[
    str | None,
    typer.Option(metavar="URL", help="dashboard of the cluster; default: that of the run's jobs, else $RAY_ADDRESS"),
]
app = typer.Typer()


@command(app, PANEL, "headrace submit configs/demo.yaml --set execution.address=http://head:8265")
def submit(
    config: ConfigPath,
    set_: Overrides = None,
    until: Until = None,
    fresh: Fresh = False,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Hand a run to a Ray cluster as one job, and return.

    The job does not depend on this machine; `headrace attach` follows it. Needs no Prefect here.
    """
    from flows.commands.jobs import submit as submit_run
    from flows.config.run_config import load_run_config
    from flows.console import PlainView, console
    from flows.runs.request import RunRequest

    run_config = load_run_config(config, [*(set_ or []), "execution.submit=run"])
    run_id, job = submit_run(RunRequest(run_config, store_url(store), last_stage=until, fresh=fresh), PlainView())
    console.print(f"follow it with: headrace attach {run_id}; stop it with: headrace cancel {run_id}")
    if as_json:
        print_json({"run_id": run_id, "job": job.submission_id, "address": job.address})


@command(app, PANEL, "headrace attach latest", "headrace attach quiet-otter-3f9a --store s3://bucket/store")
def attach(run_id: RunId = "latest", address: Address = None, store: Store = None, as_json: AsJson = False) -> None:
    """Follow a run that works on a cluster until it ends.

    Prints what its jobs print, from the store. Ctrl-C ends this command and not the run.
    """
    from flows.commands.jobs import attach as attach_run
    from flows.commands.show import run_json
    from flows.commands.summary import print_summary

    url = store_url(store)
    record = attach_run(url, run_id, address)
    print_summary(url, record)
    if as_json:
        print_json(run_json(url, record))
    if record.status != "finished":
        raise typer.Exit(2)


@command(app, PANEL, "headrace logs latest")
def logs(run_id: RunId = "latest", store: Store = None) -> None:
    """Print what the jobs of a run printed, from the store."""
    from flows.commands.jobs import print_logs

    print_logs(store_url(store), run_id)


@command(app, PANEL, "headrace cancel quiet-otter-3f9a")
def cancel(run_id: RunId, address: Address = None, store: Store = None) -> None:
    """Stop a run; wait until nothing of it is left on the cluster.

    From the moment on that this begins, the run commits nothing. Finished work is kept: the command that began the run
    continues it.
    """
    from flows.jobs.cancelling import cancel as cancel_run

    record = cancel_run(store_url(store), run_id, address, typer.echo)
    typer.echo(f"run {record.run_id} is {record.status}, and nothing of it is left on the cluster")
