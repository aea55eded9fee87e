"""Concepts of English text: WordNet's supersenses (Ciaramita & Johnson 2003), from every word of every document.

- `Concepts`: the analysis; share of each supersense among the words that WordNet knows, its most frequent words
- `Lexicon`: WordNet's single words by number, and their distributions over supersenses

Without tagging or disambiguation: a word counts as its most frequent base form (`saw` as `see`), and that for each of
its supersenses with the share that it has in the text that WordNet's authors tagged (SemCor). Shares are means over
many words and differ between slices as the words do; a single word in a single place may well be counted wrong.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_schemas.errors import EnvironmentProblem
from stages.common.word_hashes import Hashes, word_texts
from stages.common.wordnet import FILES, SUPERSENSES, WordNet, installed_folder, load
from stages.profile.analysis import Analysis, Measure, State
from stages.profile.words.document_words import DocumentWords, document_words

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
MOST_WORDS = 8
LONGEST = 100
"""Characters of a word that are looked up; WordNet knows none so long."""
MOST_CACHED = 500_000
"""Distinct words whose base forms are in memory."""
LANGUAGES = ("en", None)
_CLOSED_CLASS = (
    "a about above across after against all almost along also although always am among an and another any anybody "
    "anyone anything are around as at away back be because been before behind being below beneath beside besides "
    "between beyond both but by can cannot could did do does doing done down during each either else enough etc even "
    "ever every everybody everyone everything except few for from had has have having he hence her here hers herself "
    "him himself his how however i if in indeed inside instead into is it its itself just least less like many may me "
    "might mine more moreover most much must my myself near neither never nevertheless no nobody none nor not nothing "
    "now nowhere of off often on once one only onto or other others otherwise ought our ours ourselves out outside "
    "over own per perhaps quite rather re same several shall she should since so some somebody someone something "
    "somewhat still such than that the their theirs them themselves then there therefore these they this those though "
    "through throughout thus till to together too toward towards under unless until up upon us very was we well were "
    "what whatever when whenever where whereas wherever whether which whichever while who whoever whole whom whose why "
    "will with within without would yet you your yours yourself yourselves don doesn didn isn aren wasn weren hasn "
    "haven hadn won wouldn couldn shouldn ll ve"
)
CLOSED_CLASS = frozenset(_CLOSED_CLASS.split())
"""Words whose grammar matters and not their meaning; in WordNet `a` is an angstrom and `in` an inch."""


class Lexicon:
    """Single words of WordNet, by number.

    Attributes:
        forms: base forms in sorted order.
    """

    def __init__(self, wordnet: WordNet) -> None:
        self.forms = [form for form in wordnet.all_base_forms() if " " not in form and form not in CLOSED_CLASS]
        self._numbers = {form: number for number, form in enumerate(self.forms)}
        self._wordnet = wordnet
        self._hashes: Hashes = np.empty(0, dtype=np.uint64)
        self._found: Integers = np.empty(0, dtype=np.int64)
        self._distributions: dict[int, Floats] = {}

    def distribution(self, number: int) -> Floats:
        """(supersenses,) share of each supersense in the occurrences of a base form; of its first senses if none."""
        if number not in self._distributions:
            self._distributions[number] = self._distribution(number)
        return self._distributions[number]

    def _distribution(self, number: int) -> Floats:
        senses = [self._wordnet.senses(self.forms[number], part) for part in FILES]
        shares = np.zeros(len(SUPERSENSES))
        for sense in (sense for part in senses for sense in part):
            shares[SUPERSENSES.index(sense.supersense)] += sense.occurrences
        if not shares.any():
            for part in filter(None, senses):
                shares[SUPERSENSES.index(part[0].supersense)] += 1
        return np.asarray(shares / shares.sum())

    def number(self, word: str) -> int:
        """Number of the most frequent base form of a lower-case word; -1 if there is none."""
        if len(word) < 2 or word in CLOSED_CLASS or not any(character.isalpha() for character in word):
            return -1
        forms = [(form, part) for part in FILES for form in self._wordnet.base_forms(word, part)]
        counts = [sum(sense.occurrences for sense in self._wordnet.senses(*form)) for form in forms]
        known = [(-count, rank, form) for rank, (count, (form, _)) in enumerate(zip(counts, forms, strict=True))]
        return next((self._numbers[form] for _, _, form in sorted(known) if form in self._numbers), -1)

    def numbers(self, found: DocumentWords, positions: Integers) -> Integers:
        """Numbers of the words at some positions of a batch: distinct words in the order of their hashes."""
        hashes = found.hashes[positions]
        if len(self._hashes) > MOST_CACHED:
            self._hashes, self._found = self._hashes[:0], self._found[:0]
        new = ~np.isin(hashes, self._hashes, assume_unique=True)
        if new.any():
            of_new = positions[new]
            surfaces = word_texts(found.data, found.starts[of_new], found.ends[of_new], limit=LONGEST)
            numbers = [self.number(surface) for surface in surfaces]
            order = np.argsort(known := np.concatenate([self._hashes, hashes[new]]))
            self._hashes, self._found = known[order], np.concatenate([self._found, numbers])[order].astype(np.int64)
        return self._found[np.searchsorted(self._hashes, hashes)]


@cache
def lexicon(folder: str) -> Lexicon:
    """The words of a WordNet, once per process."""
    return Lexicon(load(Path(folder)))


class Concepts(Analysis):
    """Supersenses of the words of English documents, and of those whose language is unknown.

    Args:
        folder: WordNet's folder; if omitted, where it is installed.
    """

    name = "concepts"

    def __init__(self, folder: str | None = None) -> None:
        self._folder, self._reason = "", ""
        try:
            self._folder = str(installed_folder(folder))
        except EnvironmentProblem as problem:
            self._reason = str(problem)

    def empty(self) -> State:
        """No words."""
        return {"words": 0, "numbers": np.empty(0, dtype=np.int64), "counts": np.empty(0, dtype=np.int64)}

    def add(self, state: State, documents: pa.RecordBatch) -> State:
        """Add the words of more documents."""
        if not self._folder:
            return state
        rows = [row for row, language in enumerate(documents.column("language").to_pylist()) if language in LANGUAGES]
        found = document_words(documents)
        spans = [np.arange(found.borders[row], found.borders[row + 1]) for row in rows]
        positions = np.concatenate(spans) if spans else np.empty(0, dtype=np.int64)
        _, first, counts = np.unique(found.hashes[positions], return_index=True, return_counts=True)
        numbers = lexicon(self._folder).numbers(found, positions[first])
        more = {"words": len(positions), "numbers": numbers[numbers >= 0], "counts": counts[numbers >= 0]}
        return self.merge(state, more)

    def merge(self, first: State, second: State) -> State:
        """Sum of both."""
        numbers, inverse = np.unique(np.concatenate([first["numbers"], second["numbers"]]), return_inverse=True)
        counts = np.zeros(len(numbers), dtype=np.int64)
        np.add.at(counts, inverse, np.concatenate([first["counts"], second["counts"]]))
        return {"words": first["words"] + second["words"], "numbers": numbers, "counts": counts}

    def measures(self, state: State) -> Sequence[Measure]:
        """Shares of the words of English documents, whose number is `concepts.read`.

        `concepts.known`: those that WordNet knows; `concepts.share` by supersense, of the known ones; `concepts.words`:
        those that contribute most to each, with their share of it.
        """
        if not self._folder:
            return [Measure("concepts.left_out", 1.0, "analyses", self._reason)]
        if not len(state["numbers"]):
            return []
        words = lexicon(self._folder)
        parts = np.array([words.distribution(number) for number in state["numbers"].tolist()])
        weighted = parts * state["counts"][:, None]
        totals = weighted.sum(axis=0)
        rows = [
            Measure("concepts.read", state["words"], "words"),
            Measure("concepts.known", float(totals.sum()) / state["words"], "share of words"),
        ]
        order = [kind for kind in np.argsort(-totals, kind="stable").tolist() if totals[kind]]
        rows += [Measure("concepts.share", totals[kind] / totals.sum(), "share", SUPERSENSES[kind]) for kind in order]
        for kind in order:
            for row in np.argsort(-weighted[:, kind], kind="stable")[:MOST_WORDS].tolist():
                item = f"{SUPERSENSES[kind]}: {words.forms[state['numbers'][row]]}"
                if weighted[row, kind]:
                    rows.append(Measure("concepts.words", weighted[row, kind] / totals[kind], "share", item))
        return rows
