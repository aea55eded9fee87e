"""Makes the pictures of the README again: `python -m docs.pictures [RUN_ID] [--store URL]`, from the project's folder.

- `report.png`: the report's headline, compression and benchmark, by headless Chromium
- `plan.svg`, `run.svg`: the terminal after `headrace plan` of the run's config on an empty store, and after `run`;
  the text goes to standard output
"""

import argparse
import os
import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.terminal_theme import MONOKAI

from data_schemas.manifest import RunRecord
from flows.commands.summary import print_summary
from flows.config.run_config import recorded_config
from flows.console import console, plan_table
from flows.planning.planner import Planner
from flows.report.build import write_report
from flows.runs.artifacts import report_folder
from flows.store_location import store_url
from infra.store.artifacts import ArtifactStore
from infra.store.runs import RunStore

DOCS = Path(__file__).parent
COLUMNS = 100
WIDTH, HEIGHT = 1100, 1500
"""CSS pixels of the report's picture."""
STYLE = """
main { padding-top: 40px; } section:not(.compression):not(.benchmark) { display: none; }
.compression > :not(h2, p, .pair), .compression > .pair ~ .pair { display: none; }
"""
"""Leaves the headline, the compression charts and the benchmark's rows."""
CHROMIUM = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def report_picture(store: str, record: RunRecord, target: Path, chromium: str = "chromium") -> None:
    """Write the report again, and a picture of its headline, compression and benchmark sections."""
    write_report(store, record)
    page = report_folder(store, record.run_id).read("report.html").decode()
    with tempfile.TemporaryDirectory() as folder:
        shown = Path(folder) / "report.html"
        shown.write_text(page.replace("</style>", f"{STYLE}</style>", 1), encoding="utf-8")
        options = (f"--user-data-dir={folder}/profile", f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={target}")
        subprocess.run([chromium, *CHROMIUM, *options, shown.as_uri()], check=True, capture_output=True, timeout=120)


def terminal_pictures(store: str, record: RunRecord, folder: Path) -> None:
    """Write `plan.svg` and `run.svg`; paths in them are relative to the store's parent folder."""
    if "://" not in store:
        os.chdir(Path(store).parent)
    name = f"configs/{record.config_name}.yaml"
    _terminal(f"headrace plan {name}", folder / "plan.svg", lambda: _print_plan(record))
    _terminal(f"headrace run {name}", folder / "run.svg", lambda: print_summary(store, record))


def _print_plan(record: RunRecord) -> None:
    empty = "memory://pictures"
    planner = Planner(ArtifactStore(empty), RunStore(empty), recorded_config(record, []), None, None)
    console.print(plan_table(planner.plan(last_stage=record.last_stage)))


def _terminal(command: str, target: Path, output: Callable[[], None]) -> None:
    console.width, console.record = COLUMNS, True
    console.print(f"$ {command}", markup=False, style="bold")
    output()
    svg = console.export_svg(title=command, theme=MONOKAI, unique_id=target.stem)
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # the reader's own fonts, nothing fetched
    target.write_text(svg, encoding="utf-8")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_id", nargs="?", default="latest", help="a finished run of the demo")
    parser.add_argument("--store", help="artifact store; default: $HEADRACE_HOME, else ./.headrace")
    parser.add_argument("--folder", type=Path, default=DOCS, help="folder of the pictures")
    parser.add_argument("--chromium", default="chromium", help="the browser's command")
    arguments = parser.parse_args()
    store, folder = store_url(arguments.store), arguments.folder.resolve()
    record = RunStore(store).get(arguments.run_id)
    report_picture(store, record, folder / "report.png", arguments.chromium)
    terminal_pictures(store, record, folder)


if __name__ == "__main__":
    main()
