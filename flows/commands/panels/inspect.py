"""Panel Inspect: `show`, `watch`, `compare`, `profile`, `why`, `lineage`, `report`."""

from typing import Annotated

import typer

from data_schemas.errors import ConfigError
from flows.commands.panels.command import (
    AsJson,
    RunId,
    RunOption,
    Store,
    command,
    complete_runs,
    print_json,
)
from flows.store_location import store_url

PANEL = "Inspect"
app = typer.Typer()


@command(app, PANEL, "headrace show latest", "headrace show quiet-otter-3f9a --scores")
def show(
    run_id: RunId = "latest",
    scores: Annotated[bool, typer.Option("--scores", metavar="", help="print every benchmark score instead")] = False,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Summarize a run: stages, headline figures, the report's path."""
    from flows.commands.show import print_run_scores, run_json
    from flows.commands.summary import print_summary
    from infra.store.runs import RunStore

    url = store_url(store)
    record = RunStore(url).get(run_id)
    if scores:
        print_run_scores(url, record)
    else:
        print_summary(url, record)
    if as_json:
        print_json(run_json(url, record))


@command(app, PANEL, "headrace watch", "headrace watch quiet-otter-3f9a --store s3://bucket/store")
def watch(run_id: RunId = "latest", store: Store = None, as_json: AsJson = False) -> None:
    """Follow a run of any machine that shares the store to its end.

    Shows stages, progress and the newest lines of the log. Ctrl-C ends the watching, not the run. Exit status 0 if the
    run finished, 2 if it failed, was interrupted or its process is gone.
    """
    from flows.commands.show import run_json
    from flows.commands.summary import print_summary
    from flows.commands.watch import watch as watch_run

    url = store_url(store)
    record = watch_run(url, run_id)
    print_summary(url, record)
    if as_json:
        print_json(run_json(url, record))


@command(
    app, PANEL, "headrace compare quiet-otter-3f9a brave-heron-77d0",
    "headrace compare latest --models pretrained,compressed",
)  # fmt: skip
def compare(
    run_a: Annotated[
        str, typer.Argument(metavar="RUN_A", help="a run with benchmark results", autocompletion=complete_runs)
    ],
    run_b: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN_B", help="a second run; if omitted, the models of RUN_A are compared",
            autocompletion=complete_runs,
        ),
    ] = None,
    models: Annotated[
        str, typer.Option(metavar="NAME,NAME", help="models to compare; within a run, the first with the others")
    ] = "pretrained,compressed",
    store: Store = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Compare two runs, or one run before and after compression.

    Prints the paired difference of every score over the same test items, with its 95 % interval.
    """
    from flows.commands.compare import as_json as comparison_json
    from flows.commands.compare import compare as compare_runs
    from flows.commands.compare import print_comparison
    from infra.store.runs import RunStore

    url = store_url(store)
    records = {record.run_id: record for record in map(RunStore(url).get, filter(None, (run_a, run_b)))}
    names = [name.strip() for name in models.split(",") if name.strip()]
    differences, not_compared = compare_runs(url, list(records.values()), names)
    print_comparison(differences, not_compared)
    if as_json:
        print_json(comparison_json(differences, not_compared))


@command(
    app, PANEL, "headrace profile latest", "headrace profile latest:clean --against latest:dedup",
    "headrace profile latest --against quiet-otter-3f9a --slice genre=news --html difference.html",
)  # fmt: skip
def profile(
    corpus: Annotated[
        str,
        typer.Argument(
            metavar="CORPUS", help="a run, RUN:STAGE for the corpus that a stage made, or an artifact",
            autocompletion=complete_runs,
        ),
    ] = "latest",
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="CORPUS", help="a second corpus, of which the first differs"),
    ] = None,
    slice_: Annotated[
        list[str] | None,
        typer.Option("--slice", metavar="NAME", help="compare within a slice, such as genre=news; repeatable"),
    ] = None,
    html: Annotated[str | None, typer.Option("--html", metavar="FILE", help="write the page to this file")] = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Describe the corpus of a run, or compare two corpora.

    A run's profile is that of its stage profile. Of a corpus without one it is computed and kept in the store, such as
    that of latest:clean. With --against, prints what the first has more or less of than the second, the largest movers
    first, and documents that only one of them has.
    """
    from flows.commands.profile.run import compare_profiles, show_profile

    url = store_url(store)
    if against is None:
        if slice_:
            raise ConfigError("--slice selects what --against compares; name a second corpus with --against")
        printed = show_profile(url, corpus, html)
    else:
        printed = compare_profiles(url, (corpus, against), slice_ or [], html)
    if as_json:
        print_json(printed)


@command(app, PANEL, "headrace why 'files/a.jsonl.gz#17'", "headrace why 'files/a.jsonl.gz#17' --text")
def why(
    document: Annotated[str, typer.Argument(metavar="DOC_ID", help="id of a document, SOURCE/PATH#POSITION")],
    run_id: RunOption = "latest",
    text: Annotated[
        bool, typer.Option("--text", metavar="", help="print the document's text after the last stage that kept it")
    ] = False,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Trace one document: kept, edited or rejected, by which rule."""
    from flows.commands.why import as_json as fates_json
    from flows.commands.why import fates, print_fates, text_of
    from infra.store.runs import RunStore

    url = store_url(store)
    record = RunStore(url).get(run_id)
    stages = fates(url, record, document)
    if text:
        typer.echo(text_of(stages))
        return
    print_fates(document, record, stages)
    if as_json:
        print_json(fates_json(document, record, stages))


@command(
    app, PANEL, "headrace lineage latest:benchmark", "headrace lineage pretrain/df91e0fc7b0d",
    "headrace lineage 'latest:files/a.jsonl.gz#17~swap'",
)  # fmt: skip
def lineage(
    artifact: Annotated[
        str,
        typer.Argument(
            metavar="ARTIFACT",
            help="RUN_ID:STAGE, latest:STAGE, STAGE/KEY or STAGE/KEY/ATTEMPT; RUN_ID:DOC_ID of a synthetic document",
        ),
    ],
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Trace an artifact, or a synthetic document, to its sources."""
    from flows.commands.lineage import find_artifact, lineage_json, lineage_tree, synthetic_document
    from flows.commands.synthetic_records import document_lineage
    from flows.console import console

    url = store_url(store)
    if (found := synthetic_document(url, artifact)) is not None:
        made_by, record, parent = found
        console.print(document_lineage(made_by, record, parent))
        if as_json:
            print_json({"document": record, "artifact": made_by.ref.label, "parent": parent})
        return
    root = find_artifact(url, artifact)
    console.print(lineage_tree(url, root))
    if as_json:
        print_json(lineage_json(url, root))


@command(app, PANEL, "headrace report latest")
def report(run_id: RunId = "latest", store: Store = None) -> None:
    """Write a run's report again and print its path."""
    from flows.report.build import write_report
    from infra.store.runs import RunStore

    url = store_url(store)
    typer.echo(write_report(url, RunStore(url).get(run_id)))
