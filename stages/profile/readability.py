"""Readability of documents by the formula that was published for their language.

- `Readability`: the analysis
- `FORMULAS`: Flesch reading ease and its adaptations, 0 (hard) to 100 (easy); `LIX_LANGUAGES`: those of LIX, 20 to 60
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_schemas.language_codes import iso_code
from stages.profile.analysis import Analysis, Measure, State
from stages.profile.sentence_measures import sentence_measures
from stages.profile.sketches import distribution
from stages.profile.words.document_words import document_words

Floats = npt.NDArray[np.float64]
Formula = Callable[[Floats, Floats], Floats]

MIN_WORDS = 100
"""Flesch's formula is defined for samples of 100 words."""
LOWEST, HIGHEST, STEPS = -100, 200, 10
"""Scores are cut to this range and counted in tenths: fewer than a distribution holds exactly."""
SHARES = (0.1, 0.5, 0.9)

FORMULAS: dict[str, Formula] = {
    "en": lambda words, syllables: 206.835 - 1.015 * words - 84.6 * syllables,  # Flesch 1948
    "de": lambda words, syllables: 180 - words - 58.5 * syllables,  # Amstad 1978
    "es": lambda words, syllables: 206.835 - words - 62.3 * syllables,  # Szigriszt Pazos 1993
    "fr": lambda words, syllables: 207 - 1.015 * words - 73.6 * syllables,  # Kandel & Moles 1958
    "it": lambda words, syllables: 217 - 1.3 * words - 60 * syllables,  # Franchina & Vacca 1986
    "nl": lambda words, syllables: 206.84 - 0.93 * words - 77 * syllables,  # Douma 1960
    "pt": lambda words, syllables: 248.835 - 1.015 * words - 84.6 * syllables,  # Martins et al. 1996
    "ru": lambda words, syllables: 206.835 - 1.3 * words - 60.1 * syllables,  # Oborneva 2006
}
"""Language -> function of words per sentence and syllables per word."""
LIX_LANGUAGES = ("sv", "da", "no", "fi", "en", "de", "fr", "es", "it", "pt", "ru")
"""Björnsson 1968 and 1983: words per sentence, plus percent of words of more than six letters."""


class Readability(Analysis):
    """Flesch reading ease and LIX of documents of at least `MIN_WORDS` words whose language has a formula."""

    name = "readability"

    def empty(self) -> State:
        """No scores."""
        return {"scores": {}, "left_out": {"short": 0, "no_formula": 0}}

    def add(self, state: State, documents: pa.RecordBatch) -> State:
        """Score more documents."""
        found = document_words(documents)
        languages = np.array([iso_code(code) or "" for code in documents.column("language").to_pylist()], dtype=object)
        is_long = found.counts >= MIN_WORDS
        has_formula = np.isin(languages.astype(str), [*FORMULAS, *LIX_LANGUAGES])
        left_out = {"short": int((~is_long).sum()), "no_formula": int((is_long & ~has_formula).sum())}
        more: State = {"scores": {}, "left_out": left_out}
        sentences, syllables, long_words = sentence_measures(found, (languages == "en").astype(np.bool_))
        words = np.maximum(1, found.counts)
        per_sentence = words / np.maximum(1, sentences)
        for language in sorted(set(languages[is_long & has_formula])):
            own = is_long & (languages == language)
            if formula := FORMULAS.get(language):
                scores = formula(per_sentence[own], (syllables / words)[own])
                more["scores"][f"flesch_{language}"] = _counted(scores)
            if language in LIX_LANGUAGES:
                scores = per_sentence[own] + 100 * (long_words / words)[own]
                more["scores"][f"lix_{language}"] = _counted(scores)
        return self.merge(state, more)

    def merge(self, first: State, second: State) -> State:
        """Merge formula by formula."""
        nothing = distribution.empty()
        names = sorted({*first["scores"], *second["scores"]})
        scores = {
            name: distribution.merge(first["scores"].get(name, nothing), second["scores"].get(name, nothing))
            for name in names
        }
        left_out = {name: count + second["left_out"][name] for name, count in first["left_out"].items()}
        return {"scores": scores, "left_out": left_out}

    def measures(self, state: State) -> Sequence[Measure]:
        """`readability.FORMULA_LANGUAGE.{documents,mean,quantile}`, and the documents left out by reason."""
        rows = []
        for name, scores in state["scores"].items():
            rows += [
                Measure(f"readability.{name}.documents", distribution.total(scores), "documents"),
                Measure(f"readability.{name}.mean", distribution.mean(scores) / STEPS + LOWEST, "points"),
            ]
            for share in SHARES:
                value = distribution.quantile(scores, share).value / STEPS + LOWEST
                rows.append(Measure(f"readability.{name}.quantile", value, "points", f"{share:.0%}"))
        return rows + [
            Measure("readability.left_out", count, "documents", reason) for reason, count in state["left_out"].items()
        ]


def _counted(scores: Floats) -> distribution.State:
    steps = np.rint((np.clip(scores, LOWEST, HIGHEST) - LOWEST) * STEPS).astype(np.int64)
    return distribution.add(distribution.empty(), steps)
