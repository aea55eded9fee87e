"""`headrace profile`: the profile of a corpus, or of one against another.

- `show_profile`, `compare_profiles`: print, write the page, return the JSON
"""

from typing import Any

from flows.commands.profile.common_topics import with_common_topics
from flows.commands.profile.corpora import STAGE, Profiled, profile_of, profiles_of
from flows.commands.profile.difference import difference
from flows.commands.profile.output import (
    RANKING,
    difference_json,
    print_difference,
    print_profile,
    profile_json,
)
from flows.commands.profile.page import difference_page
from flows.commands.profile.taken_out import taken_out
from flows.console import PlainView
from flows.report.profile.figures import Figures
from flows.report.profile.page import profile_page
from flows.report.templates import write_html
from flows.runs.artifacts import PROFILE_PAGE, page_location, report_folder
from infra.progress import ProgressListener
from infra.store.artifacts import ArtifactStore

PAGES = "profiles"
"""Folder below `reports/` with pages of corpora that are no run's profile."""


def show_profile(store_url: str, name: str, html: str | None) -> dict[str, Any]:
    """Print the main figures of a profile and write its page; returns the JSON.

    Args:
        store_url: the store.
        name: a run, RUN:STAGE or an artifact.
        html: file for the page; by default `reports/` of the store.
    """
    profiled = profile_of(store_url, name, _listener)
    figures, page = _figures(profiled), profile_page(profiled.profile, profiled.label)
    if html:
        write_html(html, page)
        location = html
    else:
        folder = report_folder(store_url, profiled.run_id or PAGES)
        path = PROFILE_PAGE if profiled.run_id else f"{profiled.profile.ref.key[:12]}.html"
        folder.write(path, page.encode())
        location = page_location(folder, path)
    print_profile(profiled, figures, location)
    return profile_json(profiled, figures, location)


def compare_profiles(store_url: str, names: tuple[str, str], slices: list[str], html: str | None) -> dict[str, Any]:
    """Print what the first corpus has more or less of than the second; returns the JSON.

    Args:
        store_url: the store.
        names: two corpora, each a run, RUN:STAGE or an artifact.
        slices: slices whose measures are compared; by default all documents.
        html: file for a page; by default none is written.
    """
    sides = profiles_of(store_url, names, _listener)
    figures = (_figures(sides[0]), _figures(sides[1]))
    first, second = (side.corpus for side in sides)
    taken = taken_out(ArtifactStore(store_url), first, second) if first and second else None
    stages = {side.profile.manifest.inputs["corpus"].stage for side in sides}
    nested = taken is not None and (not taken[0].missing or not taken[1].missing)
    coverage = sides[0].profile.manifest.config.get("coverage")
    if first and second and coverage and not slices:
        figures = with_common_topics(figures, (first, second), coverage)
    found = difference(*figures, slices, same_stage=len(stages) == 1, nested=nested)
    if html:
        labels = (sides[0].label, sides[1].label)
        write_html(html, difference_page(labels, figures, found, taken, RANKING))
    print_difference(sides, found, taken, html)
    return difference_json(sides, found, taken, html)


def _listener() -> ProgressListener:
    return PlainView().stage_started(STAGE)


def _figures(profiled: Profiled) -> Figures:
    profiled.profile.check_sizes()
    return Figures.of(profiled.profile.read_table("measures.arrow"))
