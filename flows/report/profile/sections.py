"""Sections of a profile's page: which measures belong together, and how each is drawn.

- `Section`, `sections`: the panels of a slice; a measure that is not known here has a panel too
- `SECTIONS`: what belongs together
- `left_out`: analyses that were not made, with the reason
"""

from collections.abc import Sequence
from dataclasses import dataclass

from flows.report.bars import Quantity, bars
from flows.report.profile.curves import law_panels
from flows.report.profile.figures import ALL, Figure, Figures, words, written
from flows.report.profile.panels import (
    BarPanel,
    Panel,
    bar_panel,
    matrix_panel,
    table_panel,
)

ARTICLE_ENTROPY = 5.11
"""Bits per word that the article quotes."""
BITS_PER_WORD = "bits/word"
ORDERED = frozenset({"histogram", "quantile"})
"""Last parts of names of measures whose items have an order of their own."""
LEFT_OUT = "left_out"
"""Last part of the name of a measure whose item is the reason why the others of its family are missing."""
READ = "read"
"""Last part of the name of a measure of how much was read for the others of its family."""
FOLDED = (
    "length.characters.", "length.bytes.", "topics.coherence", "keywords.z", "ngrams.trigram.", "genre.", "source.",
    "domain.", "language.", "suffix.", "scheme.", "concepts.words",
)  # fmt: skip
"""Beginnings of measures that are shown on demand."""
TITLES = {
    "length.words.quantile": "Quantiles of words",
    "length.words.histogram": "Documents by words",
    "ngrams.unigram.top": "Most frequent words",
    "ngrams.bigram.top": "Most frequent pairs of words",
    "ngrams.trigram.top": "Most frequent triples of words",
    "duplicates.lines.top": "Most frequent lines",
    "licence.documents": "Licence",
    "year.documents": "Year",
    "entities.PERSON": "People",
    "entities.ORG": "Organizations",
    "entities.GPE": "Countries, states and cities",
    "entities.LOC": "Other places",
    "entities.NORP": "Nationalities, religious and political groups",
    "entities.FAC": "Buildings, roads and airports",
    "entities.WORK_OF_ART": "Works of art",
    "topics.weight": "Share of each topic",
    "concepts.share": "Share of each concept",
    "genres.predicted": "Predicted genres",
}
"""Titles of panels that the measure's name does not say well."""
PAIR = " -> "
"""Between the two labels of an item that is a pair, such as declared and predicted genre."""
LIMIT = 15
"""Items of a panel of the whole corpus."""
SLICE_LIMIT = 5
"""Items of a panel of a slice."""


@dataclass(frozen=True)
class About:
    """Title and introduction of a section, and the first parts of the names of its measures."""

    title: str
    note: str
    families: tuple[str, ...]


SECTIONS = (
    About(
        "Entropy",
        "Bits per word by several definitions, beside the 5.11 that the article quotes. They differ in what is known "
        "before a word and in the correction for words that were not seen, so they do not estimate one number.",
        ("entropy",),
    ),
    About(
        "Words",
        "How often words occur by their rank (Zipf), and how the vocabulary grows with the text (Heaps).",
        ("zipf", "heaps", "vocabulary", "ngrams", "compression"),
    ),
    About("Lengths", "Documents by their length; each bucket ends at twice the length of the one before.", ("length",)),
    About(
        "Origins",
        "Documents by what their source says about them.",
        ("source", "genre", "language", "domain", "licence", "year", "suffix", "scheme"),
    ),
    About(
        "Genres",
        "The genre that a source declares, and the one that the text looks like, by a sample of the documents of each "
        "genre in all languages, and one passage of each.",
        ("genres",),
    ),
    About(
        "Topics",
        "Named by their heaviest words. They are learned from a sample of the documents of each genre in all "
        "languages, and one passage of each, not from the whole corpus; a topic is often that of one language.",
        ("topics",),
    ),
    About(
        "Entities",
        "Names that a tagger recognizes in passages that were drawn from all documents. It reads the languages of its "
        "pipelines, by default English alone; passages in others count as unread.",
        ("entities",),
    ),
    About(
        "Concepts and keywords",
        "Concepts are those of the words of all English documents that WordNet knows. Keywords are those of the sample "
        "that topics are learned from, in all languages.",
        ("concepts", "keywords"),
    ),
    About("Readability", "", ("readability",)),
    About(
        "Training and held-out text",
        "How much the two splits differ. The level of chance is that of random halves of the same words.",
        ("divergence",),
    ),
    About("Duplicates left", "What occurs more than once.", ("duplicates",)),
    About("Removed before", "Documents that the stage before removed, by reason.", ("removed",)),
    About(
        "Personal data and toxicity left",
        "Personal data and words on lists are searched in all documents, listed words in the languages that have a "
        "list. Sentences are judged in passages that were drawn, of English alone. Lists and classifier know no "
        "context: a quotation counts, irony does not.",
        ("personal_data", "toxicity", "personal"),
    ),
)


@dataclass(frozen=True)
class Section:
    """Panels about one thing."""

    key: str
    title: str
    note: str
    panels: list[Panel]
    folded: list[Panel]


def title_of(family: str) -> str:
    """Title of the section of a family of measures, in lower case."""
    return next((about.title for about in SECTIONS if family in about.families), family.replace("_", " ")).lower()


def left_out(figures: Figures) -> list[tuple[str, str]]:
    """(analysis, reason) of what the profile states as not made; (section, reason) of sections without figures."""
    rows = []
    for measure in figures.measures():
        analysis, _, last = measure.rpartition(".")
        if last == LEFT_OUT:
            reason = "; ".join(filter(None, (_reason(row) for row in figures.items(measure) if row.value)))
            rows += [(analysis, reason)] if reason else []
    families = {measure.partition(".")[0] for measure in figures.measures()}
    absent = (about.title.lower() for about in SECTIONS if not families & set(about.families))
    return [*rows, *((title, "not measured") for title in absent)]


def _reason(row: Figure) -> str:
    """The reason why an analysis was not made, or was not made of some documents."""
    return row.item or "" if row.unit == "analyses" else f"{written(row.value, row.unit)} {row.unit}: {row.item}"


def sections(figures: Figures, slice_name: str = ALL) -> list[Section]:
    """Sections of a slice in the order of `SECTIONS`, then of other measures; only `all` has drawings."""
    families: dict[str, list[str]] = {}
    for measure in figures.measures(slice_name):
        if measure != "documents" and not measure.endswith(f".{LEFT_OUT}"):
            families.setdefault(measure.partition(".")[0], []).append(measure)
    known = {family for about in SECTIONS for family in about.families}
    others = [About(family.replace("_", " ").capitalize(), "", (family,)) for family in families if family not in known]
    drawn = [
        _section(figures, slice_name, about, [name for family in about.families for name in families.get(family, ())])
        for about in [*SECTIONS, *others]
    ]
    return [section for section in drawn if section.panels or section.folded]


def _section(figures: Figures, slice_name: str, about: About, measures: Sequence[str]) -> Section:
    is_whole = slice_name == ALL
    section = Section(about.families[0], about.title, about.note, [], [])
    if is_whole:
        section.panels.extend(law_panels(figures, about.families))
    scalars: list[Figure] = []
    limit = LIMIT if is_whole else SLICE_LIMIT
    for measure in measures:
        rows = figures.of_measure(measure, slice_name)
        panels = section.folded if measure.startswith(FOLDED) else section.panels
        if len(rows) == 1 and not measure.endswith(tuple(ORDERED)):
            scalars += rows
        elif not measure.endswith(".curve"):
            scalars += [row for row in rows if row.item is None]
            items = [row for row in rows if row.item is not None]
            if items:
                panels.append(_item_panel(measure, items, limit, with_family=len(about.families) > 1))
    if "entropy" in about.families:
        section.panels.extend(_entropy(scalars))
    if scalars:
        section.panels.append(table_panel("Figures", scalars, with_family=len(about.families) > 1))
    return section


def _entropy(rows: Sequence[Figure]) -> list[Panel]:
    """All figures in bits per word on one scale with the article's."""
    shown = [row for row in rows if row.unit == BITS_PER_WORD]
    if not shown:
        return []
    quantities = [
        Quantity(words(row.measure), row.value, written(row.value, row.unit), "network", row.low, row.high)
        for row in shown
    ]
    quantities.append(Quantity("the article’s figure", ARTICLE_ENTROPY, f"{ARTICLE_ENTROPY}", "compressed"))
    quantities.sort(key=lambda quantity: -quantity.value)
    return [BarPanel("Bits per word", "lines: stated error", bars(quantities))]


def _item_panel(measure: str, rows: Sequence[Figure], limit: int, *, with_family: bool) -> Panel:
    title = TITLES.get(measure) or words(f".{measure}" if with_family else measure).capitalize()
    if all(PAIR in (row.item or "") for row in rows):
        counts: dict[tuple[str, str], float] = {}
        for row in rows:
            first, _, second = (row.item or "").partition(PAIR)
            counts[first, second] = row.value
        return matrix_panel("Declared (rows) and predicted (columns)", counts)
    return bar_panel(title, rows, limit, ordered=measure.rpartition(".")[2] in ORDERED)
