"""Parts that all commands share: the decorator that registers them, options with completion, exit statuses.

Nothing here imports the store, the stages or torch: `headrace --help` and shell completion answer at once.
"""

import inspect
import json
import sys
import traceback
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from data_schemas.errors import HeadraceError
from data_schemas.public_urls import public_text
from flows.store_location import store_url
from infra.named_errors import INTERRUPTS, storage_problem

EXIT_BUG = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


def command(app: typer.Typer, panel: str, *examples: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command in a panel of the help, with examples below its options.

    A `HeadraceError` ends it with one sentence and exit status 2, Ctrl-C with 130, a bug with its traceback and 1.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> None:
            try:
                function(*args, **kwargs)
            except HeadraceError as error:
                typer.echo(f"error: {error}", err=True)
                raise typer.Exit(EXIT_USER_ERROR) from None
            except KeyboardInterrupt as interrupt:
                reason = str(interrupt) or "interrupted"
                typer.echo(f"{reason}; finished work is kept, the same command resumes it", err=True)
                raise typer.Exit(EXIT_INTERRUPTED) from None
            except typer.Exit:
                raise
            except BaseException as error:
                if isinstance(error, INTERRUPTS):
                    raise
                if problem := storage_problem(error, _location(kwargs.get("store"))) or _settings_problem(error):
                    typer.echo(f"error: {problem}", err=True)
                    raise typer.Exit(EXIT_USER_ERROR) from None
                typer.echo(own_traceback(error), err=True)
                raise typer.Exit(EXIT_BUG) from None

        app.command(rich_help_panel=panel, help=_help(function), epilog=epilog(*examples))(guarded)
        return guarded

    return register


def _location(store: str | None) -> str:
    """The store of a command that failed, even if its URL is what failed."""
    try:
        return store_url(store)
    except HeadraceError:
        return "."


def _settings_problem(error: BaseException) -> str | None:
    """The sentence for settings with which Prefect cannot be imported; None for other errors."""
    if type(error).__name__ != "ValidationError" or not getattr(error, "title", "").endswith("Settings"):
        return None
    first = error.errors()[0]  # type: ignore[attr-defined]
    name = ".".join(map(str, first["loc"]))
    return f"Prefect refuses its settings: {name} {first['msg']}; correct the variables PREFECT_..., or its profile"


def epilog(*examples: str) -> str:
    """Examples, one a line, as the last lines of a help."""
    title = "Examples:" if len(examples) > 1 else "Example:"
    return "\n".join([f"[bold]{title}[/bold]", *(f"  {example}" for example in examples)])


def _help(function: Callable[..., None]) -> str:
    """The docstring, each paragraph on one line for the terminal to wrap."""
    paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def own_traceback(error: BaseException) -> str:
    """The traceback without the flow engine's frames."""
    shown = traceback.TracebackException.from_exception(error)
    shown.stack = traceback.StackSummary.from_list(
        [frame for frame in shown.stack if "/prefect/" not in frame.filename]
    )
    return public_text("".join(shown.format())) + "finished stages are kept; the same command resumes the run"


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on one line, at any terminal width."""
    sys.stdout.write(json.dumps(value, default=str) + "\n")
    sys.stdout.flush()


def complete_runs(incomplete: str) -> list[str]:
    """Ids of the runs in a local default store, for shell completion."""
    url = store_url()
    names = [] if "://" in url else sorted(path.stem for path in Path(url, "runs").glob("*.json"))
    return [name for name in ["latest", *names] if name.startswith(incomplete)]


def complete_stages(incomplete: str) -> list[str]:
    """Names of the stages, by their folders, for shell completion."""
    folders = Path(__file__).parents[3].joinpath("stages").glob("*/stage.py")
    return sorted(path.parent.name for path in folders if path.parent.name.startswith(incomplete))


ConfigPath = Annotated[str, typer.Argument(metavar="CONFIG", help="run config, such as configs/demo.yaml")]
RunId = Annotated[
    str,
    typer.Argument(
        metavar="RUN_ID", help="id of a run, the beginning of an id, or 'latest'", autocompletion=complete_runs
    ),
]
RunOption = Annotated[
    str, typer.Option("--run", metavar="RUN_ID", help="the run to read", autocompletion=complete_runs)
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a field of the config; repeatable")
]
Store = Annotated[
    str | None,
    typer.Option(metavar="URL", help="artifact store; default: $HEADRACE_HOME, else ./.headrace"),
]
AsJson = Annotated[bool, typer.Option("--json", metavar="", help="print one JSON object as the last line")]
Until = Annotated[str | None, typer.Option(metavar="STAGE", help="the last stage", autocompletion=complete_stages)]
Fresh = Annotated[bool, typer.Option("--fresh", metavar="", help="do not resume an unfinished run of this config")]
KeepVersions = Annotated[
    bool, typer.Option("--keep-versions", metavar="", help="reuse what other versions of packages made")
]
