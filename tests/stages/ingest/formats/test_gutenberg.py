import gzip
import json
from pathlib import Path

import pytest

from stages.ingest.formats import gutenberg
from stages.ingest.records import Failure, Record

BOOK = "CHAPTER I. The Mill\n\nThe wheel went round\nall day.\n\nCHAPTER II. The River\n\nIt rose."
HEADER = """\ufeffThe Project Gutenberg EBook of The Mill, by A. Miller

This eBook is for the use of anyone anywhere.

Title: The Mill
       A Tale of the River

Author: A. Miller

Release Date: August 26, 2008 [EBook #1342]

Language: French

"""
LICENCE = "Project Gutenberg-tm is a trademark. " * 5
BEGINNINGS = (
    "*** START OF THIS PROJECT GUTENBERG EBOOK THE MILL ***",
    "***START OF THE PROJECT GUTENBERG EBOOK THE MILL***",
    "*** START OF THE PROJECT GUTENBERG ETEXT THE MILL;\nOR, THE RIVER ***",
    "***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ETEXTS**START***\nWe disclaim.\n"
    "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*",
)
ENDS = (
    "*** END OF THIS PROJECT GUTENBERG EBOOK THE MILL ***",
    "End of the Project Gutenberg EBook of The Mill, by A. Miller\n\n*** END OF THIS PROJECT GUTENBERG EBOOK ***",
    "End of Project Gutenberg's The Mill",
    "*** START: FULL LICENSE ***",
)


def read(text: str) -> Record:
    result = gutenberg.read(text)
    assert isinstance(result, Record)
    return result


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("begin", BEGINNINGS)
def test_the_book_stays_and_its_frame_goes(begin: str, end: str) -> None:
    result = read(f"{HEADER}{begin}\n\nProduced by Judith Boss and\nothers\n\n\n{BOOK}\n\n{end}\n{LICENCE}")
    assert result.text == BOOK
    assert result.metadata == {"title": "The Mill A Tale of the River", "author": "A. Miller", "ebook": "1342"}
    assert (result.language, result.date) == ("fr", "2008-08-26")


def test_pieces_of_a_cut_book() -> None:
    assert read(f"{HEADER}{BEGINNINGS[0]}\n\n{BOOK}").text == BOOK
    assert read(BOOK).text == BOOK
    assert read(f"{BOOK}\n\n{ENDS[0]}\n{LICENCE}").text == BOOK
    small_print_last = f"{ENDS[0]}\n{LICENCE}\n*END THE SMALL PRINT! FOR PUBLIC DOMAIN EBOOKS*Ver.02/11/02*END*"
    assert read(f"{BOOK}\n\n{small_print_last}").text == BOOK
    for piece in (LICENCE, f"{ENDS[0]}\n{LICENCE}", f"{HEADER}{BEGINNINGS[0]}\n"):
        assert gutenberg.read(piece) == Failure(0, "licence_text")


def test_a_book_that_mentions_the_project_keeps_every_word() -> None:
    talk = "He read it on Project Gutenberg.\n\nProduced by hand, the paper was thick."
    assert read(talk).text == talk


def test_no_frame_is_left_in_the_shared_books(shared_data: Path) -> None:
    with gzip.open(shared_data / "corpus" / "books.jsonl.gz", "rt") as lines:
        result = [gutenberg.read(json.loads(line)["text"]) for line in lines]
    kept = [record.text for record in result if isinstance(record, Record)]
    assert len(result) - len(kept) == 33, "pieces of the licence"
    assert len([record for record in result if isinstance(record, Record) and record.metadata]) == 29, "headers"
    assert not [text for text in kept if "*** START" in text or "*** END" in text or "gutenberg.net" in text.lower()]
