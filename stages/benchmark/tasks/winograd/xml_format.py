"""The Winograd Schema Challenge in its authors' XML (Levesque et al. 2012; WSCollection.xml, 285 sentences).

- `read_xml`: as items with a blank, like those of the JSON lines

The pronoun's place becomes the blank. Where it is possessive, the options get "'s", as in the harness's wsc273.
"""

from pathlib import Path
from xml.etree import ElementTree

from data_schemas.errors import InputDataError
from stages.benchmark.tasks.winograd.partial_scoring import BLANK, WinogradItem

POSSESSIVE = ("my", "his", "her", "our", "their")
FIRST_SET = 273
"""WSC273 is the first 273 sentences; 12 came later."""


def read_xml(path: Path) -> list[WinogradItem]:
    """Read a collection of schemas.

    Raises:
        InputDataError: naming the schema and what it lacks.
    """
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except (OSError, ElementTree.ParseError) as error:
        raise InputDataError(f"{path} cannot be read as XML: {error}") from error
    schemas = root.findall("schema")
    if not schemas:
        raise InputDataError(f"{path} holds no <schema>; expected <collection> with <schema> elements")
    return [_item(schema, number, f"{path}, schema {number}") for number, schema in enumerate(schemas, start=1)]


def _item(schema: ElementTree.Element, number: int, where: str) -> WinogradItem:
    before, pronoun, after = (_text(schema, f"text/{name}", where) for name in ("txt1", "pron", "txt2"))
    options = [" ".join((answer.text or "").split()) for answer in schema.findall("answers/answer")]
    if len(options) != 2 or not all(options):
        raise InputDataError(f"{where}: <answers> holds {len(options)} answers; accepted are two that are not empty")
    right = _text(schema, "correctAnswer", where).rstrip(".")
    if right not in ("A", "B"):
        raise InputDataError(f"{where}: <correctAnswer> is {right!r}; accepted are A and B")
    gap = "" if after[0] in ".,;:!?" else " "
    first, second = (_possessive(option) if pronoun.lower() in POSSESSIVE else option for option in options)
    sentence = f"{before} {BLANK}{gap}{after}".strip()
    if sentence.count(BLANK) != 1:
        raise InputDataError(f"{where}: the text holds a `{BLANK}`, which stands for the pronoun here")
    return WinogradItem(str(number), sentence, (first, second), 1 if right == "A" else 2)


def _text(schema: ElementTree.Element, name: str, where: str) -> str:
    found = schema.find(name)
    text = " ".join((found.text or "").split()) if found is not None else ""
    if not text and name != "text/txt1":  # a sentence can begin with its pronoun
        raise InputDataError(f"{where}: <{name}> is missing or empty")
    return text


def _possessive(option: str) -> str:
    return option if option.endswith(("'s", "s'")) else f"{option}'s"
