"""Charts that an earlier report holds already: drawn once for their data, not for each run that reuses it.

Drawing needs matplotlib, whose import takes longer than the rest of a report. Each chart carries a digest of all that
it depends on, under which a later report takes it over.

- `drawn_once`: decorator of a function that draws
- `remember`: takes the charts of an earlier page
- `remember_reports`: those of the reports with which a run may share some
"""

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, ParamSpec

from markupsafe import Markup

from data_schemas.manifest import RunRecord
from flows.runs.artifacts import PROFILE_PAGE, REPORT
from infra.store.filesystem import Folder
from infra.store.runs import RunStore

Arguments = ParamSpec("Arguments")
FLOWS = Path(__file__).parents[1]
SHARED_SOURCES = (FLOWS / "report" / "charts.py", FLOWS / "console.py", FLOWS / "config" / "recipes.py")
"""Modules that the drawing functions use."""
STAGES_WITH_CHARTS = ("profile", "pretrain", "compress")

_drawn: dict[str, Markup] = {}


def drawn_once(draw: Callable[Arguments, Markup]) -> Callable[Arguments, Markup]:
    """Call `draw` only for arguments, sources and a version of matplotlib whose chart is not known yet."""

    @functools.wraps(draw)
    def known(*arguments: Arguments.args, **named: Arguments.kwargs) -> Markup:
        values = json.dumps([draw.__name__, arguments, named], default=_values)
        key = hashlib.sha256(f"{_version(draw.__code__.co_filename)} {values}".encode()).hexdigest()[:32]
        if key not in _drawn:
            svg = str(draw(*arguments, **named)).strip()
            _drawn[key] = Markup(svg.replace("<svg", f'<svg data-drawn="{key}"', 1))
        return _drawn[key]

    return known


def remember(page: str) -> None:
    """Take the charts of an earlier page."""
    for chart in re.finditer(r'<svg data-drawn="([0-9a-f]{32})".*?</svg>', page, re.DOTALL):
        _drawn.setdefault(chart[1], Markup(chart[0]))


def remember_reports(store_url: str, record: RunRecord) -> None:
    """Take the charts of the newest other run of the same config, and of the runs that made this one's artifacts."""
    rows = RunStore(store_url).index()[0]
    same = [row.run_id for row in rows if row.config_digest == record.config_digest and row.run_id != record.run_id]
    makers = [record.stages[stage].artifact.attempt for stage in STAGES_WITH_CHARTS if stage in record.stages]
    runs = dict.fromkeys([*same[:1], *(maker for maker in makers if maker != record.run_id)])
    pages = [f"reports/{run_id}/{page}" for run_id in runs for page in (REPORT, PROFILE_PAGE)]
    for content in Folder(store_url).read_many(pages):
        remember((content or b"").decode(errors="replace"))


@functools.cache
def _version(file: str) -> str:
    sources = sorted({Path(file), *SHARED_SOURCES})
    digests = [hashlib.sha256(source.read_bytes()).hexdigest() for source in sources]
    return " ".join([metadata.version("matplotlib"), *digests])


def _values(value: Any) -> Any:
    """JSON values of curves and arrays."""
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value.tolist()  # type: ignore[arg-type]
