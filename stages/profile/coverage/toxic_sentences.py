"""Toxic sentences of English text, by a classifier that ships as a package.

- `ToxicSentences`: the analysis, on drawn passages
- `sentences`: pieces of a passage that are judged each

The classifier is that of `alt-profanity-check` (MIT): a linear model of word counts, trained on 200,000 comments of
Twitter and Wikipedia talk pages that people had labelled. In novels, news and documentation it finds coarse language
(`idiot`, `crap`) rather than hate; it scores mentions of sex and sexual orientation too high ("Same-sex divorce rules":
0.6) and neither irony nor polite hate at all. Compare its shares between slices; do not filter with it.
"""

import re
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from stages.profile.analysis import Analysis, Example, Measure, State
from stages.profile.coverage.passages import Passage, PassageSample, language_of, ratio_interval

INSTALL = "pip install 'headrace[toxicity]'"
THRESHOLD = 0.9
"""Probability from which a sentence counts: of 1,200 lines of news, speeches and documentation none reached it."""
MOST_EXAMPLES = 5
LONGEST = 400
"""Characters after which a sentence is cut: counts of words add up, and whatever is long enough would be toxic."""
_ENDS = re.compile(r"(?<=[.!?…])\s+|\n+")


class ToxicSentences(Analysis):
    """Sentences of drawn passages of English documents, and of those whose language is unknown."""

    name = "toxicity_sentences"

    def __init__(self, sample: PassageSample) -> None:
        self._sample = sample
        self._installed = find_spec("profanity_check") is not None

    def empty(self) -> State:
        """No passages."""
        return {"sentences": [0.0, 0.0], "toxic": [0.0, 0.0, 0.0], "examples": []}

    def add(self, state: State, documents: pa.RecordBatch) -> State:
        """Judge the drawn passages of more documents."""
        if not self._installed:
            return state
        columns = (documents.column(name).to_pylist() for name in ("id", "text", "language"))
        passages = [
            passage
            for identifier, text, language in zip(*columns, strict=True)
            if language_of(language, text) == "en"
            for passage in self._sample.drawn(identifier, text)
        ]
        for passage, (judged, toxic, worst, sentence) in zip(passages, _judged(passages), strict=True):
            sums = ("sentences", (judged, judged**2)), ("toxic", (toxic, toxic**2, toxic * judged))
            for name, values in sums:
                state[name] = [a + float(b) for a, b in zip(state[name], values, strict=True)]
            if toxic:
                rows = [*state["examples"], [-worst, passage.document_id, sentence]]
                state["examples"] = sorted(rows)[:MOST_EXAMPLES]
        return state

    def merge(self, first: State, second: State) -> State:
        """Sum of both."""
        sums = {
            name: [a + b for a, b in zip(first[name], second[name], strict=True)] for name in ("sentences", "toxic")
        }
        return {**sums, "examples": sorted([*first["examples"], *second["examples"]])[:MOST_EXAMPLES]}

    def measures(self, state: State) -> Sequence[Measure]:
        """`toxicity.sentences`: share of the sentences that score `THRESHOLD` or more; `.read`: number of them all."""
        if not self._installed:
            return [Measure("toxicity.sentences.left_out", 1.0, "analyses", INSTALL)]
        if not state["sentences"][0]:
            return []
        share = ratio_interval(state["toxic"][:2], state["sentences"], state["toxic"][2], self._sample.rate)
        exact = self._sample.rate == 1
        if not share.value and not exact:
            share = share._replace(high=3 / state["sentences"][0])  # the rule of three
        return [
            Measure("toxicity.sentences", share.value, "share", None, share.low, share.high, exact),
            Measure("toxicity.sentences.read", state["sentences"][0], "sentences"),
        ]

    def examples(self, state: State) -> Sequence[Example]:
        """The sentences that score highest."""
        return [Example("toxicity.sentences", f"{-row[0]:.3f}", *row[1:]) for row in state["examples"]]


def sentences(passage: str) -> list[str]:
    """Sentences and lines that have a word, cut to `LONGEST` characters."""
    pieces = [piece.strip() for piece in _ENDS.split(passage)]
    cut = [piece[start : start + LONGEST] for piece in pieces for start in range(0, len(piece), LONGEST)]
    return [piece for piece in cut if any(character.isalpha() for character in piece)]


class Judgement(NamedTuple):
    """Judgement of the classifier on a passage."""

    sentences: int
    toxic: int
    worst: float
    """Highest probability, and its sentence."""
    sentence: str


def _judged(passages: Sequence[Passage]) -> list[Judgement]:
    rows = [sentences(passage.text) for passage in passages]
    pieces = [piece for row in rows for piece in row]
    scores = np.asarray(_classifier()(pieces)) if pieces else np.zeros(0)
    judgements = []
    for row, part in zip(rows, np.split(scores, np.cumsum([len(row) for row in rows])), strict=False):
        best = int(part.argmax()) if row else -1
        worst = (round(float(part[best]), 6), row[best]) if row else (0.0, "")
        judgements.append(Judgement(len(row), int((part >= THRESHOLD).sum()), *worst))
    return judgements


@cache
def _classifier() -> Any:
    from profanity_check import predict_prob

    return predict_prob
