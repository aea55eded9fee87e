"""The `headrace` command. What a user can mend ends with one sentence and exit status 2; heavy imports wait."""

import json
import sys
import traceback
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, Literal

import typer

from data_schemas.errors import HeadraceError
from flows.store_location import store_url

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="From raw text to a compressed, benchmarked language model; every stage retryable and rerunnable.",
)

ConfigPath = Annotated[str, typer.Argument(help="run config, such as configs/demo.yaml")]
RunId = Annotated[str, typer.Argument(metavar="RUN_ID", help="id of a run, the beginning of one, or 'latest'")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="change one setting; repeatable")
]
Store = Annotated[str | None, typer.Option(help="URL of the artifact store; default: $HEADRACE_HOME or ./.headrace")]
AsJson = Annotated[bool, typer.Option("--json", help="last line of output: one JSON object")]
Until = Annotated[str | None, typer.Option(metavar="STAGE", help="the last stage")]

EXIT_BUG = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Register a command whose user errors end in one sentence."""

    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except HeadraceError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(EXIT_USER_ERROR) from None
        except KeyboardInterrupt:
            typer.echo("interrupted; what was finished is kept, the same command continues it", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except typer.Exit:
            raise
        except Exception as error:
            typer.echo(own_traceback(error), err=True)
            raise typer.Exit(EXIT_BUG) from None

    app.command()(guarded)
    return guarded


@command
def plan(
    config: ConfigPath, set_: Overrides = None, until: Until = None, store: Store = None, as_json: AsJson = False
) -> None:
    """Say for each stage whether it would be reused or run, why, and what it would cost; computes nothing."""
    from flows.console import console, plan_table
    from flows.planning import Planner
    from flows.run_config import load_run_config
    from flows.run_session import RunRequest, resumable
    from infra.store.artifacts import ArtifactStore
    from infra.store.runs import RunStore

    url = store_url(store)
    request = RunRequest(load_run_config(config, set_ or []), url, last_stage=until)
    record, notes = resumable(RunStore(url), request)
    planned = Planner(ArtifactStore(url), RunStore(url), request.config, record, None).plan(last_stage=until)
    console.print(plan_table(planned))
    for note in notes:
        console.print(f"headrace run {note}", markup=False)
    if as_json:
        print_json({"stages": [row.as_json() for row in planned]})


@command
def run(
    config: ConfigPath,
    set_: Overrides = None,
    until: Until = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="do not continue an unfinished run of this config")] = False,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Run a config: reuse what is there, continue what was interrupted, do the rest, write the report."""
    from flows.run_config import load_run_config
    from flows.run_session import RunRequest

    run_config = load_run_config(config, set_ or [])
    _execute(RunRequest(run_config, store_url(store), last_stage=until, fresh=fresh), as_json)


@command
def rerun(
    stage: Annotated[str, typer.Argument(help="the stage to run again")],
    run_id: Annotated[str, typer.Option("--run", metavar="RUN_ID", help="the run whose inputs are used")] = "latest",
    set_: Overrides = None,
    only: Annotated[bool, typer.Option("--only", help="leave the stages that depend on it alone")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="do not continue an unfinished rerun of the same")] = False,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Make a new attempt at one stage; what depends on it follows if its bytes changed."""
    from flows.run_config import recorded_config
    from flows.run_session import rerun_request
    from infra.store.runs import RunStore
    from stages.registry import stage_named

    url = store_url(store)
    stage_named(stage)
    base = RunStore(url).get(run_id)
    config = recorded_config(base, set_ or [])
    _execute(rerun_request(url, base, config, stage, only, fresh), as_json)


@command
def sweep(
    source: Annotated[
        str, typer.Argument(metavar="CONFIG|RUN_ID", help="a run config, or a run whose model is compressed")
    ],
    recipes: Annotated[str, typer.Argument(help="recipes of compression, such as configs/recipes/frontier.yaml")],
    set_: Overrides = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Compress one model by many recipes, and say which reach most; what is there already is reused."""
    from flows.commands.sweep import LAST_STAGE, print_sweep, sweep_json
    from flows.commands.sweep import sweep as run_sweep
    from flows.console import run_view
    from flows.planning import stages_until
    from flows.recipes import read_recipes
    from flows.run_artifacts import report_location
    from flows.run_config import load_run_config, recorded_config
    from infra.store.runs import RunStore

    url, chosen = store_url(store), read_recipes(recipes)
    given = None
    if source.endswith((".yaml", ".yml")):
        run_config = load_run_config(source, set_ or [])
    else:
        given = RunStore(url).get(source)
        run_config = recorded_config(given, set_ or [])
    with run_view([stage.name for stage in stages_until(LAST_STAGE)]) as view:
        done = run_sweep(run_config, chosen, url, view, given)
    print_sweep(done)
    last = next((one.run_id for one in reversed(done) if one.run_id), None)
    if last:
        typer.echo(f"report with all recipes: {report_location(url, RunStore(url).get(last))}")
    if as_json:
        print_json(sweep_json(done))


@command
def runs(store: Store = None, as_json: AsJson = False) -> None:
    """List the runs of the store, newest first."""
    from flows.commands.show import runs_table
    from infra.store.runs import RunStore

    records = RunStore(store_url(store)).all()
    runs_table(records)
    if as_json:
        print_json({"runs": [record.model_dump(mode="json", exclude={"config"}) for record in records]})


@command
def show(run_id: RunId = "latest", store: Store = None, as_json: AsJson = False) -> None:
    """Show what a run did, its figures and where its report lies."""
    from flows.commands.show import run_summary, show_run
    from infra.store.runs import RunStore

    url = store_url(store)
    record = RunStore(url).get(run_id)
    show_run(url, record)
    if as_json:
        print_json(run_summary(url, record))


@command
def compare(
    run_a: Annotated[str, typer.Argument(metavar="RUN_A", help="a run with benchmark results")],
    run_b: Annotated[
        str | None, typer.Argument(metavar="[RUN_B]", help="another; where left out, RUN_A's models are compared")
    ] = None,
    models: Annotated[
        str, typer.Option(metavar="NAME,NAME", help="whose scores; within a run, the first against the others")
    ] = "pretrained,compressed",
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Compare two runs, and in each the model before and after compression: paired differences, item by item."""
    from flows.commands.compare import as_json as comparison_json
    from flows.commands.compare import compare as compare_runs
    from flows.commands.compare import print_comparison
    from infra.store.runs import RunStore

    url = store_url(store)
    records = {record.run_id: record for record in map(RunStore(url).get, filter(None, (run_a, run_b)))}
    names = [name.strip() for name in models.split(",") if name.strip()]
    differences, left_out = compare_runs(url, list(records.values()), names)
    print_comparison(differences, left_out)
    if as_json:
        print_json(comparison_json(differences, left_out))


@command
def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="FOLDER", help="a checkpoint of Hugging Face's, or an export of Headrace's")
    ],
    config: Annotated[
        str | None, typer.Argument(help="run config with the tasks; those that come with Headrace where left out")
    ] = None,
    output: Annotated[str, typer.Option(help="folder for scores, items and answers")] = "evaluation",
    name: Annotated[str | None, typer.Option(help="of the model in the tables; the folder's where left out")] = None,
    set_: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Put a config's benchmark tasks to any model in a folder, without a run."""
    from flows.commands.evaluate import evaluate as put_tasks
    from flows.commands.show import scores_table
    from flows.run_config import apply_overrides, build_run_config, load_run_config

    changes = set_ or []
    loaded = load_run_config(config, changes) if config else build_run_config(apply_overrides({}, changes), "--set")
    scores = put_tasks(model, loaded, output, name).to_pylist()
    scores_table(scores)
    typer.echo(f"scores and items: {output}")
    if as_json:
        print_json({"scores": scores, "output": output})


@command
def lineage(
    artifact: Annotated[
        str, typer.Argument(help="STAGE/KEY[/ATTEMPT] as 'show' prints it, RUN_ID:STAGE, or latest:STAGE")
    ],
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Trace an artifact down to the sources it was made from."""
    from flows.commands.lineage import find_artifact, lineage_json, lineage_tree
    from flows.console import console

    url = store_url(store)
    found = find_artifact(url, artifact)
    console.print(lineage_tree(url, found))
    if as_json:
        print_json(lineage_json(url, found))


@command
def why(
    document: Annotated[str, typer.Argument(metavar="DOC_ID", help="id of a document, SOURCE/PATH#POSITION")],
    run_id: Annotated[str, typer.Option("--run", metavar="RUN_ID", help="the run to look in")] = "latest",
    text: Annotated[bool, typer.Option("--text", help="print its text as the last stage that kept it left it")] = False,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Tell what became of one document: kept, changed or left out, by which rule and why."""
    from flows.commands.why import as_json as fates_json
    from flows.commands.why import fates, print_fates, text_of
    from infra.store.runs import RunStore

    url = store_url(store)
    record = RunStore(url).get(run_id)
    found = fates(url, record, document)
    if text:
        typer.echo(text_of(found))
        return
    print_fates(document, record, found)
    if as_json:
        print_json(fates_json(document, record, found))


@command
def report(run_id: RunId = "latest", store: Store = None) -> None:
    """Write the report of a run again and print where it is."""
    from flows.report.build import write_report
    from infra.store.runs import RunStore

    url = store_url(store)
    typer.echo(write_report(url, RunStore(url).get(run_id)))


@command
def verify(
    run_id: Annotated[
        str | None, typer.Argument(metavar="[RUN_ID]", help="check one run's artifacts; all where left out")
    ] = None,
    store: Store = None,
) -> None:
    """Read every file of the artifacts and compare it with what was written; exit status 1 where one is damaged."""
    from flows.commands.verify import verify_store

    if not verify_store(store_url(store), run_id):
        raise typer.Exit(1)


@command
def generate(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN_ID|FOLDER",
            help="a run, or a folder that holds an export of Headrace's or a GPT-NeoX of Hugging Face's",
        ),
    ],
    prompt: Annotated[str, typer.Argument(help="the text to go on from")],
    tokens: Annotated[int, typer.Option(min=1, help="tokens to generate")] = 128,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token each time")] = 0.8,
    top_k: Annotated[int, typer.Option(min=1, help="sample among this many likeliest tokens")] = 50,
    seed: Annotated[int, typer.Option(help="same seed, same text")] = 0,
    stage: Annotated[str, typer.Option(help="whose model of a run: compress or pretrain")] = "compress",
    store: Store = None,
) -> None:
    """Let a run's model, or one in a folder, go on from a text."""
    from flows.commands.generate import continue_text

    typer.echo(continue_text(store_url(store), source, stage, prompt, tokens, temperature, top_k, seed))


@command
def export(
    run_id: RunId,
    folder: Annotated[str, typer.Argument(help="where to write; a new or an empty folder")],
    format_: Annotated[
        Literal["huggingface", "gguf", "onnx", "headrace"],
        typer.Option(
            "--format", help="for transformers; for llama.cpp, in one file; for onnxruntime; or for 'headrace generate'"
        ),
    ] = "huggingface",
    stage: Annotated[str, typer.Option(help="whose model: pretrain or compress")] = "pretrain",
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"], typer.Option(help="of the matrices in the files")
    ] = "float32",
    store: Store = None,
) -> None:
    """Write a run's model, its tokenizer and a model card into a folder that other programs read."""
    from flows.commands.export import ExportRequest
    from flows.commands.export import export as write_export

    for line in write_export(ExportRequest(store_url(store), run_id, folder, format_, stage, dtype)):
        typer.echo(line)


def _execute(request: Any, as_json: bool) -> None:
    from flows.commands.show import run_summary, show_run
    from flows.console import console, run_view
    from flows.pipeline import execute_request
    from flows.planning import stages_until
    from infra.store.runs import RunStore

    with run_view([stage.name for stage in stages_until(request.last_stage)]) as view:
        run_id = execute_request(request, view)
    record = RunStore(request.store_url).get(run_id)
    show_run(request.store_url, record)
    console.print(f"run {run_id} finished", markup=False)
    if as_json:
        print_json(run_summary(request.store_url, record))


def own_traceback(error: BaseException) -> str:
    """The traceback without the flow engine's frames."""
    shown = traceback.TracebackException.from_exception(error)
    shown.stack = traceback.StackSummary.from_list(
        [frame for frame in shown.stack if "/prefect/" not in frame.filename]
    )
    return "".join(shown.format()) + "finished stages are kept; the same command continues the run"


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on one line, whatever the terminal's width."""
    sys.stdout.write(json.dumps(value, default=str) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Entry point of the console script."""
    app()
