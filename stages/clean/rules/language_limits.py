"""Limits of rules for languages in which those of English papers are wrong.

- `in_language`: a rule with the limits for a language
- `UNKNOWN`, `UNKNOWN_WITHOUT_SPACES`: codes for text whose language nobody can tell

They replace a rule's default limits only, and only widen them: limits that a config sets hold for all languages. Those
for repetition are the upper quartiles of FineWeb2's limits per language (`configs/*.yml` of huggingface/fineweb-2, 47
languages with spaces and eight without). What the other values are from: `docs/results/corpus.md`.
"""

from stages.clean.rules_config import DocumentRule, Rules

UNKNOWN, UNKNOWN_WITHOUT_SPACES = "und", "und-unspaced"
WITHOUT_SPACES = frozenset(("bo", "dz", "ja", "km", "lo", "my", "th", "yue", "zh", UNKNOWN_WITHOUT_SPACES))
"""Languages whose words are units of a character or a syllable (`stages/common/word_classes.py`): a word of English
corresponds to about two, so that n-grams of 4 and 10 units have the limits of 2 and 5 words, and shorter ones none."""
Limits = tuple[float | None, float | None]
_OTHER: dict[str, Limits] = {
    "gopher_mean_word_length": (2, 16),
    "gopher_alphabetic_words": (0.69, None),
    "gopher_top_2_gram": (None, 0.25),
    "gopher_top_3_gram": (None, 0.20),
    "gopher_top_4_gram": (None, 0.18),
    "gopher_duplicate_5_grams": (None, 0.17),
    "gopher_duplicate_6_grams": (None, 0.16),
    "gopher_duplicate_7_grams": (None, 0.15),
    "gopher_duplicate_8_grams": (None, 0.135),
    "gopher_duplicate_9_grams": (None, 0.12),
    "gopher_duplicate_10_grams": (None, 0.11),
}
_UNITS: dict[str, Limits] = {
    "gopher_words": (50, 250_000),
    "gopher_mean_word_length": (1, 10),
    "gopher_alphabetic_words": (0.69, None),
    "gopher_top_4_gram": (None, 0.27),
    **{f"gopher_duplicate_{n}_grams": (None, None) for n in range(5, 10)},
    "gopher_duplicate_10_grams": (None, 0.20),
}
_MORE: dict[str, dict[str, Limits]] = {
    "ko": {"gopher_mean_word_length": (1, 16)},
    **{code: {"fineweb_punctuated_lines": (0, None)} for code in ("bo", "dz", "km", "lo", "my", "th")},
}
"""In Korean a syllable is one character; in the others many lines end without a mark."""


def in_language(name: str, rule: DocumentRule, language: str) -> DocumentRule:
    """The rule for a language; the same rule if its limits hold there, or if they are not the defaults."""
    default = Rules.model_fields[name].default
    limits = (_UNITS if language in WITHOUT_SPACES else _OTHER).get(name)
    if language in _MORE:
        limits = _MORE[language].get(name, limits)
    if limits is None or language == "en" or (rule.min, rule.max) != (default.min, default.max):
        return rule
    return DocumentRule(action=rule.action, min=limits[0], max=limits[1])
