"""The page of a profile: one self-contained HTML file, pictures first, with a section for each slice.

- `profile_page`: the page of an artifact; `page`: from its two tables
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from data_schemas.artifact_kinds import PROFILE
from flows.console import amount
from flows.report.bars import Bar, Quantity, bars
from flows.report.benchmark_scores import Score
from flows.report.headline import Tile
from flows.report.profile.figures import ALL, Figure, Figures, interval, percent, words, written
from flows.report.profile.network_entropy import with_networks
from flows.report.profile.panels import ExamplePanel, example_panel
from flows.report.profile.sections import ARTICLE_ENTROPY, Section, left_out, sections, title_of
from flows.report.templates import render_template
from infra.store.artifacts import Artifact

MAX_SLICES = 60
"""Slices with a section of their own, the largest; all others have a row."""
SHOWN_ROWS = 12
"""Rows of an overview that are open."""
EXAMPLES = 12
SLICE_EXAMPLES = 2


@dataclass(frozen=True)
class SliceRow:
    """A slice in the overview."""

    name: str
    anchor: str
    """Id of its section; empty without one."""
    bar: Bar
    figures: list[str]


@dataclass(frozen=True)
class Dimension:
    """The slices of one kind, such as those by genre."""

    name: str
    columns: list[str]
    rows: list[SliceRow]


@dataclass(frozen=True)
class SlicePart:
    """Section of a slice."""

    name: str
    anchor: str
    summary: list[str]
    sections: list[Section]
    examples: ExamplePanel


COLUMNS: tuple[tuple[str, str, str | None], ...] = (
    ("words", "length.words.total", None),
    ("median words", "length.words.quantile", "50%"),
    ("bits per word", "entropy.unigram.miller_madow", None),
    ("compression ratio", "compression.zstd3.ratio", None),
    ("Flesch", "readability.flesch_en.mean", None),
    ("held-out diverges", "divergence.words.jensen_shannon", None),
    ("repeated lines", "duplicates.lines.share", None),
    ("removed before", "removed.share", None),
    ("personal data", "personal_data.share", None),
)
"""Columns of the overview of slices: title, measure and item; one that no slice has is left out."""
ORDER = ("genre", "source", "language", "domain", "split")
"""Order of the overviews."""


def profile_page(profile: Artifact, title: str, scores: Sequence[Score] = ()) -> str:
    """The page of a profile in the store.

    Args:
        profile: artifact of the kind `PROFILE`.
        title: name of the corpus, or of the run.
        scores: the benchmark's scores of networks trained on the corpus, whose entropy is drawn beside that of counts.

    Raises:
        DamagedArtifactError: if one of its files is missing or truncated.
        ContractError: if it is of another version.
    """
    profile.check_sizes()
    profile.check_contract(PROFILE, "the profile's page")
    corpus = next(iter(profile.manifest.inputs.values()), None)
    facts = [f"of {corpus.label}"] if corpus else []
    measures = with_networks(profile.read_table("measures.arrow"), scores)
    return page(measures, profile.read_table("examples.arrow"), title, facts)


def page(measures: pa.Table, examples: pa.Table, title: str, facts: Sequence[str] = ()) -> str:
    """The page of a profile.

    Args:
        measures: table with the schema `MEASURES`.
        examples: table with the schema `EXAMPLES`.
        title: name of the corpus.
        facts: lines below the title: what was profiled, and how.
    """
    figures, excerpts = Figures.of(measures), _by_slice(examples)
    named = [name for name in figures.slices if name != ALL]
    by_size = sorted(named, key=lambda name: (-figures.documents(name), name))
    anchors = {name: f"slice-{number}" for number, name in enumerate(by_size[:MAX_SLICES])}
    return render_template(
        "profile.html.j2",
        title=title,
        facts=[*facts, *_sampled(figures)],
        tiles=_tiles(figures),
        sections=sections(figures),
        left_out=left_out(figures),
        examples=example_panel(_spread(excerpts.get(ALL, [])), EXAMPLES),
        dimensions=_dimensions(figures, by_size, anchors),
        slices=[_part(figures, name, anchors[name], excerpts.get(name, [])) for name in by_size[:MAX_SLICES]],
        omitted=len(by_size) - len(anchors),
        shown_rows=SHOWN_ROWS,
    )


def _by_slice(examples: pa.Table) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in examples.to_pylist():
        rows.setdefault(row["slice"], []).append(row)
    return rows


def _spread(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows in rounds, one of each measure a round, so that the first show as many measures as there are."""
    by_measure: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_measure.setdefault(row["measure"], []).append(row)
    rounds = max(map(len, by_measure.values()), default=0)
    return [group[number] for number in range(rounds) for group in by_measure.values() if number < len(group)]


def _sampled(figures: Figures) -> list[str]:
    """A line that names the estimates among the figures."""
    rows = [row for row in figures.rows if row.slice == ALL]
    estimates = dict.fromkeys(row.measure.partition(".")[0] for row in rows if not row.exact)
    if not rows:
        return ["no figures"]
    if not estimates:
        return ["all figures are exact"]
    names = dict.fromkeys(map(title_of, estimates))
    return [f"estimated, from samples or sketches: {', '.join(names)}; all other figures are exact"]


def _tiles(figures: Figures) -> list[Tile]:
    words_read, size = figures.one("length.words.total"), figures.one("length.bytes.total")
    amounts = [
        f"{amount(words_read.value)} words" if words_read else "",
        written(size.value, size.unit) if size else "",
        _slice_counts(figures),
    ]
    documents = Tile("Documents", written(figures.documents(), "documents"), ", ".join(filter(None, amounts)))
    entropies = [
        row
        for measure in figures.measures()
        for row in figures.of_measure(measure)
        if row.unit == "bits/word" and measure.startswith("entropy.")
    ]
    if not entropies:
        return [documents]
    first = figures.one("entropy.unigram.miller_madow") or entropies[0]
    estimator = first.measure.rpartition(".")[2]
    others = [
        row
        for row in entropies
        if row is not first
        and (row.measure.endswith((estimator, "mean")) or row.measure.startswith("entropy.network."))
    ]
    note = ", ".join(filter(None, (words(first.measure), interval(first))))
    reference = [(words(row.measure), written(row.value, row.unit)) for row in others]
    reference.append(("the article’s figure", f"{ARTICLE_ENTROPY}"))
    return [Tile("Bits per word", written(first.value, first.unit), note, tuple(reference)), documents]


def _slice_counts(figures: Figures) -> str:
    counts: dict[str, int] = {}
    for name in figures.slices:
        if "=" in name:
            counts[name.partition("=")[0]] = counts.get(name.partition("=")[0], 0) + 1
    return ", ".join(f"{number:,} {name}{'s' if number > 1 else ''}" for name, number in counts.items())


def _dimensions(figures: Figures, by_size: Sequence[str], anchors: Mapping[str, str]) -> list[Dimension]:
    names: dict[str, list[str]] = {}
    for name in by_size:
        names.setdefault(name.partition("=")[0], []).append(name)
    order = sorted(names, key=lambda key: ORDER.index(key) if key in ORDER else len(ORDER))
    return [_dimension(figures, key, names[key], anchors) for key in order]


def _dimension(figures: Figures, key: str, names: Sequence[str], anchors: Mapping[str, str]) -> Dimension:
    columns = [column for column in COLUMNS if any(figures.one(column[1], name, column[2]) for name in names)]
    whole = figures.documents() or 1.0
    drawn = bars(
        [
            Quantity(name.partition("=")[2] or name, documents, f"{documents:,.0f} · {percent(documents / whole)}")
            for name in names
            for documents in (figures.documents(name),)
        ]
    )
    rows = [
        SliceRow(
            name, anchors.get(name, ""), bar, [_cell(figures.one(measure, name, item)) for _, measure, item in columns]
        )
        for name, bar in zip(names, drawn, strict=True)
    ]
    return Dimension(key.replace("_", " "), [title for title, _, _ in columns], rows)


def _cell(row: Figure | None) -> str:
    return written(row.value, row.unit) if row else ""


def _part(figures: Figures, name: str, anchor: str, examples: Sequence[Mapping[str, Any]]) -> SlicePart:
    whole, documents = figures.documents() or 1.0, figures.documents(name)
    summary = [f"{documents:,.0f} documents, {percent(documents / whole)}"]
    if total := figures.one("length.words.total", name):
        summary.append(f"{written(total.value, total.unit)} words")
    return SlicePart(name, anchor, summary, sections(figures, name), example_panel(_spread(examples), SLICE_EXAMPLES))
