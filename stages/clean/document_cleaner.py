"""The way of one document through the stage.

- `Cleaner`: settings and models, and the recipe
- `Cleaned`: what became of the document
- `Measures`: the rules' measures of one document
- `prepared_text`: the first two steps, which the count of boilerplate lines needs too

The order of the steps, and why: repair comes first, as every later step reads the text. Wrapped lines are joined
before lines are judged, or else every line of a book would lack its end mark. Boilerplate goes before the line rules,
so that their counts (and the share of words that they may take) are about the document itself. Personal data goes
before the documents are judged: what is measured is what is trained on. Models come last, as they cost most and see
only what the rules kept.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

from stages.clean.config import CleanConfig
from stages.clean.measures.text_measures import TextMeasures
from stages.clean.personal_data import redact
from stages.clean.quality.corpus_models import Models
from stages.clean.repair.line_unwrapping import unwrap
from stages.clean.repair.normalize import normalize
from stages.clean.rules import badwords
from stages.clean.rules.boilerplate_lines import RepeatedLines
from stages.clean.rules.document_rules import SCORES, judge
from stages.clean.rules.language import detect
from stages.clean.rules.line_rules import apply_line_rules
from stages.clean.rules_config import LineRules, Rules


@dataclass
class Cleaned:
    """A document after the stage."""

    text: str
    edits: dict[str, int] = field(default_factory=dict)
    """What was changed -> times."""
    tags: list[str] = field(default_factory=list)
    """Rules that it breaks and that only tag."""
    dropped_by: str | None = None
    score: float | None = None
    """What that rule measured."""
    language: str | None = None
    quality: float | None = None


@dataclass(frozen=True)
class Measures:
    """How each rule measures one document; what a model says is asked once, and only if it is needed."""

    parts: TextMeasures
    corrected: float
    """Share of the words that line rules of RefinedWeb took out."""
    config: CleanConfig
    models: Models

    def scores(self) -> dict[str, Callable[[], float]]:
        """Rule -> its measure."""
        scores: dict[str, Callable[[], float]] = {name: partial(score, self.parts) for name, score in SCORES.items()}
        scores["refinedweb_removed_words"] = lambda: self.corrected
        scores["language"] = self._accepted_language
        scores["badwords"] = lambda: badwords.share(self.parts.data)
        if self.models.classifier:
            scores["quality"] = lambda: self.quality or 0.0
        if self.models.language_model:
            scores["perplexity"] = lambda: self.perplexity or math.inf
        return scores

    @cached_property
    def quality(self) -> float | None:
        """What the classifier says; None without one."""
        return self.models.quality(self.parts.text)

    @cached_property
    def perplexity(self) -> float | None:
        """What the language model says; None without one."""
        return self.models.perplexity(self.parts.text)

    @cached_property
    def language(self) -> tuple[str | None, float]:
        """ISO 639-1 code, and how sure that is."""
        return detect(self.parts.text)

    def _accepted_language(self) -> float:
        code, probability = self.language
        return probability if code and (not self.config.languages or code in self.config.languages) else 0.0


@dataclass(frozen=True)
class Cleaner:
    """Cleans documents one by one; picklable."""

    config: CleanConfig
    repeated_lines: RepeatedLines | None = None
    models: Models = field(default_factory=Models)
    _rules: dict[str, tuple[LineRules, Rules]] = field(default_factory=dict, repr=False)
    """By genre, merged once."""

    def clean(self, document: Mapping[str, Any]) -> Cleaned:
        """Take one document (a row of the documents table) through all steps, up to the rule that drops it."""
        lines, rules = self._rules_of(document["genre"])
        text, joined = prepared_text(self.config.unwrapped_genres, document)
        parts = TextMeasures.of(text)
        removed = 0
        if self.repeated_lines is not None:
            parts, removed = self.repeated_lines.remove(document, parts)
        parts, edits, corrected = apply_line_rules(parts, lines)
        parts, replaced = self._without_personal_data(parts)
        edits |= {"line_unwrapping": joined, "boilerplate_lines": removed, **replaced}
        cleaned = Cleaned(parts.text, {what: times for what, times in edits.items() if times})
        measures = Measures(parts, corrected, self.config, self.models)
        for broken in judge(rules, measures.scores()):
            if broken.action == "drop":
                cleaned.dropped_by, cleaned.score = broken.rule, broken.score
                return cleaned
            cleaned.tags.append(broken.rule)
        cleaned.language = document["language"] or measures.language[0]
        cleaned.quality = measures.quality
        if measures.perplexity is not None:
            cleaned.tags.append(self.models.bucket(measures.perplexity))
        return cleaned

    def kept_text(self, document: Mapping[str, Any]) -> str | None:
        """Its text, or None where a rule drops it: what the models are trained on."""
        cleaned = self.clean(document)
        return cleaned.text if cleaned.dropped_by is None else None

    def _without_personal_data(self, parts: TextMeasures) -> tuple[TextMeasures, dict[str, int]]:
        if self.config.personal_data is None:
            return parts, {}
        text, replaced = redact(parts.text, self.config.personal_data)
        counts = {f"redacted_{kind}": times for kind, times in replaced.items()}
        return (TextMeasures.of(text) if replaced else parts), counts

    def _rules_of(self, genre: str) -> tuple[LineRules, Rules]:
        if genre not in self._rules:
            self._rules[genre] = self.config.rules_of(genre)
        return self._rules[genre]


def prepared_text(unwrapped_genres: tuple[str, ...], document: Mapping[str, Any]) -> tuple[str, int]:
    """The document's text repaired and unwrapped, and how many lines were joined."""
    text = normalize(document["text"])
    return unwrap(text) if document["genre"] in unwrapped_genres else (text, 0)
