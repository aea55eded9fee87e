"""Byte-level BPE: encodes any text without loss (Radford et al. 2019, 2.2; Sennrich et al. 2016)."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from data_schemas.errors import ConfigError
from stages.common.token_stream import END_OF_TEXT

# GPT-4's pattern (cl100k_base of tiktoken): words with their leading space, up to three digits, runs of white space.
SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

PIECE_CHARACTERS = 100_000
"""Longer texts are encoded in pieces. The pre-tokenizer needs 80 bytes of memory a character, and gives up with a panic
after 10 million retries in a run of white space."""
_CUT = re.compile(r"(?<=\S)(?=[^\S\r\n\x1c-\x1f])|(?<=\n)(?=\S)")
"""Positions at which the pattern always separates: before a space after a word or sign, and between lines."""
LONGEST_TRAINED_RUN = 1_000
"""The trainer needs time quadratic in the length of a word: 12 s for 100,000 letters of a genome. No language has words
of this length, and no text rules or indents."""
_RUN = re.compile(r"[^\W\d_]+|(?:[^\w\s]|_)+|\s+|\d+|.", re.S)
"""Characters that the pattern may take together."""


def train(texts: Iterable[str], vocabulary_size: int) -> Tokenizer:
    """Train a tokenizer; deterministic in the texts and their order.

    Args:
        texts: training documents, iterated once.
        vocabulary_size: number of entries: the end-of-text token (id 0), the 256 bytes, and the merges.

    Raises:
        ConfigError: if the texts have too few repeated pairs for the vocabulary.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        min_frequency=2,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        (part for text in texts for piece in pieces(text) for part in short_runs(piece)), trainer
    )
    entries = tokenizer.get_vocab_size()
    if entries < vocabulary_size:
        raise ConfigError(
            f"tokenize.vocabulary_size is {vocabulary_size}, but this corpus yields {entries} entries before no pair "
            f"occurs twice; set it to {entries} or less, or use more text"
        )
    return tokenizer


def encode_documents(tokenizer: Tokenizer, texts: Sequence[str]) -> list[npt.NDArray[np.uint32]]:
    """Token ids of each text, without an end-of-text token; its string in a text is encoded as plain text."""
    tokenizer.encode_special_tokens = True
    parts = [list(pieces(text)) for text in texts]
    encodings = tokenizer.encode_batch_fast([piece for part in parts for piece in part])
    ids = [np.asarray(encoding.ids, dtype=np.uint32) for encoding in encodings]
    ends = accumulate(map(len, parts), initial=0)
    return [
        ids[start] if len(part) == 1 else np.concatenate(ids[start : start + len(part)])
        for start, part in zip(ends, parts, strict=False)
    ]


def pieces(text: str, max_characters: int = PIECE_CHARACTERS) -> Iterator[str]:
    """Consecutive pieces of a text whose tokens, in a row, are those of the whole text.

    A piece in whose second half the pattern may not separate anywhere, such as one of a million spaces, ends at
    `max_characters`.
    """
    start = 0
    while len(text) - start > max_characters:
        end, tail = start + max_characters, max_characters // 2
        cut = 0
        for distance in (min(256, tail), tail):  # the last place, which is near the end in all but odd texts
            cut = max((match.start() for match in _CUT.finditer(text, end - distance, end)), default=0)
            if cut:
                break
        yield text[start : cut or end]
        start = cut or end
    yield text[start:]


def short_runs(text: str, max_characters: int = LONGEST_TRAINED_RUN) -> Iterator[str]:
    """Parts of a text, cut inside runs of more than `max_characters` letters, signs or spaces; most texts are one."""
    block, start = max_characters // 2, 0
    blocks = range(0, len(text) - block + 1, block)  # a longer run has a whole one of them
    runs = _RUN.finditer(text) if any(_RUN.fullmatch(text, at, at + block) for at in blocks) else ()
    for begin, end in (run.span() for run in runs):
        if end - begin > max_characters:
            cuts = [start, begin, *range(begin + max_characters, end, max_characters), end]
            yield from (text[cut:following] for cut, following in pairwise(cuts) if cut < following)
            start = end
    if start < len(text):
        yield text[start:]


def to_json(tokenizer: Tokenizer) -> bytes:
    """Content of `tokenizer.json`, as read by Hugging Face's libraries."""
    return tokenizer.to_str().encode()


def from_json(data: bytes) -> Tokenizer:
    """Tokenizer that `to_json` serialized."""
    return Tokenizer.from_str(data.decode())
