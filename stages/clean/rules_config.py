"""The rules' names, actions and limits: the tables `clean.rules` and `clean.lines` of a run config.

- `Rules`: rules that judge a whole document; `DocumentRule` is the entry of one
- `LineRules`: rules that take lines or marks out of it; `LineRule` is the entry of one
- `GenreChanges`: what is different for the documents of one genre

A rule measures a score; the document (or line) breaks it where the score is below `min` or above `max`. A broken
document rule drops the document or tags it; the first broken `drop` rule is the reason in the rejects table. Every
default limit is that of the paper named with it; `document_rules.py` and `line_rules.py` say how each is measured.
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


def _said_off(action: Any) -> Any:
    """YAML reads a bare `off` as false."""
    return "off" if action is False else action


DocumentAction = Annotated[Literal["drop", "tag", "off"], BeforeValidator(_said_off)]
LineAction = Annotated[Literal["drop", "off"], BeforeValidator(_said_off)]


class DocumentRule(FrozenConfig):
    """What happens to documents that break a rule, and when one does."""

    action: DocumentAction = Field(
        description="drop the document, add the rule's name to its tags, or do not measure it"
    )
    min: float | None = Field(None, description="lowest accepted score; none where left out")
    max: float | None = Field(None, description="highest accepted score; none where left out")

    @model_validator(mode="after")
    def _accept_something(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min is {self.min:g} and max {self.max:g}: no score is accepted")
        return self

    def breaks(self, score: float) -> bool:
        """True for a score outside the limits."""
        return (self.min is not None and score < self.min) or (self.max is not None and score > self.max)


class LineRule(DocumentRule):
    """What happens to lines that break a rule, and when one does."""

    action: LineAction = Field(description="take the line (or the mark) out of the text, or leave it")


class DocumentRuleChange(FrozenConfig):
    """What is different for one genre; what is left out stays as it is."""

    action: DocumentAction | None = Field(None, description="as in clean.rules")
    min: float | None = Field(None, description="lowest accepted score")
    max: float | None = Field(None, description="highest accepted score")


class LineRuleChange(DocumentRuleChange):
    """What is different for one genre; what is left out stays as it is."""

    action: LineAction | None = Field(None, description="as in clean.lines")


class _RuleTable(FrozenConfig):
    """One field per rule; an entry that leaves something out takes it from the rule's default."""

    @model_validator(mode="before")
    @classmethod
    def _over_the_defaults(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        return {name: _merged(cls.model_fields[name].default, entry) if name in cls.model_fields else entry
                for name, entry in given.items()}  # fmt: skip

    def changed(self, changes: Mapping[str, DocumentRuleChange]) -> Self:
        """This table with the changes of one genre."""
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
    """Rules over whole documents, in the order in which they are tried."""

    gopher_words: DocumentRule = _rule("drop", f"words with a letter or digit. {GOPHER}", min=50, max=100_000)
    gopher_mean_word_length: DocumentRule = _rule("drop", f"characters per such word. {GOPHER}", min=3, max=10)
    gopher_hashes: DocumentRule = _rule("drop", f"`#` characters per word. {GOPHER}", max=0.1)
    gopher_ellipses: DocumentRule = _rule("drop", f"`...` and `…` per word. {GOPHER}", max=0.1)
    gopher_bullet_lines: DocumentRule = _rule("drop", f"share of lines that begin with a bullet. {GOPHER}", max=0.9)
    gopher_ellipsis_lines: DocumentRule = _rule("drop", f"share of lines that end in an ellipsis. {GOPHER}", max=0.3)
    gopher_alphabetic_words: DocumentRule = _rule("drop", f"share of words with a letter. {GOPHER}", min=0.8)
    gopher_stop_words: DocumentRule = _rule("drop", f"distinct ones of the eight stop words. {GOPHER}", min=2)
    stop_word_share: DocumentRule = _rule(
        "drop",
        "share of words that are one of the eight; not Gopher's: a long text in another language has two of them in "
        "names and titles, while of 12,883 English documents of eight kinds none had under 0.012",
        min=0.01,
    )
    gopher_duplicate_lines: DocumentRule = _rule("drop", f"share of lines that stood before. {GOPHER}", max=0.3)
    gopher_duplicate_paragraphs: DocumentRule = _rule(
        "drop", f"share of paragraphs that stood before. {GOPHER}", max=0.3
    )
    gopher_duplicate_line_characters: DocumentRule = _rule(
        "drop", f"share of characters in such lines. {GOPHER}", max=0.2
    )
    gopher_duplicate_paragraph_characters: DocumentRule = _rule(
        "drop", f"share of characters in such paragraphs. {GOPHER}", max=0.2
    )
    gopher_top_2_gram: DocumentRule = _rule("drop", f"share of characters in the commonest. {GOPHER}", max=0.20)
    gopher_top_3_gram: DocumentRule = _rule("drop", f"share of characters in the commonest. {GOPHER}", max=0.18)
    gopher_top_4_gram: DocumentRule = _rule("drop", f"share of characters in the commonest. {GOPHER}", max=0.16)
    gopher_duplicate_5_grams: DocumentRule = _rule("drop", f"share of characters in repeated ones. {GOPHER}", max=0.15)
    gopher_duplicate_6_grams: DocumentRule = _rule("drop", f"share of characters in repeated ones. {GOPHER}", max=0.14)
    gopher_duplicate_7_grams: DocumentRule = _rule("drop", f"share of characters in repeated ones. {GOPHER}", max=0.13)
    gopher_duplicate_8_grams: DocumentRule = _rule("drop", f"share of characters in repeated ones. {GOPHER}", max=0.12)
    gopher_duplicate_9_grams: DocumentRule = _rule("drop", f"share of characters in repeated ones. {GOPHER}", max=0.11)
    gopher_duplicate_10_grams: DocumentRule = _rule("drop", f"share of characters in repeated ones. {GOPHER}", max=0.1)
    c4_lorem_ipsum: DocumentRule = _rule("tag", f"times that `lorem ipsum` stands there. {C4}", max=0)
    c4_curly_bracket: DocumentRule = _rule("tag", f"opening curly brackets. {C4}", max=0)
    c4_sentences: DocumentRule = _rule("tag", f"sentences. {C4}", min=5)
    fineweb_punctuated_lines: DocumentRule = _rule(
        "tag", f"share of lines that end in a mark that ends a sentence. {FINEWEB}", min=0.12
    )
    fineweb_short_lines: DocumentRule = _rule("tag", f"share of lines of at most 30 characters. {FINEWEB}", max=0.67)
    fineweb_duplicate_line_characters: DocumentRule = _rule(
        "tag", f"share of characters in lines that stood before. {FINEWEB}", max=0.01
    )
    fineweb_line_feeds: DocumentRule = _rule("tag", f"line feeds per word. {FINEWEB}", max=0.3)
    refinedweb_removed_words: DocumentRule = _rule(
        "drop", f"share of words that the line rules refinedweb_* took out. {REFINEDWEB}", max=0.05
    )
    nemo_symbols: DocumentRule = _rule("off", f"share of characters but letters and digits. {NEMO}", max=0.25)
    nemo_digits: DocumentRule = _rule("off", f"share of characters that are digits. {NEMO}", max=0.15)
    nemo_urls: DocumentRule = _rule("off", f"share of characters in web addresses. {NEMO}", max=0.2)
    nemo_white_space: DocumentRule = _rule("off", f"share of characters that are white space. {NEMO}", max=0.25)
    nemo_brackets: DocumentRule = _rule("off", f"share of characters that are brackets. {NEMO}", max=0.1)
    language: DocumentRule = _rule(
        "off", f"probability of its language if that is one of clean.languages, else 0. {REFINEDWEB}", min=0.65
    )
    badwords: DocumentRule = _rule("tag", f"share of words on the list of bad words. {C4}, which drops at one", max=0)
    quality: DocumentRule = _rule(
        "off", "probability of being reference-like, by clean.quality_classifier; measured where that is set", min=0.5
    )
    perplexity: DocumentRule = _rule(
        "off", "perplexity under the model of clean.perplexity; measured where that is set", max=1_000
    )


class LineRules(_RuleTable):
    """Rules over lines, in the order in which they are tried; all off until switched on, as they are for web pages."""

    c4_citations: LineRule = _line(f"deletes [1], [edit] and [citation needed]. {C4}")
    c4_longest_word: LineRule = _line(f"characters of the line's longest word. {C4}", max=1_000)
    c4_end_mark: LineRule = _line(f"1 where it ends in one of . ? ! \" ' but not in `...`. {C4}", min=1)
    c4_words: LineRule = _line(f"words. {C4}", min=3)
    c4_javascript: LineRule = _line(f"times that `javascript` stands in it. {C4}", max=0)
    c4_policy: LineRule = _line(f"phrases such as `privacy policy` and `use of cookies` in it. {C4}", max=0)
    refinedweb_uppercase: LineRule = _line(f"share of characters that are capital letters. {REFINEDWEB}", max=0.5)
    refinedweb_digits: LineRule = _line(f"share of its letters and digits that are digits. {REFINEDWEB}", max=0.9)
    refinedweb_counter: LineRule = _line(f"1 where it is a counter such as `3 likes`. {REFINEDWEB}", max=0)
    refinedweb_words: LineRule = _line(f"words. {REFINEDWEB}", min=2)
    refinedweb_navigation: LineRule = _line(
        f"1 where it has at most ten words and is of a page's controls, such as `sign in` or `read more...`. "
        f"{REFINEDWEB}",
        max=0,
    )


class GenreChanges(FrozenConfig):
    """What is different for the documents of one genre."""

    rules: dict[str, DocumentRuleChange] = Field({}, description="changes to clean.rules, by rule")
    lines: dict[str, LineRuleChange] = Field({}, description="changes to clean.lines, by rule")

    @model_validator(mode="after")
    def _know_the_rules(self) -> Self:
        for changes, table in ((self.rules, Rules), (self.lines, LineRules)):
            for name in changes:
                if name not in table.model_fields:
                    near = difflib.get_close_matches(name, table.model_fields, n=1, cutoff=0.5)
                    hint = f"did you mean {near[0]!r}?" if near else f"accepted are {', '.join(table.model_fields)}"
                    raise ValueError(f"unknown rule {name!r}; {hint}")
        return self
