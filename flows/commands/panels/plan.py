"""Panel Plan: `plan`, `calibrate`, `calibration`, `doctor`."""

from typing import Annotated

import typer

from flows.commands.panels.command import (
    AsJson,
    KeepVersions,
    Overrides,
    Store,
    Until,
    command,
    print_json,
)
from flows.store_location import store_url

PANEL = "Plan"
PlannedConfig = Annotated[str | None, typer.Argument(metavar="CONFIG", help="run config, such as configs/demo.yaml")]
ClusterName = Annotated[
    str | None,
    typer.Option("--cluster", metavar="NAME|FILE", help="plan training on a cluster, such as 512xH100 or a YAML file"),
]
SourceBytes = Annotated[
    str | None, typer.Option("--source-bytes", metavar="BYTES", help="with --cluster: raw text, such as 570TB")
]
Published = Annotated[
    str | None, typer.Option("--published", metavar="FILE", help="predict the published runs of a CSV file instead")
]
HtmlPage = Annotated[
    str | None, typer.Option("--html", metavar="FILE", help="with --cluster: write the plan as a page, too")
]
app = typer.Typer()


@command(
    app, PANEL, "headrace plan configs/demo.yaml", "headrace plan configs/demo.yaml --set pretrain.tokens=20000000",
    "headrace plan configs/reference.yaml --cluster 4096xH100",
)  # fmt: skip
def plan(
    config: PlannedConfig = None,
    set_: Overrides = None,
    until: Until = None,
    keep_versions: KeepVersions = False,
    cluster: ClusterName = None,
    source_bytes: SourceBytes = None,
    html: HtmlPage = None,
    published: Published = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Show what a run would reuse and run, why, and the cost.

    Computes nothing. Costs are estimates of wall time, peak memory and floating-point operations.

    With --cluster: the layouts of its training on that cluster, by time and by money.
    """
    if cluster is not None or published is not None or source_bytes is not None or html is not None:
        here = {"--until": until, "--keep-versions": keep_versions, "--store": store}
        _refuse_ignored(here | ({} if published is None else {"--set": set_}))
        _plan_elsewhere(config, set_ or [], cluster, source_bytes, html, published, as_json)
    else:
        _plan_here(_required(config), set_ or [], until, keep_versions, store, as_json)


def _plan_here(
    config: str, overrides: list[str], until: str | None, keep_versions: bool, store: str | None, as_json: bool
) -> None:
    from flows.config.run_config import load_run_config
    from flows.console import console, plan_table
    from flows.planning.planner import Planner
    from flows.planning.store_rates import sources_sentence
    from flows.runs.earlier import continuation, unfinished_run
    from flows.runs.request import RunRequest
    from infra.store.artifacts import ArtifactStore
    from infra.store.runs import RunStore

    url = store_url(store)
    request = RunRequest(load_run_config(config, overrides), url, last_stage=until)
    runs = RunStore(url)
    planner = Planner(ArtifactStore(url), runs, request.config, unfinished_run(runs, request), None, keep_versions)
    planned = planner.plan(last_stage=until)
    console.print(plan_table(planned))
    if sentence := sources_sentence([(row.stage.name, row.estimate) for row in planned if row.action == "run"]):
        console.print(sentence)
    if note := continuation(runs, request):
        console.print(f"headrace run {note}")
    forecast = planner.forecast if until is None else None
    if forecast:
        console.print(
            f"pretraining is expected to reach {forecast.value:.3f} bits per byte ({forecast.low:.3f} to "
            f"{forecast.high:.3f}) by the scaling law in this store",
        )
    if as_json:
        expected = {"expected_bits_per_byte": forecast._asdict()} if forecast else {}
        print_json({"stages": [row.as_json() for row in planned]} | expected)


@command(app, PANEL, "headrace calibrate", "headrace calibrate my.yaml")
def calibrate(
    config: Annotated[
        str | None, typer.Argument(metavar="CONFIG", help="train its network for some steps; by default the demo's")
    ] = None,
    set_: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Measure this machine for later plans, in less than a minute.

    Matrix products, memory, small pieces of the data stages and steps of training. The rates are kept in the user's
    cache folder, for this kind of machine, and replace those of the code; what a store has learned from its runs comes
    first.
    """
    from flows.calibration import calibrate as measure
    from flows.commands.calibration import print_machine_rates
    from flows.config.run_config import load_run_config
    from flows.console import console

    run_config = load_run_config(config, set_ or []) if config else None
    measured = measure(run_config, lambda line: console.print(f"calibrate: {line}"))
    print_machine_rates(measured)
    if as_json:
        print_json(measured.model_dump(mode="json"))


@command(app, PANEL, "headrace calibration", "headrace calibration --store s3://bucket/store --json")
def calibration(store: Store = None, as_json: AsJson = False) -> None:
    """Show how far off the plans of this store's runs were.

    And the rates at which they would have been right, which later plans on this kind of machine use. What is off by
    more than 25 % is marked. Stages that were resumed, or of which parts were finished before, teach nothing; neither
    do other machines.
    """
    from flows.commands.calibration import calibration_json, print_calibration, read_calibration

    found = read_calibration(store_url(store))
    print_calibration(found)
    if as_json:
        print_json(calibration_json(found))


@command(app, PANEL, "headrace doctor", "headrace doctor --store s3://bucket/store --json")
def doctor(store: Store = None, as_json: AsJson = False) -> None:
    """Examine this machine: what is missing, and how to get it.

    Measures matrix products and memory once (two seconds; kept in the user's cache folder). Exit status 2 if no run can
    start here.
    """
    from flows.commands.doctor.examination import examine, findings_json, print_findings, refuse_blocked

    findings = examine(store_url(store))
    print_findings(findings)
    if as_json:
        print_json({"findings": findings_json(findings)})
    refuse_blocked(findings)


def _required(config: str | None) -> str:
    from data_schemas.errors import ConfigError

    if config is None:
        raise ConfigError("plan needs CONFIG, such as configs/demo.yaml, or --published FILE")
    return config


def _refuse_ignored(options: dict[str, object]) -> None:
    """Refuse options that change nothing in a plan for other machines."""
    from data_schemas.errors import ConfigError

    if given := [name for name, value in options.items() if value]:
        raise ConfigError(
            f"{' and '.join(given)} would change nothing: --cluster, --source-bytes and --published are about other "
            f"machines, whatever is in a store here; omit {'it' if len(given) == 1 else 'them'}"
        )


def _plan_elsewhere(
    config: str | None,
    overrides: list[str],
    cluster: str | None,
    source_bytes: str | None,
    html: str | None,
    published: str | None,
    as_json: bool,
) -> None:
    from data_schemas.errors import ConfigError
    from flows.commands.cluster_plan.page import cluster_page
    from flows.commands.cluster_plan.plan import cluster_plan_json, number_of_bytes, plan_cluster
    from flows.commands.cluster_plan.published import plan_published, print_published, published_json
    from flows.commands.cluster_plan.tables import print_cluster_plan
    from flows.config.run_config import load_run_config
    from flows.report.templates import write_html
    from infra.planner.clusters import read_cluster

    if published is not None:
        if config is not None or cluster is not None or source_bytes is not None or html is not None:
            raise ConfigError(
                "--published predicts the runs of its file; omit CONFIG, --cluster, --source-bytes and --html"
            )
        predictions = plan_published(published)
        print_published(predictions)
        if as_json:
            print_json(published_json(predictions))
        return
    run_config = load_run_config(_required(config), overrides)
    if cluster is None:
        option = "--source-bytes" if source_bytes is not None else "--html"
        raise ConfigError(f"{option} is for a plan on a cluster; add --cluster, such as --cluster 64xH100")
    planned = plan_cluster(run_config, read_cluster(cluster), number_of_bytes(source_bytes))
    print_cluster_plan(planned)
    if html is not None:
        write_html(html, cluster_page(planned, run_config.name))
    if as_json:
        print_json(cluster_plan_json(planned))
