"""The steps that clean one document.

- `Cleaner`: settings and models, and the steps in order
- `Cleaned`: the result for a document
- `RuleScores`: scores of one document for the document rules
- `prepared_text`: the first two steps, which the count of boilerplate lines needs too

The order of the steps: repair comes first, as every later step reads the text. Wrapped lines are joined before the line
rules, as otherwise most lines of a book would lack an end mark. Boilerplate is removed before the line rules, so that
their counts (and the share of words that they may remove) refer to the document itself. Personal data is replaced
before the document rules: the text that is measured is the text that is trained on. Models come last, as they cost most
and only need the documents that the rules kept.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

from data_schemas.language_codes import iso_code
from stages.clean.config import CleanConfig
from stages.clean.measures import stop_words
from stages.clean.measures.text_measures import TextMeasures
from stages.clean.personal_data import redact
from stages.clean.quality.corpus_models import Models
from stages.clean.repair.line_unwrapping import unwrap
from stages.clean.repair.normalize import normalize
from stages.clean.rules import badwords
from stages.clean.rules.boilerplate_lines import RepeatedLines, RepeatedLinesByFile
from stages.clean.rules.document_rules import SCORES, violations
from stages.clean.rules.language import Detection, confirmed, detect
from stages.clean.rules.language_limits import UNKNOWN, UNKNOWN_WITHOUT_SPACES, in_language
from stages.clean.rules.line_rules import apply_line_rules
from stages.clean.rules_config import DocumentRule, LineRules, Rules
from stages.common.scripts import unspaced_bytes

MIN_LANGUAGE_SHARE = 0.2
"""Minimum share of the text in a language for the rules to judge it by that language too."""


@dataclass
class Cleaned:
    """A document after all steps."""

    text: str
    edits: dict[str, int] = field(default_factory=dict)
    """Kind of edit -> count."""
    tags: list[str] = field(default_factory=list)
    """Violated rules that only tag, and the perplexity bucket."""
    dropped_by: str | None = None
    """The rule that drops the document."""
    score: float | None = None
    """The document's score for that rule."""
    language: str | None = None
    quality: float | None = None


@dataclass(frozen=True)
class RuleScores:
    """Scores of one document for the document rules; models are evaluated at most once, and only if needed."""

    measures: TextMeasures
    removed_share: float
    """Share of the words that line rules of RefinedWeb removed."""
    config: CleanConfig
    models: Models
    declared_language: str | None = None
    """ISO 639 code from the document's source, which counts if none can be detected."""

    def functions(self) -> dict[str, Callable[[], float]]:
        """Rule -> function that computes its score."""
        scores: dict[str, Callable[[], float]] = {name: partial(score, self.measures) for name, score in SCORES.items()}
        scores["refinedweb_removed_words"] = lambda: self.removed_share
        scores["language"] = self._accepted_language
        scores["badwords"] = lambda: badwords.share(self.measures.data)
        if self.models.classifier:
            scores["quality"] = lambda: self.quality or 0.0
        if self.models.language_model:
            scores["perplexity"] = lambda: self.perplexity or math.inf
        return scores

    @cached_property
    def quality(self) -> float | None:
        """Probability of being reference-like; None without a classifier."""
        return self.models.quality(self.measures.text)

    @cached_property
    def perplexity(self) -> float | None:
        """Perplexity under the language model; None without a model."""
        return self.models.perplexity(self.measures.text)

    @cached_property
    def language(self) -> tuple[str | None, float]:
        """Main language: ISO 639 code and its share of the text."""
        return confirmed(self._detection, self.measures.data)

    @cached_property
    def _detection(self) -> Detection:
        return detect(self.measures.text)

    def in_language(self, name: str, rule: DocumentRule, score: float) -> tuple[DocumentRule, float]:
        """Limits and score of a rule that a text violates as English, in the first of its languages that obeys it."""
        codes = [code for code, share in self._detection.languages if share >= MIN_LANGUAGE_SHARE]
        if not codes or not self._detection.is_reliable:
            codes.append(self._undetected_language)
        for code in codes:
            limits, own_score = self._in_one_language(name, rule, score, code)
            if not limits.is_violated_by(own_score):
                return limits, own_score
        return rule, score

    @cached_property
    def _undetected_language(self) -> str:
        """Language to judge a text by in which none is detected for sure: the declared one, that of its stop words, or
        none if its script is in no list; else English."""
        data, text = self.measures.data, self.measures.text
        if code := self.declared_language or stop_words.most_likely(data):
            return code
        if not stop_words.is_unlisted_script(text):
            return "en"
        return UNKNOWN_WITHOUT_SPACES if 2 * unspaced_bytes(text, len(data)) > len(data) else UNKNOWN

    def _in_one_language(self, name: str, rule: DocumentRule, score: float, code: str) -> tuple[DocumentRule, float]:
        if code == "en":
            return rule, score
        if name in ("gopher_stop_words", "stop_word_share"):
            counted = stop_words.count(self.measures.data, code)
            if counted is None:  # no list: the rule cannot judge the text
                is_known = self._detection.is_reliable or code in (UNKNOWN, UNKNOWN_WITHOUT_SPACES)
                return rule, math.nan if is_known else score
            return rule, counted.distinct if name == "gopher_stop_words" else counted.share
        return in_language(name, rule, code), score

    def _accepted_language(self) -> float:
        code, probability = self.language
        return probability if code and (not self.config.languages or code in self.config.languages) else 0.0


@dataclass(frozen=True)
class Cleaner:
    """Cleans one document at a time; picklable."""

    config: CleanConfig
    repeated_lines: RepeatedLinesByFile | RepeatedLines | None = None
    """Repeated lines of all files, or of those of the documents to clean."""
    models: Models = field(default_factory=Models)
    _rules: dict[str, tuple[LineRules, Rules]] = field(default_factory=dict, repr=False)
    """Rules by genre, merged once."""

    def of_file(self, path: str) -> "Cleaner":
        """Cleaner of one file's documents, with the repeated lines of this file read."""
        if isinstance(self.repeated_lines, RepeatedLinesByFile):
            return replace(self, repeated_lines=self.repeated_lines.of(path))
        return self

    def clean(self, document: Mapping[str, Any]) -> Cleaned:
        """Apply all steps to a document (a row of the documents table), up to the rule that drops it."""
        lines, rules = self._rules_of(document["genre"])
        text, joined = prepared_text(self.config.unwrapped_genres, document)
        measures = TextMeasures.of(text)
        removed = 0
        if isinstance(self.repeated_lines, RepeatedLines):
            measures, removed = self.repeated_lines.remove(document, measures)
        measures, edits, removed_share = apply_line_rules(measures, lines)
        measures, replaced = self._without_personal_data(measures)
        edits |= {"line_unwrapping": joined, "boilerplate_lines": removed, **replaced}
        cleaned = Cleaned(measures.text, {kind: count for kind, count in edits.items() if count})
        declared = iso_code(document["language"])
        scores = RuleScores(measures, removed_share, self.config, self.models, declared)
        for violation in violations(rules, scores.functions(), scores.in_language):
            if violation.action == "drop":
                cleaned.dropped_by, cleaned.score = violation.rule, violation.score
                return cleaned
            cleaned.tags.append(violation.rule)
        cleaned.language = declared or scores.language[0]
        cleaned.quality = scores.quality
        if scores.perplexity is not None:
            cleaned.tags.append(self.models.bucket(scores.perplexity))
        return cleaned

    def kept_texts(self, path: str) -> Callable[[Mapping[str, Any]], str | None]:
        """Function from one file's documents to their cleaned text, or None if a rule drops it; for the models."""
        return self.of_file(path)._kept_text

    def _kept_text(self, document: Mapping[str, Any]) -> str | None:
        cleaned = self.clean(document)
        return cleaned.text if cleaned.dropped_by is None else None

    def _without_personal_data(self, measures: TextMeasures) -> tuple[TextMeasures, dict[str, int]]:
        if self.config.personal_data is None:
            return measures, {}
        text, replaced = redact(measures.text, self.config.personal_data)
        counts = {f"redacted_{kind}": count for kind, count in replaced.items()}
        return (TextMeasures.of(text) if replaced else measures), counts

    def _rules_of(self, genre: str) -> tuple[LineRules, Rules]:
        if genre not in self._rules:
            self._rules[genre] = self.config.rules_of(genre)
        return self._rules[genre]


def prepared_text(unwrapped_genres: tuple[str, ...], document: Mapping[str, Any]) -> tuple[str, int]:
    """Repaired and unwrapped text of a document, and the number of lines joined."""
    text = normalize(document["text"])
    return unwrap(text) if document["genre"] in unwrapped_genres else (text, 0)
