"""Terms of sampled passages: the columns of the tables of which topics, genres and keywords are made.

- `terms`: words of a text, in scripts without spaces pairs of neighboring units
- `TermCounts`, `count_terms`: documents x terms, sparse
- `common_terms`: function words of each language, by the share of its documents that have them
"""

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from sys import intern
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stages.common.word_hashes import words
from stages.profile.coverage.document_sample import SampledDocument

MIN_DOCUMENTS = 3
"""Documents in which a term must occur to be counted."""
COMMON = 0.4
"""Share of a language's documents from which a term counts as a function word."""
FEW = 20
"""Documents of a language below which its shares say nothing."""
MAX_TERMS = 20_000
CACHED_TEXTS = 16_384
"""Texts whose terms are in memory: a sampled document is read for topics, genres and keywords, in five slices."""


class TermCounts(NamedTuple):
    """Occurrences of terms in documents."""

    counts: Any
    """scipy CSR matrix (documents, terms), float64."""
    terms: list[str]


@lru_cache(CACHED_TEXTS)
def terms(text: str) -> tuple[str, ...]:
    """Words of a text, case folded, no numbers; of Chinese, Thai ... overlapping pairs of characters or clusters."""
    data = text.encode()
    found = words(np.frombuffer(data, dtype=np.uint8))
    bounds = list(zip(found.starts.tolist(), found.ends.tolist(), strict=True))
    listed = []
    for index, (start, end) in enumerate(bounds):
        touches = index + 1 < len(bounds) and bounds[index + 1][0] == end
        follows = index > 0 and bounds[index - 1][1] == start
        if follows and not touches:
            continue
        term = data[start : bounds[index + 1][1] if touches else end].decode(errors="ignore").casefold()
        if len(term) > 1 and any(character.isalpha() for character in term):
            listed.append(intern(term))
    return tuple(listed)


def count_terms(listed: Sequence[Sequence[str]], vocabulary: Sequence[str] | None = None) -> TermCounts:
    """Counts of the terms of each document.

    Args:
        listed: terms of each document.
        vocabulary: columns; if omitted, the `MAX_TERMS` terms that most documents have, in `MIN_DOCUMENTS` or more.
    """
    from scipy.sparse import csr_matrix

    if vocabulary is None:
        documents = Counter(term for document in listed for term in set(document))
        frequent = [(-count, term) for term, count in documents.items() if count >= min(MIN_DOCUMENTS, len(listed))]
        vocabulary = sorted(term for _, term in sorted(frequent)[:MAX_TERMS])
    columns = {term: column for column, term in enumerate(vocabulary)}
    rows = [Counter(columns[term] for term in document if term in columns) for document in listed]
    borders = np.cumsum([0, *map(len, rows)])
    indices = np.array([column for row in rows for column in sorted(row)], dtype=np.int64)
    values = np.array([row[column] for row in rows for column in sorted(row)], dtype=np.float64)
    return TermCounts(csr_matrix((values, indices, borders), shape=(len(listed), len(vocabulary))), list(vocabulary))


def tf_idf(counts: Any, idf: npt.NDArray[np.float64]) -> Any:
    """Rows (1 + log count) * idf, scaled to length 1."""
    from sklearn.preprocessing import normalize

    weighted = counts.copy()
    weighted.data = (1 + np.log(weighted.data)) * idf[weighted.indices]
    return normalize(weighted)


def inverse_document_frequency(counts: Any) -> npt.NDArray[np.float64]:
    """(terms,) log((1 + documents) / (1 + documents with the term)) + 1."""
    having = np.bincount(counts.indices, minlength=counts.shape[1])
    return np.asarray(np.log((1 + counts.shape[0]) / (1 + having)) + 1)


@contextmanager
def without_convergence_warnings() -> Iterator[None]:
    """Models that stop at their limit of iterations are used as they are: a topic has its coherence, a genre its
    agreement on documents that the model did not see."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def common_terms(documents: Sequence[SampledDocument], listed: Sequence[Sequence[str]]) -> frozenset[str]:
    """Terms that say little of a document: scikit-learn's stop words, and those that `COMMON` of a language have."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    common = set(ENGLISH_STOP_WORDS)
    for language in sorted({document.language for document in documents}):
        of_language = [
            set(row) for document, row in zip(documents, listed, strict=True) if document.language == language
        ]
        if len(of_language) >= FEW:
            counts = Counter(term for row in of_language for term in row)
            common |= {term for term, count in counts.items() if count > COMMON * len(of_language)}
    return frozenset(common)
