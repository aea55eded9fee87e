"""Backtranslation by Apertium, a rule-based engine (Forcada et al. 2011): into another language and back, offline.

- `ApertiumBacktranslation`: the method
- `commands`: the programs of a translation mode
- `encoded`, `decoded`: texts without the characters that Apertium's stream format gives a meaning

Text is translated sentence by sentence: lines, white space, code and tables stay as they are. Characters of the stream
format and signs of currencies go through as private-use characters, which Apertium treats as punctuation; with them,
"$1.13bn" stays what it is. With `protect_facts`, so do all numbers, names and addresses (`shields.py`).
"""

import re
import shlex
import shutil
import subprocess
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from data_schemas.errors import EnvironmentProblem
from stages.synthesize.engines.null_flush_pipe import NullFlushPipe, PipeError
from stages.synthesize.engines.shields import has_shield, shielded, unshielded
from stages.synthesize.method import TABLES, Failure, checked
from stages.synthesize.text.english import is_english
from stages.synthesize.text.protected import Span
from stages.synthesize.text.words import Sentence, replaced, sentences, short_spans, word_spans

VERSION = 2
"""Raised when the same text and the same engine give another output."""
MODES = Path("/usr/share/apertium/modes")
PACKAGES = ("apertium", "lttoolbox", "apertium-lex-tools")
"""Debian packages of the programs, besides that of the language pair."""
MAX_PIECE = 2_000
"""Characters of a longer sentence that are translated at a time."""
MAX_WORD = 100
"""Longer words are no words of a language: they are not translated."""
_FIRST_PRIVATE = 0xF0000
_SPECIAL = '[]{}^$/\\@<>*#+~|=&%_"`£€¥¢°§'
_ENCODE = {ord(mark): chr(_FIRST_PRIVATE + ord(mark)) for mark in _SPECIAL} | {
    control: chr(_FIRST_PRIVATE + control) for control in (*range(32), 127)
}
_DECODE = {ord(private): chr(mark) for mark, private in _ENCODE.items()}
_PRIVATE = re.compile("[\U000f0000-\U000fffff]")
_MARKS = re.compile(r"[*@#](?=\w)|\\(?=.)|(?<=\w)#(?= )")
"""Marks of words that a dictionary lacks (*, @) or that could not be inflected (#), and escapes."""


class Piece(NamedTuple):
    """A part of a text that is translated."""

    start: int
    end: int
    sent: str
    originals: list[str]
    """The originals of the shields in `sent`."""


class ApertiumBacktranslation:
    """Translation into another language and back."""

    name = "backtranslation"

    def __init__(self, pair: str, back: str, protect_facts: bool, timeout_seconds: float) -> None:
        """Find the engine; its programs start with the first batch.

        Args:
            pair: mode of the first translation, such as `eng-spa`.
            back: mode of the way back.
            protect_facts: whether numbers, names and addresses pass through untouched.
            timeout_seconds: time without output after which the engine is taken to hang.

        Raises:
            EnvironmentProblem: if the language pair or a program is not installed.
        """
        self.engine = f"apertium {pair}"
        self.engine_version = f"{VERSION} ({installed_version(pair, back)}; {TABLES})"
        self._pipes = [NullFlushPipe(commands(mode), timeout_seconds) for mode in (pair, back)]
        self._english_only = pair.startswith("eng-")
        self._protect_facts = protect_facts

    def rewrite(self, texts: Sequence[str], seeds: Sequence[int]) -> list[str | Failure]:
        """Texts after both translations; see `Method.rewrite`. Seeds change nothing."""
        assert len(texts) == len(seeds)
        pieces = [self._pieces(text) for text in texts]
        there = self._translated([piece.sent for found in pieces if not isinstance(found, Failure) for piece in found])
        outputs: list[str | Failure] = []
        for text, found in zip(texts, pieces, strict=True):
            if isinstance(found, Failure):
                outputs.append(found)
            else:
                outputs.append(checked(text, self._assembled(text, found, [next(there) for _ in found])))
        return outputs

    def close(self) -> None:
        """End the programs."""
        for pipe in self._pipes:
            pipe.close()

    def _translated(self, sent: Sequence[str]) -> Iterator[str | PipeError]:
        results: list[str | PipeError] = list(sent)
        for pipe in self._pipes:
            remaining = [(index, text) for index, text in enumerate(results) if isinstance(text, str)]
            for (index, _), output in zip(remaining, pipe.outputs([text for _, text in remaining]), strict=True):
                results[index] = _MARKS.sub("", output) if isinstance(output, str) else output
        return iter(results)

    def _pieces(self, text: str) -> list[Piece] | Failure:
        if not text.strip():
            return Failure("the text is empty")
        if self._english_only and not is_english(text):
            return Failure("the text is not English")
        pieces = [piece for sentence in sentences(text) for piece in self._pieces_of(text, sentence)]
        return pieces or Failure("no sentence can be translated")

    def _pieces_of(self, text: str, sentence: Sentence) -> Iterator[Piece]:
        starts = [word.start for word in sentence.words]
        for start, end in short_spans(text, sentence.start, sentence.end, MAX_PIECE):
            words = sentence.words[bisect_left(starts, start) : bisect_left(starts, end)]
            content = text[start:end]
            too_long = any(word.end - word.start > MAX_WORD or word.end > end for word in words)
            if too_long or all(word.is_fixed for word in words) or has_shield(content) or _PRIVATE.search(content):
                continue
            spans = _fixed_spans(content, [(word.start - start, word.end - start) for word in words if word.is_fixed])
            sent, originals = shielded(content, spans if self._protect_facts else [])
            yield Piece(start, end, encoded(sent), originals)

    def _assembled(self, text: str, pieces: Sequence[Piece], outputs: Sequence[str | PipeError]) -> str | Failure:
        edits = []
        for piece, output in zip(pieces, outputs, strict=True):
            if isinstance(output, PipeError):
                return Failure(output.reason, may_succeed_later=True)
            translation = decoded(output).strip()
            if self._protect_facts:
                translation = recased(piece.sent, translation)
            restored = unshielded(translation, piece.originals)
            if restored:  # else the sentence stays as it is: a fact was lost
                edits.append((piece.start, piece.end, restored))
        return replaced(text, edits)


def recased(source: str, translation: str) -> str:
    """Translation with the source's first letter, and without capitals that its other words do not have.

    Apertium capitalizes words that come to be first on the way; names are shields, so no other word needs a capital.
    """
    written = {source[start:end] for start, end in word_spans(source)}
    edits = []
    for index, (start, end) in enumerate(word_spans(translation)):
        word = translation[start:end]
        if has_shield(word) or not word[0].isalpha():
            continue
        if index == 0:
            first = source[next(iter(word_spans(source)), (0, 0))[0]]
            changed = word[0].upper() + word[1:] if first.isupper() else word[0].lower() + word[1:]
            word_is_kept = word in written
        else:
            changed, word_is_kept = word.lower(), word in written or word == "I" or word[1:] != word[1:].lower()
        if not word_is_kept and changed != word:
            edits.append((start, end, changed))
    return replaced(translation, edits)


def _fixed_spans(content: str, fixed: Sequence[Span]) -> list[Span]:
    """Spans of fixed words; those with only marks between them, such as the parts of an address, are one."""
    spans: list[Span] = []
    for start, end in fixed:
        while (
            start
            and not content[start - 1].isspace()
            and content[start - 1] in _SPECIAL
            and content[start - 1] not in '"['
        ):
            start -= 1
        if spans and not any(map(str.isspace, content[spans[-1][1] : start])):
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((max(start, spans[-1][1]) if spans else start, end))
    return spans


def encoded(text: str) -> str:
    """Text without characters that the stream format gives a meaning."""
    return text.translate(_ENCODE)


def decoded(text: str) -> str:
    """Inverse of `encoded`."""
    return text.translate(_DECODE)


def commands(mode: str) -> list[list[str]]:
    """Programs of a translation mode, with null flush and with marks at unknown words.

    Raises:
        EnvironmentProblem: if the mode or a program is not installed.
    """
    path = MODES / f"{mode}.mode"
    if not path.is_file():
        raise EnvironmentProblem(
            f"Apertium's mode {mode} is not installed ({path} does not exist); on Debian and Ubuntu: apt-get install "
            f"{_package(mode)}"
        )
    chain = []
    for command in path.read_text().strip().split("|"):
        program, *arguments = shlex.split(command.replace("$1", "-g").replace("$2", ""))
        if shutil.which(program) is None:
            raise EnvironmentProblem(
                f"{program}, a program of Apertium's mode {mode}, is not installed; on Debian and Ubuntu: apt-get "
                f"install {_package(mode)}"
            )
        chain.append([program, "-z", *arguments])
    return chain


def _package(mode: str) -> str:
    """Debian's package of a language pair: both directions are in that of the pair in alphabetical order."""
    return "apertium-" + "-".join(sorted(mode.partition("_")[0].split("-")))


@cache
def installed_version(pair: str, back: str) -> str:
    """Installed packages of the programs and of the language pair, with versions.

    Raises:
        EnvironmentProblem: if a mode is not installed.
    """
    commands(pair)
    commands(back)
    names = sorted({*PACKAGES, _package(pair), _package(back)})
    try:
        done = subprocess.run(
            ["dpkg-query", "--show", "--showformat", "${Package} ${Version}\\n", *names],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentProblem(
            f"the versions of Apertium's packages cannot be read from dpkg-query: {error}"
        ) from None
    versions = sorted(done.stdout.split("\n"))
    return ", ".join(line for line in versions if line)
