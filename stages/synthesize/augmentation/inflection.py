"""Inflected forms of English words: the synonym of `running` is `operating`, not `operate`.

- `Form`: what an inflected word is of its base form
- `form_of`: the form of a word
- `inflected`: a base form in a form
"""

from enum import Enum

from stages.common.wordnet import WordNet

_VOWELS = "aeiou"


class Form(Enum):
    """Forms that English marks by an ending; a past form may be a participle."""

    BASE = "base"
    S = "plural or third person"
    PAST = "past"
    ING = "present participle"


def form_of(word: str, base_form: str, part_of_speech: str) -> Form | None:
    """Form of a word, all in lower case; None for those that are not made here, such as comparatives."""
    if word == base_form:
        return Form.BASE
    if part_of_speech == "n":
        return Form.S
    if part_of_speech != "v":
        return None
    return Form.ING if word.endswith("ing") else Form.S if word.endswith("s") else Form.PAST


def inflected(wordnet: WordNet, base_form: str, part_of_speech: str, form: Form) -> str | None:
    """Inflect a base form; None if it has no certain form, as the past of `write` is `wrote` or `written`."""
    if form is Form.BASE:
        return base_form
    listed = wordnet.irregular_forms(base_form, part_of_speech)
    if part_of_speech == "n":
        return listed[0] if listed else _with_s(base_form)
    if form is Form.S:
        return next((word for word in listed if word.endswith("s")), _with_s(base_form))
    ending = "ing" if form is Form.ING else "ed"
    regular = [word for word in listed if word.endswith(ending)]
    if regular:
        return regular[-1]
    if form is Form.PAST and any(not word.endswith(("ing", "s")) for word in listed):
        return None
    return _with_ending(base_form, ending)


def _with_s(word: str) -> str:
    if word.endswith(("s", "x", "z", "ch", "sh")) or (word.endswith("o") and word[-2:-1] not in _VOWELS):
        return f"{word}es"
    return f"{word[:-1]}ies" if _ends_in_consonant_and_y(word) else f"{word}s"


def _with_ending(word: str, ending: str) -> str:
    if ending == "ed" and _ends_in_consonant_and_y(word):
        return f"{word[:-1]}ied"
    if ending == "ing" and word.endswith("ie"):
        return f"{word[:-2]}ying"
    if word.endswith("e") and (ending == "ed" or not word.endswith(("ee", "oe", "ye"))):
        return word[:-1] + ending
    return word + ending


def _ends_in_consonant_and_y(word: str) -> bool:
    return word.endswith("y") and word[-2:-1] not in _VOWELS
