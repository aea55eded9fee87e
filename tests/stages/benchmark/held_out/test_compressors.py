import lzma
import random

import pytest

from stages.benchmark.held_out import compressors
from stages.benchmark.held_out.compressors import xz_after_training_bits_per_byte, xz_bits_per_byte


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def test_alone_is_the_size_of_the_xz_file():
    documents = [b"water to the wheel " * 50, noise(0, 500)]
    file = lzma.compress(b"".join(documents), preset=9 | lzma.PRESET_EXTREME)
    assert xz_bits_per_byte(documents) == pytest.approx(len(file) * 8 / 1450, abs=0.05)


def test_noise_costs_eight_bits_and_repeats_of_the_training_text_cost_next_to_none(monkeypatch):
    # A preset whose own dictionary is 256 KiB: the copied text is 1 MB back and still matched.
    monkeypatch.setattr(compressors, "PRESET", 0)
    train = [noise(1, 30_000), noise(2, 1_000_000)]
    assert xz_after_training_bits_per_byte(train, [noise(3, 20_000)]) == pytest.approx(8, abs=0.05)
    assert xz_after_training_bits_per_byte(train, [train[0][:20_000]]) < 0.1
