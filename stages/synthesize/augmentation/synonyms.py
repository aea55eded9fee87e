"""Synonym replacement and random insertion with WordNet (EDA: Wei and Zou 2019, 1901.11196, section 2).

- `Synonyms`: replaces words by synonyms, or inserts synonyms of words

Unlike EDA, a synonym is of the word's part of speech, as far as the word before it tells it, shares the most frequent
sense of both, and has the word's inflection and case. Stop words, numbers, names and code are never replaced.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from stages.common.wordnet import FILES, WordNet, load
from stages.synthesize.augmentation.easy_data import changes_of
from stages.synthesize.augmentation.inflection import Form, form_of, inflected
from stages.synthesize.method import Failure
from stages.synthesize.text.draws import Draws
from stages.synthesize.text.english import STOP_WORDS, is_english
from stages.synthesize.text.protected import NUMBER_WORDS, QUANTITY_WORDS
from stages.synthesize.text.words import Sentence, Word, replaced, sentences

MIN_DOMINANCE = 0.8
"""Share of a word's occurrences in WordNet's tagged text that its part of speech needs, among those that can follow."""
_NOT_ENGLISH = Failure("the text is not English")
_NO_SYNONYM = Failure("no word has a synonym")


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_AFTER_ARTICLE = _set("the a an this that these those my your his its our their no some any each every")
_AFTER_VERB = _set("to will would can could should may might must shall i you we they he she who didn't don't")
_AFTER_BE = _set("is are was were be been being am")
_AFTER_DEGREE = _set("very too more most quite rather extremely")


class Synonyms:
    """Synonyms of the words of English texts."""

    def __init__(self, folder: Path, alpha: float, senses: int) -> None:
        """Describe the changes; the files are read with the first text.

        Args:
            folder: WordNet's files.
            alpha: changes per word of a sentence, one at least.
            senses: most frequent senses whose synonyms count.
        """
        self._folder, self._alpha, self._senses = folder, alpha, senses
        self._synonyms = lru_cache(maxsize=50_000)(self._find)

    def replace(self, text: str, seed: int) -> str | Failure:
        """Replace `alpha` of the words of each sentence."""
        if not is_english(text):
            return _NOT_ENGLISH
        draws = Draws(seed)
        edits: list[tuple[int, int, str]] = []
        for sentence in sentences(text):
            options = self._options(text, sentence)
            chosen = draws.sample(len(options), changes_of(sentence, self._alpha))
            for index in sorted(chosen):
                word, synonyms = options[index]
                edits.append((word.start, word.end, _cased(draws.choice(synonyms), text[word.start : word.end])))
        return replaced(text, edits) if edits else _NO_SYNONYM

    def insert(self, text: str, seed: int) -> str | Failure:
        """Insert synonyms of random words of each sentence before random words of it, `alpha` times its words."""
        if not is_english(text):
            return _NOT_ENGLISH
        draws = Draws(seed)
        edits: list[tuple[int, int, str]] = []
        for sentence in sentences(text):
            options = self._options(text, sentence)
            positions = [word.start for word in sentence.words[1:] if not word.is_fixed]
            if options and positions:
                for _ in range(changes_of(sentence, self._alpha)):
                    _, synonyms = draws.choice(options)
                    start = draws.choice(positions)
                    edits.append((start, start, f"{draws.choice(synonyms)} "))
        return replaced(text, sorted(edits, key=lambda edit: edit[0])) if edits else _NO_SYNONYM

    def _options(self, text: str, sentence: Sentence) -> list[tuple[Word, Sequence[str]]]:
        """Words of a sentence that have synonyms, with these."""
        options: list[tuple[Word, Sequence[str]]] = []
        before = ""
        for word in sentence.words:
            content = text[word.start : word.end].lower()
            if not word.is_fixed and len(content) > 2 and content.isascii() and content.isalpha():
                synonyms = () if content in STOP_WORDS else self._synonyms(content, _possible(content, before))
                if before in ("a", "an"):
                    synonyms = tuple(each for each in synonyms if (each[0] in "aeiou") == (content[0] in "aeiou"))
                if synonyms:
                    options.append((word, synonyms))
            before = content
        return options

    def _find(self, word: str, possible: str) -> tuple[str, ...]:
        """Synonyms of a word, inflected as it is.

        Args:
            word: in lower case.
            possible: parts of speech that it can have in its sentence.
        """
        wordnet = load(self._folder)
        counts, base_forms = {}, {}
        for part_of_speech in possible:
            forms = wordnet.base_forms(word, part_of_speech)
            if forms:
                base_forms[part_of_speech] = forms[0]
                senses = wordnet.senses(forms[0], part_of_speech)
                counts[part_of_speech] = 1 + sum(sense.occurrences for sense in senses)
        if not counts:
            return ()
        best = max(counts, key=lambda part_of_speech: (counts[part_of_speech], part_of_speech))
        if counts[best] < MIN_DOMINANCE * sum(counts.values()):
            return ()
        form = form_of(word, base_forms[best], best)
        return self._inflected_synonyms(wordnet, word, base_forms[best], best, form) if form else ()

    def _inflected_synonyms(
        self, wordnet: WordNet, word: str, base_form: str, part_of_speech: str, form: Form
    ) -> tuple[str, ...]:
        synonyms: dict[str, None] = {}
        for sense in wordnet.senses(base_form, part_of_speech)[: self._senses]:
            for other in sense.words:
                is_word = other.isascii() and other.isalpha() and other.islower() and len(other) > 1
                is_usual = any(
                    same.words == sense.words for same in wordnet.senses(other, part_of_speech)[: self._senses]
                )
                if (
                    is_word
                    and is_usual
                    and other != base_form
                    and other not in STOP_WORDS | NUMBER_WORDS | QUANTITY_WORDS
                ):
                    result = inflected(wordnet, other, part_of_speech, form)
                    if result and result != word:
                        synonyms[result] = None
        return tuple(synonyms)


def _possible(word: str, before: str) -> str:
    """Parts of speech that a word can have after the word before it."""
    if before in _AFTER_ARTICLE:
        return "na"
    if before in _AFTER_VERB:
        return "vr"
    if before in _AFTER_BE:
        return "ar" if not word.endswith(("ing", "ed")) else "va"
    if before in _AFTER_DEGREE:
        return "ar"
    return "".join(FILES)


def _cased(synonym: str, word: str) -> str:
    """Synonym in the case of the word that it replaces."""
    if word.isupper() and len(word) > 1:
        return synonym.upper()
    return synonym.capitalize() if word[0].isupper() else synonym
