"""Project Gutenberg's plain texts: the book without the project's header, credits, small print and license.

- `read`: a file, or a piece of a file

The markers are those in its files since 1991 (its Volunteers' FAQ, and the old "small print" of etexts). Chapters and
their headings are unchanged.
"""

import re

from stages.ingest.record_fields import iso_date
from stages.ingest.records import Failure, Record

LICENSE_MENTIONS = 2
"""Mentions of the trademark from which a text is a piece of the license, which names it in every other sentence."""
_BEGIN = re.compile(
    r"^\W{0,4}\*{3} {0,4}START OF TH(?:E|IS) PROJECT GUTENBERG E(?:BOOK|TEXT)[^\n]*(?:\n[^\n]+){0,3}?\*{3}.*$"
    r"|^(?-i:START OF TH(?:E|IS) PROJECT GUTENBERG E(?:BOOK|TEXT)).*$",
    re.I | re.M,
)
_SMALL_PRINT_END = re.compile(r"^\*END\*? ?THE SMALL PRINT!.*$", re.I | re.M)
"""The only marker of files before 2002, which have the small print first; later files have it at the end."""
_TAIL = (
    r"\*{3} {0,4}END OF TH(?:E|IS) PROJECT GUTENBERG|End of (?:th(?:e|is) )?Project Gutenberg"
    r"|Ende (?:dieses|des|von) Proje[ck]t Gutenberg|Fin (?:du|de|del) (?:Projet|Project|Proyecto) Gutenberg"
    r"|Fine (?:del|di) (?:Progetto|Project) Gutenberg|Fim do (?:Projec?to|Project) Gutenberg"
    r"|Einde van (?:het |dit )?Project Gutenberg|\*\*The Legal Small Print"
)
"""Last lines of books, in the languages of their volunteers."""
_END_OF_BOOK = re.compile(rf"^\W{{0,4}}(?:{_TAIL})", re.I | re.M)
_END = re.compile(
    rf"^\W{{0,4}}(?:{_TAIL}|\*{{3}} ?START: FULL LICENSE|\*{{3}}START\*\*THE SMALL PRINT"
    r"|This and all associated files of various formats will be found in|Updated editions will replace the previous one"
    r"|Most people start at our Web site which has the main PG search)",
    re.I | re.M,
)
_LAST_MARKER = re.compile(r"^\W{0,4}\*{3} {0,4}END OF TH(?:E|IS) PROJECT GUTENBERG", re.I | re.M)
MAX_TAIL = 5_000
"""Characters between other end marks and the last one; a line that begins so far before it is one of the book."""
_TRADEMARK = re.compile(r"Project Gutenberg(?:-tm|™| Literary Archive)|gutenberg\.(?:net|org)", re.I)
_CREDITS = re.compile(
    r"\s*[\[(*]*(?:Produced by|E-?text prepared by|This e-?(?:text|book) was|Prepared by|Scanned (?:and|by)"
    r"|Transcribed (?:by|from)|HTML version by|This file was produced|Project Gutenberg Editor['’]s Note"
    r"|The Project Gutenberg Etext of|This Project Gutenberg Etext|Special thanks are due|Additional editing by"
    r"|Produit par|Ce livre (?:a été|électronique)|Producido por|Prodotto da|Produzido por|Produziert von|Erstellt von"
    r"|Dieses E-?Book wurde|Tuottanut|E-kirjan on tuottanut|Geproduceerd door|Produceret af|Producerad av|Frambragt av)"
    r"[^\n]*",
    re.I,
)
_REST_OF_PARAGRAPH = re.compile(r"(?:\n[ \t]*[^\s][^\n]*)*")
MAX_CREDIT_LINES = 12
"""A longer paragraph, or the last one, is that of a book without blank lines; its credits are its first line."""
_FIELD = re.compile(
    r"^\[?(Title|Author|Editor|Translator|Language|Release Date|Posting Date):[ \t]*(.*(?:\n[ \t]+\S.*)*)", re.M | re.I
)
_UPDATED = re.compile(r"Most recently updated:.*", re.I)
_NUMBER = re.compile(r"\[(?:EBook|Etext) ?#(\d+)\]", re.I)
_LANGUAGES = {
    "english": "en", "french": "fr", "german": "de", "spanish": "es", "italian": "it", "portuguese": "pt",
    "dutch": "nl", "finnish": "fi", "latin": "la", "chinese": "zh", "greek": "el", "swedish": "sv", "danish": "da",
    "esperanto": "eo",
    "hungarian": "hu", "polish": "pl", "russian": "ru", "czech": "cs", "norwegian": "no", "catalan": "ca",
    "japanese": "ja", "tagalog": "tl", "welsh": "cy", "icelandic": "is", "irish": "ga",
}  # fmt: skip


def read(text: str) -> Record | Failure:
    """Text of the book; a text without any of the project's markers is unchanged.

    Title, author, translator and number are stored in the metadata, language and release date in their fields.
    """
    begin = _begin(text)
    end = _end(text, begin)
    body = _without_credits(text[begin:end]) if begin else text[:end]
    if len(_TRADEMARK.findall(body)) >= LICENSE_MENTIONS:
        return Failure(0, "licence_text")
    if not body.strip():
        return Failure(0, "licence_text" if begin or end < len(text) else "no_text")
    header = text[:begin]
    fields = {name.lower(): " ".join(value.split()) for name, value in _FIELD.findall(header) if value.strip()}
    metadata = {name: fields[name] for name in ("title", "author", "editor", "translator") if name in fields}
    if number := _NUMBER.search(header):
        metadata["ebook"] = number[1]
    return Record(
        0,
        body.strip("\n").rstrip(),
        language=_LANGUAGES.get(fields.get("language", "").lower()),
        date=iso_date(_UPDATED.sub("", fields.get("release date") or fields.get("posting date") or "")),
        metadata=metadata,
    )


def _begin(text: str) -> int:
    """Offset of the beginning of the book; 0 without a header, as in later pieces of a book."""
    marker = _BEGIN.search(text) or _SMALL_PRINT_END.search(text)
    return marker.end() if marker and not _END_OF_BOOK.search(text, 0, marker.start()) else 0


def _end(text: str, begin: int) -> int:
    last = _LAST_MARKER.search(text, begin)
    for marker in _END.finditer(text, begin):
        if last is None or marker.start() >= last.start() - MAX_TAIL:
            return marker.start()
        if len(_TRADEMARK.findall(text, marker.start(), last.start())) >= LICENSE_MENTIONS:
            return marker.start()
    return len(text)


def _without_credits(body: str) -> str:
    while credits := _CREDITS.match(body):
        paragraph = _REST_OF_PARAGRAPH.match(body, credits.end())
        assert paragraph is not None, "it matches the empty string"
        is_book = paragraph[0].count("\n") >= MAX_CREDIT_LINES or not body[paragraph.end() :].strip()
        body = body[credits.end() if is_book else paragraph.end() :]
    return body
