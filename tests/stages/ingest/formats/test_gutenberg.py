import gzip
import json
from pathlib import Path

import pytest

from stages.ingest.formats import gutenberg
from stages.ingest.formats.plain_text import decode
from stages.ingest.records import Failure, Record, unix_line_ends

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


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_headers_of_today_with_any_line_ends(end: str) -> None:
    header = HEADER.replace(
        "Release Date: August 26, 2008 [EBook #1342]",
        "Release date: August 26, 2008 [eBook #1342]\n                Most recently updated: May 1, 2021",
    )
    text = f"{header}Credits: A Volunteer\n\n{BEGINNINGS[0]}\n\nProduced by A Volunteer\n\n{BOOK}\n\n{ENDS[0]}\n"
    result = read(unix_line_ends(text.replace("\n", end)))
    assert result.text == BOOK
    assert (result.date, result.metadata["ebook"], result.language) == ("2008-08-26", "1342", "fr")
    assert read(text.replace(" [eBook #1342]", "")).date == "2008-08-26"


@pytest.mark.parametrize("blank", ["\n", "\n \t\n", "\n    "])
def test_credits_never_take_the_book(blank: str) -> None:
    book = blank.join(f"Line {number} of the book." for number in range(40)).strip()
    assert read(f"{BEGINNINGS[0]}\nProduced by A. Volunteer{blank}{book}\n{ENDS[0]}").text.strip() == book


def test_odd_inputs(shared_data: Path) -> None:
    folder = shared_data / "odd_inputs" / "gutenberg"
    books = [read(decode((folder / name).read_bytes())) for name in ("old_lf.txt", "old_crlf.txt", "new_crlf.txt")]
    assert {(book.date, book.metadata["ebook"]) for book in books} == {("2008-08-26", "99991")}
    assert books[0].text == books[1].text
    assert all(book.text.count("CHAPTER") == books[0].text.count("CHAPTER") > 1 for book in books)


START = "Title: Faust\n\n*** START OF THE PROJECT GUTENBERG EBOOK FAUST ***\n\n"
FINISH = "\n\n*** END OF THE PROJECT GUTENBERG EBOOK FAUST ***\n\nUpdated editions will replace the previous one\n"


@pytest.mark.parametrize(
    ("before", "behind"),
    [
        ("***  START OF THE PROJECT GUTENBERG EBOOK, F ***\n", "\n***  END OF THE PROJECT GUTENBERG EBOOK, F ***\n"),
        ("*** START OF THIS PROJECT GUTENBERG EBOOK THE *STAR*,\nPART ONE ***\n", FINISH),
        ("A header\n\nSTART OF THE PROJECT GUTENBERG EBOOK FAUST\n", "\nEND OF THE PROJECT GUTENBERG EBOOK FAUST\n"),
        (START + "Produziert von A und\nB\n\n", "\n\nEnde dieses Projekt Gutenberg Etextes Faust\n\nSmall print\n"),
        (START + "Ce livre a été produit par A\n\n", "\n\nFin du Projet Gutenberg de Faust\n" + FINISH),
        (START + "Producido por A\n\n", "\n\nFin del Proyecto Gutenberg\n"),
        (START, "\n\nEinde van het Project Gutenberg eBook\n" + FINISH), (START + "Tuottanut A\n\n", FINISH),
    ],
)  # fmt: skip
def test_markers_and_credits_in_the_languages_of_the_volunteers(before: str, behind: str) -> None:
    record = gutenberg.read(before + "\n" + BOOK + behind)
    assert isinstance(record, Record)
    assert record.text == BOOK


def test_a_line_about_the_project_far_before_the_end_is_one_of_the_book() -> None:
    book = (
        f"{BOOK}\n\nEnd of Project Gutenberg's first decade, he wrote.\n\n{'It was a bright day. ' * 400}\n\nThe last."
    )
    record = gutenberg.read(START + book + FINISH)
    assert isinstance(record, Record)
    assert record.text == book
