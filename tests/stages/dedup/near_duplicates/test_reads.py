"""Files, reads and bytes of near-duplicate detection off a local disk."""

import random
from contextlib import ExitStack
from unittest.mock import patch

import pytest

from infra.workers import exchange
from stages.common.minhash_config import MinHashConfig
from stages.dedup.near_duplicates import candidates, lsh_buckets
from tests.counted_reads import Counts, counted
from tests.stages.dedup.near_duplicates.test_pipeline import fates, memory

PER_FILE = 16


def documents(files: int) -> list[dict[str, str]]:
    """Files of documents of 500 words, a third of which are near-duplicates, copies or pages of one template."""
    generator = random.Random(files)
    pages, result = [], []
    template = [f"t{number}" for number in range(500)]
    for number in range(files * PER_FILE):
        words = [f"w{generator.randrange(10**7)}" for _ in range(500)]
        if number % 8 == 1:
            words = list(pages[generator.randrange(len(pages))])
            words[generator.randrange(500)] = "another"
        if number % 8 == 2:
            words = list(pages[generator.randrange(len(pages))])
        if number % 12 == 3:
            words = [*template[:498], *words[:2]]
        pages.append(words)
        result.append((f"d{number:05d}", " ".join(words)))
    generator.shuffle(result)
    return [dict(result[start::files]) for start in range(files)]


def measured(files: int, verify: str) -> Counts:
    parts = documents(files)
    with ExitStack() as stack:
        for module, name, value in (
            (candidates, "MIN_BLOCK_DOCUMENTS", PER_FILE), (candidates, "BLOCKS", 10**9),
            (candidates, "BLOCK_DOCUMENTS", 2 * PER_FILE), (lsh_buckets, "ENTRIES", 1000),
            (lsh_buckets, "NEIGHBORS", 12), (exchange, "FAN_OUT", 4),
        ):  # fmt: skip
            stack.enter_context(patch.object(module, name, value))
        counts = stack.enter_context(counted())
        result = fates(memory(), parts, MinHashConfig(verify=verify))
    assert sum(row[0] != "survivor" for row in result.values()) > files * PER_FILE / 5
    return counts


@pytest.mark.parametrize("verify", ["jaccard", "signature"])
def test_bytes_are_read_at_most_two_and_a_half_times_and_files_and_reads_are_linear(verify):
    small, large = (measured(files, verify) for files in (12, 48))
    for counts in (small, large):
        assert counts.bytes_read <= 2.5 * counts.bytes_written
    assert large.files_written <= 5.5 * small.files_written
    assert large.reads <= 6 * small.reads
