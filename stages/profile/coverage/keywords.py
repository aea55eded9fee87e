"""Keywords: words and phrases that a slice has more of than the corpus, in every language.

- `Background`, `fit_background`: terms of the whole sample
- `keyword_measures`: terms of a slice by weighted log-odds with the corpus as prior (Monroe et al. 2008, "Fightin'
  Words"), which is a z-score; of the corpus itself, its most frequent terms that are no function words

Phrases are pairs of words that follow each other and of which neither is a function word, as in RAKE (Rose et al.
2010).
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stages.profile.analysis import Measure
from stages.profile.coverage.document_sample import SampledDocument
from stages.profile.coverage.terms import common_terms, terms

MOST = 20
MIN_DOCUMENTS = 3
MIN_Z = 1.96


class Background(NamedTuple):
    """Terms of the corpus."""

    common: frozenset[str]
    """Function words."""
    weights: dict[str, float]
    """Term -> weighted documents of the sample that have it."""
    documents: float
    """Weighted documents: those of the corpus."""


def fit_background(documents: Sequence[SampledDocument]) -> Background:
    """Terms and phrases of all documents of a sample."""
    listed = [terms(document.passage) for document in documents]
    common = common_terms(documents, listed)
    weights: Counter[str] = Counter()
    for document, row in zip(documents, listed, strict=True):
        for term in _phrases(row, common):
            weights[term] += document.weight  # type: ignore[assignment]
    return Background(common, dict(weights), sum(document.weight for document in documents))


def _phrases(listed: Sequence[str], common: frozenset[str]) -> list[str]:
    """Distinct terms and pairs of neighbors without function words."""
    kept = [None if term in common else term for term in listed]
    pairs = [f"{first} {second}" for first, second in itertools.pairwise(kept) if first and second]
    return sorted({*pairs, *(term for term in kept if term)})


def keyword_measures(background: Background, documents: Sequence[SampledDocument]) -> list[Measure]:
    """`keywords.share`: share of the slice's documents (their sampled passages) that have a keyword, with the z-score
    in `keywords.z`; the strongest first. A phrase replaces its words if it is as frequent as half of them.
    """
    having: Counter[str] = Counter()
    weights: Counter[str] = Counter()
    for document in documents:
        for term in _phrases(terms(document.passage), background.common):
            having[term] += 1
            weights[term] += document.weight  # type: ignore[assignment]
    total = sum(document.weight for document in documents)
    scores = {
        term: _z(weights[term], total, background.weights.get(term, weights[term]), background.documents)
        for term, count in having.items()
        if count >= MIN_DOCUMENTS
    }
    whole = total >= background.documents
    ranked = sorted(scores, key=lambda term: (-(weights[term] if whole else scores[term]), term))
    rows = []
    for term in _without_parts(ranked, having):
        if not whole and scores[term] < MIN_Z:
            break
        rows.append(Measure("keywords.share", weights[term] / total, "share", term, exact=False))
        if not whole:
            rows.append(Measure("keywords.z", scores[term], "z", term, exact=False))
    return rows


def _z(count: float, total: float, all_count: float, all_total: float) -> float:
    """z-score of the log-odds of a term in the slice against the rest of the corpus, with the corpus as prior."""
    prior = 0.01 * all_count
    rest, rest_total = max(all_count - count, 0.0), max(all_total - total, 0.0)
    inside = np.log((count + prior) / max(total - count + 0.01 * all_total - prior, 1e-9))
    outside = np.log((rest + prior) / max(rest_total - rest + 0.01 * all_total - prior, 1e-9))
    return float((inside - outside) / np.sqrt(1 / (count + prior) + 1 / (rest + prior)))


def _without_parts(ranked: Sequence[str], having: Counter[str]) -> list[str]:
    """The first `MOST` terms, without words that mostly occur in a listed phrase and phrases of listed words' rest."""
    listed: list[str] = []
    for term in ranked:
        phrases = [other for other in listed if f" {term} " in f" {other} " and having[other] * 2 >= having[term]]
        if not phrases:
            listed = [o for o in listed if not (f" {o} " in f" {term} " and having[term] * 2 >= having[o])]
            listed.append(term)
        if len(listed) == MOST:
            break
    return listed
