"""Byte-level BPE: encodes any text without loss (Radford et al. 2019, 2.2; Sennrich et al. 2016)."""

from collections.abc import Iterable, Sequence

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
    tokenizer.train_from_iterator(texts, trainer)
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
    return [np.asarray(encoding.ids, dtype=np.uint32) for encoding in tokenizer.encode_batch_fast(list(texts))]


def to_json(tokenizer: Tokenizer) -> bytes:
    """Content of `tokenizer.json`, as read by Hugging Face's libraries."""
    return tokenizer.to_str().encode()


def from_json(data: bytes) -> Tokenizer:
    """Tokenizer that `to_json` serialized."""
    return Tokenizer.from_str(data.decode())
