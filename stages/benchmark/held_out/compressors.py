"""What a general-purpose compressor makes of the held-out text: `xz -9e` (LZMA2).

- `xz_bits_per_byte`: the held-out text alone, as a user would compress it
- `xz_after_training_bits_per_byte`: the held-out text behind the training text, the fair figure beside a trained model

Both read the documents one behind the other without a mark between them, and both may use the held-out documents that
came before (the network and the n-gram models start every document afresh).
"""

import lzma
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

PRESET = 9 | lzma.PRESET_EXTREME
MIN_DICTIONARY = 4096
"""LZMA2 takes no smaller one."""


def xz_bits_per_byte(held_out: Iterable[bytes]) -> float:
    """Bits of compressed file per byte of text; the 60 bytes or so of file header count too."""
    text = b"".join(held_out)
    return _compressed_size(text) * 8 / len(text)


def xz_after_training_bits_per_byte(train: Iterable[bytes], held_out: Iterable[bytes]) -> float:
    """Bits per byte that the held-out text adds to the compressed training text.

    The dictionary holds all of both (`xz -9` stops at 64 MiB), so nothing of the training text is forgotten. The two
    compressions run side by side (lzma releases the GIL), each in about 12 bytes of memory per byte of text: 7.5 s for
    10 MB and 11 s for 13 MB on two free cores, 360 MB. Weaker presets are no bargain: at 13 MB -6 takes as long for
    1.438 bits per byte instead of 1.434, -4 a fifth less for 1.546, -1 an eighth of the time for 1.919.

    It finds copies at any distance, so near-duplicates between training and held-out text flatter it more than a model.
    """
    corpus = b"".join(train)
    text = b"".join(held_out)
    with ThreadPoolExecutor(2) as pool:
        before, after = pool.map(_compressed_size, (corpus, corpus + text))
    return (after - before) * 8 / len(text)


def _compressed_size(data: bytes) -> int:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": PRESET, "dict_size": max(len(data), MIN_DICTIONARY)}]
    return len(lzma.compress(data, lzma.FORMAT_XZ, filters=filters))
