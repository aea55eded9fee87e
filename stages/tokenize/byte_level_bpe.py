"""Byte-level BPE: any text has tokens and comes back unchanged (Radford et al. 2019, 2.2; Sennrich et al. 2016)."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from data_schemas.errors import ConfigError
from stages.common.token_stream import END_OF_TEXT

# GPT-4's pattern (tiktoken's cl100k_base): words with their leading space, at most three digits, runs of white space.
SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train(texts: Iterable[str], vocabulary_size: int) -> Tokenizer:
    """Learn merges; the same texts in the same order give the same tokenizer.

    Args:
        texts: training documents, read once.
        vocabulary_size: entries: the end-of-text token (id 0), the 256 bytes, merges.

    Raises:
        ConfigError: where the texts have too few repeated pairs for so many entries.
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
    tokenizer.train_from_iterator(texts, trainer)
    reached = tokenizer.get_vocab_size()
    if reached < vocabulary_size:
        raise ConfigError(
            f"tokenize.vocabulary_size is {vocabulary_size}, but this corpus gives {reached} entries before no pair "
            f"occurs twice; set it to {reached} or less, or use more text"
        )
    return tokenizer


def encode_documents(tokenizer: Tokenizer, texts: Sequence[str]) -> list[npt.NDArray[np.uint32]]:
    """Token ids of each text, without an end-of-text token; that token's own name in a text is plain text."""
    tokenizer.encode_special_tokens = True
    return [np.asarray(encoding.ids, dtype=np.uint32) for encoding in tokenizer.encode_batch_fast(list(texts))]


def to_json(tokenizer: Tokenizer) -> bytes:
    """`tokenizer.json`, as Hugging Face's libraries read it."""
    return tokenizer.to_str().encode()


def from_json(data: bytes) -> Tokenizer:
    """The tokenizer that `to_json` wrote."""
    return Tokenizer.from_str(data.decode())
