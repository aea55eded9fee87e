"""Names, actions and limits of the rules: the tables `clean.rules` and `clean.lines` of a run config.

- `Rules`: rules for whole documents; `DocumentRule` is the entry of a rule
- `LineRules`: rules that remove lines or marks; `LineRule` is the entry of a rule
- `GenreChanges`: overrides for the documents of one genre

A rule computes a score; the document (or line) violates it if the score is below `min` or above `max`. A violated
document rule drops the document or tags it; the first violated `drop` rule is the reason in the rejects table. Every
default limit is that of the paper cited with it; `rules/document_rules.py` and `rules/line_rules.py` define the scores.
"""

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from data_schemas.config import FrozenConfig

GOPHER = "Gopher: Rae et al. 2021, 2112.11446, A.1.1"
C4 = "C4: Raffel et al. 2020, 1910.10683, 2.2, and its code"
FINEWEB = "FineWeb: Penedo et al. 2024, 2406.17557, 3.6"
REFINEDWEB = "RefinedWeb: Penedo et al. 2023, 2306.01116, G.2; thresholds of DCLM, Li et al. 2024, 2406.11794"
NEMO = "NeMo Curator's heuristic filters"


def _false_as_off(action: Any) -> Any:
    """YAML reads a bare `off` as false."""
    return "off" if action is False else action


DocumentAction = Annotated[Literal["drop", "tag", "off"], BeforeValidator(_false_as_off)]
LineAction = Annotated[Literal["drop", "off"], BeforeValidator(_false_as_off)]


class DocumentRule(FrozenConfig):
    """Limits of a rule, and the action on documents that violate it."""

    action: DocumentAction = Field(
        description="drop: drop the document; tag: add the rule's name to its tags; off: do not compute the score"
    )
    min: float | None = Field(None, description="lowest accepted score; no limit if omitted")
    max: float | None = Field(None, description="highest accepted score; no limit if omitted")

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min is {self.min:g} and max {self.max:g}: no score is accepted; min must not exceed max")
        return self

    def is_violated_by(self, score: float) -> bool:
        """True for a score outside the limits."""
        return (self.min is not None and score < self.min) or (self.max is not None and score > self.max)


class LineRule(DocumentRule):
    """Limits of a rule, and the action on lines that violate it."""

    action: LineAction = Field(description="drop: remove the line (or the mark) from the text; off: keep it")


class DocumentRuleChange(FrozenConfig):
    """Overrides of a rule for one genre; omitted fields are unchanged."""

    action: DocumentAction | None = Field(None, description="as in clean.rules")
    min: float | None = Field(None, description="lowest accepted score")
    max: float | None = Field(None, description="highest accepted score")


class LineRuleChange(DocumentRuleChange):
    """Overrides of a rule for one genre; omitted fields are unchanged."""

    action: LineAction | None = Field(None, description="as in clean.lines")


class _RuleTable(FrozenConfig):
    """One field per rule; fields that an entry omits keep the rule's defaults."""

    @model_validator(mode="before")
    @classmethod
    def _merge_with_defaults(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        return {name: _merged(cls.model_fields[name].default, entry) if name in cls.model_fields else entry
                for name, entry in values.items()}  # fmt: skip

    def changed(self, changes: Mapping[str, DocumentRuleChange]) -> Self:
        """This table with the overrides of one genre."""
        return type(self).model_validate({**self.model_dump(), **{
            name: _merged(getattr(self, name), change.model_dump(exclude_none=True)) for name, change in changes.items()
        }})  # fmt: skip


def _merged(default: DocumentRule, entry: Any) -> Any:
    return {**default.model_dump(), **entry} if isinstance(entry, Mapping) else entry


def _rule(action: str, description: str, *, min: float | None = None, max: float | None = None) -> Any:
    return Field(DocumentRule.model_validate({"action": action, "min": min, "max": max}), description=description)


def _line(description: str, *, min: float | None = None, max: float | None = None) -> Any:
    return Field(LineRule(action="off", min=min, max=max), description=description)


class Rules(_RuleTable):
    """Rules for whole documents, in the order in which they are applied."""

    gopher_words: DocumentRule = _rule("drop", f"number of words with a letter or digit. {GOPHER}", min=50, max=100_000)
    gopher_mean_word_length: DocumentRule = _rule("drop", f"characters per such word. {GOPHER}", min=3, max=10)
    gopher_hashes: DocumentRule = _rule("drop", f"`#` characters per word. {GOPHER}", max=0.1)
    gopher_ellipses: DocumentRule = _rule("drop", f"`...` and `…` per word. {GOPHER}", max=0.1)
    gopher_bullet_lines: DocumentRule = _rule("drop", f"share of lines that begin with a bullet. {GOPHER}", max=0.9)
    gopher_ellipsis_lines: DocumentRule = _rule("drop", f"share of lines that end in an ellipsis. {GOPHER}", max=0.3)
    gopher_alphabetic_words: DocumentRule = _rule("drop", f"share of words with a letter. {GOPHER}", min=0.8)
    gopher_stop_words: DocumentRule = _rule("drop", f"number of distinct stop words out of eight. {GOPHER}", min=2)
    stop_word_share: DocumentRule = _rule(
        "drop",
        "share of words that are one of the eight stop words; not in Gopher: a long text in another language has two "
        "of them in names and titles, while of 12,883 English documents of eight kinds none had under 0.012",
        min=0.01,
    )
    gopher_duplicate_lines: DocumentRule = _rule(
        "drop", f"share of lines that occurred earlier in the document. {GOPHER}", max=0.3
    )
    gopher_duplicate_paragraphs: DocumentRule = _rule(
        "drop", f"share of paragraphs that occurred earlier in the document. {GOPHER}", max=0.3
    )
    gopher_duplicate_line_characters: DocumentRule = _rule(
        "drop", f"share of characters in duplicate lines. {GOPHER}", max=0.2
    )
    gopher_duplicate_paragraph_characters: DocumentRule = _rule(
        "drop", f"share of characters in duplicate paragraphs. {GOPHER}", max=0.2
    )
    gopher_top_2_gram: DocumentRule = _rule(
        "drop", f"share of characters in the most frequent n-gram. {GOPHER}", max=0.20
    )
    gopher_top_3_gram: DocumentRule = _rule(
        "drop", f"share of characters in the most frequent n-gram. {GOPHER}", max=0.18
    )
    gopher_top_4_gram: DocumentRule = _rule(
        "drop", f"share of characters in the most frequent n-gram. {GOPHER}", max=0.16
    )
    gopher_duplicate_5_grams: DocumentRule = _rule(
        "drop", f"share of characters in repeated n-grams. {GOPHER}", max=0.15
    )
    gopher_duplicate_6_grams: DocumentRule = _rule(
        "drop", f"share of characters in repeated n-grams. {GOPHER}", max=0.14
    )
    gopher_duplicate_7_grams: DocumentRule = _rule(
        "drop", f"share of characters in repeated n-grams. {GOPHER}", max=0.13
    )
    gopher_duplicate_8_grams: DocumentRule = _rule(
        "drop", f"share of characters in repeated n-grams. {GOPHER}", max=0.12
    )
    gopher_duplicate_9_grams: DocumentRule = _rule(
        "drop", f"share of characters in repeated n-grams. {GOPHER}", max=0.11
    )
    gopher_duplicate_10_grams: DocumentRule = _rule(
        "drop", f"share of characters in repeated n-grams. {GOPHER}", max=0.1
    )
    c4_lorem_ipsum: DocumentRule = _rule("tag", f"occurrences of `lorem ipsum`. {C4}", max=0)
    c4_curly_bracket: DocumentRule = _rule("tag", f"number of opening curly brackets. {C4}", max=0)
    c4_sentences: DocumentRule = _rule("tag", f"number of sentences. {C4}", min=5)
    fineweb_punctuated_lines: DocumentRule = _rule(
        "tag", f"share of lines that end in terminal punctuation. {FINEWEB}", min=0.12
    )
    fineweb_short_lines: DocumentRule = _rule("tag", f"share of lines of at most 30 characters. {FINEWEB}", max=0.67)
    fineweb_duplicate_line_characters: DocumentRule = _rule(
        "tag", f"share of characters in duplicate lines. {FINEWEB}", max=0.01
    )
    fineweb_line_feeds: DocumentRule = _rule("tag", f"line feeds per word. {FINEWEB}", max=0.3)
    refinedweb_removed_words: DocumentRule = _rule(
        "drop", f"share of words that the line rules refinedweb_* removed. {REFINEDWEB}", max=0.05
    )
    nemo_symbols: DocumentRule = _rule(
        "off", f"share of characters that are neither letters nor digits. {NEMO}", max=0.25
    )
    nemo_digits: DocumentRule = _rule("off", f"share of characters that are digits. {NEMO}", max=0.15)
    nemo_urls: DocumentRule = _rule("off", f"share of characters in web addresses. {NEMO}", max=0.2)
    nemo_white_space: DocumentRule = _rule("off", f"share of characters that are white space. {NEMO}", max=0.25)
    nemo_brackets: DocumentRule = _rule("off", f"share of characters that are brackets. {NEMO}", max=0.1)
    language: DocumentRule = _rule(
        "off", f"probability of the detected language if it is in clean.languages, else 0. {REFINEDWEB}", min=0.65
    )
    badwords: DocumentRule = _rule("tag", f"share of words on the list of bad words. {C4}, which drops at one", max=0)
    quality: DocumentRule = _rule("off", "probability of being reference-like; needs clean.quality_classifier", min=0.5)
    perplexity: DocumentRule = _rule("off", "perplexity under the trigram model; needs clean.perplexity", max=1_000)


class LineRules(_RuleTable):
    """Rules for lines, in the order in which they are applied; all off by default, as they are meant for web pages."""

    c4_citations: LineRule = _line(f"deletes [1], [edit] and [citation needed]. {C4}")
    c4_longest_word: LineRule = _line(f"length of the line's longest word, in characters. {C4}", max=1_000)
    c4_end_mark: LineRule = _line(f"1 if the line ends in one of . ? ! \" ' but not in `...`. {C4}", min=1)
    c4_words: LineRule = _line(f"number of words. {C4}", min=3)
    c4_javascript: LineRule = _line(f"occurrences of `javascript`. {C4}", max=0)
    c4_policy: LineRule = _line(f"number of phrases such as `privacy policy` and `use of cookies`. {C4}", max=0)
    refinedweb_uppercase: LineRule = _line(f"share of characters that are capital letters. {REFINEDWEB}", max=0.5)
    refinedweb_digits: LineRule = _line(f"share of the letters and digits that are digits. {REFINEDWEB}", max=0.9)
    refinedweb_counter: LineRule = _line(f"1 if the line is a counter such as `3 likes`. {REFINEDWEB}", max=0)
    refinedweb_words: LineRule = _line(f"number of words. {REFINEDWEB}", min=2)
    refinedweb_navigation: LineRule = _line(
        f"1 if the line has at most ten words and belongs to page controls, such as `sign in` or `read more...`. "
        f"{REFINEDWEB}",
        max=0,
    )


class GenreChanges(FrozenConfig):
    """Overrides for the documents of one genre."""

    rules: dict[str, DocumentRuleChange] = Field({}, description="rule -> overrides of clean.rules")
    lines: dict[str, LineRuleChange] = Field({}, description="rule -> overrides of clean.lines")

    @model_validator(mode="after")
    def _check_rule_names(self) -> Self:
        for changes, table in ((self.rules, Rules), (self.lines, LineRules)):
            for name in changes:
                if name not in table.model_fields:
                    close = difflib.get_close_matches(name, table.model_fields, n=1, cutoff=0.5)
                    hint = f"did you mean {close[0]!r}?" if close else f"accepted are {', '.join(table.model_fields)}"
                    raise ValueError(f"unknown rule {name!r}; {hint}")
        return self
