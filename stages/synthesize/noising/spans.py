"""Denoising objectives as documents: a text with spans masked, and then what was masked.

- `mask_spans`: span corruption of T5 (Raffel et al. 2020, 1910.10683, section 3.1.4): a sentinel for each span
- `infill`: text infilling of BART (Lewis et al. 2019, 1910.13461, section 2.2): one mask for spans of any length
- `unmasked`, `filled`: the texts that such documents were made of

A document is one block or more. A block is its part of the text with each span replaced by a mask, a newline, and the
spans, each after its mask. T5's masks are numbered through the document, and a last one ends a block, so that every
number occurs twice but for those; BART's mask has no number, so a document of it is one block, in which the second half
of the masks is that of the spans. Masks replace whole words; the white space around them stays. Nothing is lost:
the text comes back, which is tried before a document is returned.
"""

import re
from collections import Counter
from collections.abc import Sequence

from stages.synthesize.method import Failure
from stages.synthesize.text.draws import Draws
from stages.synthesize.text.protected import Span
from stages.synthesize.text.words import word_spans

SENTINEL = "<extra_id_{}>"
"""T5's sentinels."""
MASK = "<mask>"
"""BART's mask."""
_SENTINELS = re.compile(r"<extra_id_(\d+)>")
_HAS_MASKS = Failure("the text has masks of its own")


def mask_spans(text: str, seed: int, rate: float, mean_words: float, block_words: int) -> str | Failure:
    """Mask spans of words behind numbered sentinels, as T5's `random_spans_noise_mask` does with tokens.

    Args:
        text: text that is not blank.
        seed: seed of the spans.
        rate: share of the words that are masked (T5: 0.15).
        mean_words: mean length of a span in words (T5: 3 tokens).
        block_words: words of a block at most (T5: 512 tokens).
    """
    if "<extra_id_" in text:
        return _HAS_MASKS
    words, draws = word_spans(text), Draws(seed)
    blocks, number, start = [], 0, 0
    for first in range(0, len(words), block_words):
        block = words[first : first + block_words]
        is_last = first + block_words >= len(words)
        end = len(text) if is_last else block[-1][1]
        spans = _noise_spans(draws, block, rate, mean_words)
        marks = [SENTINEL.format(number + index) for index in range(len(spans) + 1)]
        number += len(marks)
        blocks.append(_block(text, start, end, spans, marks) + marks[-1])
        start = end
    if not blocks:
        return Failure("there are no words")
    document = "\n".join(blocks)
    assert unmasked(document) == text, "spans and masked text give the text back"
    return document


def infill(text: str, seed: int, rate: float, mean_words: float) -> str | Failure:
    """Replace spans of Poisson-distributed length by one mask each; a span of no words is a mask between two words.

    Args:
        text: text that is not blank.
        seed: seed of the spans.
        rate: share of the words that are masked (BART: 0.3).
        mean_words: mean of the Poisson distribution (BART: 3).
    """
    if MASK in text:
        return _HAS_MASKS
    words, draws = word_spans(text), Draws(seed)
    if not words:
        return Failure("there are no words")
    spans = _poisson_spans(draws, words, rate, mean_words)
    document = _block(text, 0, len(text), spans, [MASK] * len(spans))
    assert filled(document) == text, "spans and masked text give the text back"
    return document


def filled(document: str) -> str:
    """The text of which `infill` made a document."""
    parts = document.split(MASK)
    count = (len(parts) - 1) // 2
    kept, spans = parts[: count + 1], parts[count + 1 :]
    kept[-1] = kept[-1].removesuffix("\n")
    return "".join(piece for pair in zip(kept, [*spans, ""], strict=True) for piece in pair)


def unmasked(document: str) -> str:
    """The text of which `mask_spans` made a document."""
    matches = list(_SENTINELS.finditer(document))
    occurrences = Counter(match.group() for match in matches)
    text: list[str] = []
    marks: list[re.Match[str]] = []
    position = 0
    for match in matches:
        marks.append(match)
        if occurrences[match.group()] > 1:
            continue
        middle = len(marks) // 2  # the last mark ends the block
        for mark, target, after in zip(marks[:middle], marks[middle:], marks[middle + 1 :], strict=False):
            text += [document[position : mark.start()], document[target.end() : after.start()]]
            position = mark.end()
        text.append(document[position : marks[middle].start() - 1])
        position, marks = match.end() + 1, []
    return "".join(text)


def _block(text: str, start: int, end: int, spans: Sequence[Span], marks: Sequence[str]) -> str:
    inputs, targets, position = [], [], start
    for (span_start, span_end), mark in zip(spans, marks, strict=False):
        inputs += [text[position:span_start], mark]
        targets += [mark, text[span_start:span_end]]
        position = span_end
    return "".join([*inputs, text[position:end], "\n", *targets])


def _noise_spans(draws: Draws, words: Sequence[Span], rate: float, mean_words: float) -> list[Span]:
    """Spans of T5: noise and text alternate, text first; both are cut into random parts of one word at least."""
    noise_words = min(max(round(len(words) * rate), 1), max(len(words) - 1, 1))
    kept_words = len(words) - noise_words
    count = max(1, min(round(noise_words / mean_words), noise_words, max(kept_words, 1)))
    noise = _parts(draws, noise_words, count)
    kept = _parts(draws, kept_words, count) if kept_words else [0]
    spans, position = [], 0
    for kept_length, length in zip(kept, noise, strict=True):
        position += kept_length
        spans.append((words[position][0], words[position + length - 1][1]))
        position += length
    return spans


def _parts(draws: Draws, total: int, count: int) -> list[int]:
    """`total` as a sum of `count` positive integers, each such sum as likely as the others."""
    cuts = sorted(cut + 1 for cut in draws.sample(total - 1, count - 1))
    return [end - start for start, end in zip([0, *cuts], [*cuts, total], strict=True)]


def _poisson_spans(draws: Draws, words: Sequence[Span], rate: float, mean_words: float) -> list[Span]:
    """Spans that do not touch, until `rate` of the words are masked or no more fit."""
    lengths: list[int] = []
    left = max(1, round(len(words) * rate))
    free = len(words)  # words that are not masked
    while left and len(lengths) < free:
        lengths.append(min(draws.poisson(mean_words), left))
        left -= lengths[-1]
        free -= lengths[-1]
    while len(lengths) > free + 1:
        free += lengths.pop()
    positions = sorted(draws.sample(free + 1, len(lengths)))  # unmasked words before each span, all different
    spans, masked = [], 0
    for before, length in zip(positions, lengths, strict=True):
        first = before + masked
        masked += length
        if length:
            spans.append((words[first][0], words[first + length - 1][1]))
        else:
            position = words[first][0] if first < len(words) else words[-1][1]
            spans.append((position, position))
    return spans
