"""Repeated paragraphs and lines, against a few lines of plain Python."""

import re
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.dedup.config import ParagraphConfig
from stages.dedup.cuts import all_cuts
from stages.dedup.paragraphs import paragraph_cuts
from tests.stages.dedup.run_stage import file_fates, memory, step_arguments

PARAGRAPHS = ["Alpha beta gamma", "ALPHA, beta: gamma!", "été à Paris", "short", "--- --- --- ---", "delta\nepsilon"]
DOCUMENTS = st.dictionaries(st.sampled_from("abcdefghi"), st.lists(st.sampled_from(PARAGRAPHS), max_size=5), max_size=6)


def cut(partitions, config):
    """Document id -> the spans cut, as text."""
    documents, names, fates, maps = step_arguments(partitions)
    files = paragraph_cuts(documents, names, fates, config, maps)
    return {
        (name, span["start"]): text.encode()[span["start"] : span["end"]].decode()
        for number, partition in enumerate(partitions)
        for row, (name, text) in enumerate(partition.items())
        for span in all_cuts(files, number).to_pylist()
        if span["row"] == row
    }


def expected(texts, unit, most, min_characters):
    seen, result = {}, {}
    pattern = r"[^\n]+" if unit == "line" else r"(?:[^\n]+\n?)+"
    for name, text in sorted(texts.items()):
        for match in re.finditer(pattern, text):
            piece = match.group().strip()
            key = tuple(re.findall(r"\w+", piece.lower()))
            if len(piece) >= min_characters and key:
                seen[key] = seen.get(key, 0) + 1
                if seen[key] > most:
                    result[name, len(text[: match.start()].encode())] = piece
    return result


@given(
    DOCUMENTS,
    st.sampled_from(["paragraph", "line"]),
    st.integers(1, 2),
    st.integers(1, 3),
    st.sampled_from([800, 10**9]),
)
def test_all_but_the_first_are_cut_however_all_is_divided(documents, unit, most, files, slice_bytes):
    texts = {name: "\n\n".join(paragraphs) for name, paragraphs in documents.items()}
    config = ParagraphConfig(unit=unit, min_characters=6, most=most)
    with patch("stages.dedup.paragraphs.SLICE_BYTES", slice_bytes):
        result = cut([dict(list(texts.items())[number::files]) for number in range(files)], config)
    assert result == expected(texts, unit, most, 6)


@pytest.mark.parametrize(("length", "is_cut"), [(99, False), (100, True)])
def test_the_length_counts_characters_from_the_threshold_on(length, is_cut):
    unit = "é" * length
    assert bool(cut([{"a": unit, "b": f"own text\n\n{unit}"}], ParagraphConfig())) == is_cut


def test_only_documents_that_survived_take_part():
    unit = "a paragraph of some words " * 5
    documents, names, fates, maps = step_arguments([{"a": unit, "b": unit, "c": unit}])
    fates = [file_fates(memory(), ["near_duplicate", "survivor", "survivor"])]
    [spans] = [all_cuts(paragraph_cuts(documents, names, fates, ParagraphConfig(), maps), 0).to_pylist()]
    assert [span["row"] for span in spans] == [2]
