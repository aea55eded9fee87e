"""The Winograd Schema Challenge in its authors' XML (Levesque et al. 2012; WSCollection.xml).

Of its 285 sentences the first 273 are WSC273.

- `read_xml`: its items, in the form of the JSON lines

The pronoun becomes the blank. If it is possessive, the options get "'s", as in the harness's wsc273.
"""

from pathlib import Path
from xml.etree import ElementTree

from data_schemas.errors import InputDataError
from stages.benchmark.tasks.winograd.partial_scoring import BLANK, WinogradItem

POSSESSIVE = ("my", "his", "her", "our", "their")


def read_xml(path: Path) -> list[WinogradItem]:
    """Read a collection of schemas.

    Raises:
        InputDataError: naming the schema and its fault.
    """
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except (OSError, ElementTree.ParseError) as error:
        raise InputDataError(f"{path} cannot be read as XML: {error}") from error
    schemas = root.findall("schema")
    if not schemas:
        raise InputDataError(f"{path} contains no <schema>; expected is a <collection> of <schema> elements")
    return [_item(schema, number, f"{path}, schema {number}") for number, schema in enumerate(schemas, start=1)]


def _item(schema: ElementTree.Element, number: int, location: str) -> WinogradItem:
    before, pronoun, after = (_text(schema, f"text/{name}", location) for name in ("txt1", "pron", "txt2"))
    options = [" ".join((answer.text or "").split()) for answer in schema.findall("answers/answer")]
    if len(options) != 2 or not all(options):
        raise InputDataError(f"{location}: <answers> contains {len(options)} answers; accepted are two non-empty ones")
    correct = _text(schema, "correctAnswer", location).rstrip(".")
    if correct not in ("A", "B"):
        raise InputDataError(f"{location}: <correctAnswer> is {correct!r}; accepted are A and B")
    space = "" if after[0] in ".,;:!?" else " "
    first, second = (_possessive(option) if pronoun.lower() in POSSESSIVE else option for option in options)
    sentence = f"{before} {BLANK}{space}{after}".strip()
    if sentence.count(BLANK) != 1:
        raise InputDataError(
            f"{location}: the text contains `{BLANK}`, which is reserved for the pronoun; accepted is a text without it"
        )
    return WinogradItem(str(number), sentence, (first, second), 1 if correct == "A" else 2)


def _text(schema: ElementTree.Element, name: str, location: str) -> str:
    element = schema.find(name)
    text = " ".join((element.text or "").split()) if element is not None else ""
    if not text and name != "text/txt1":  # a sentence can begin with its pronoun
        raise InputDataError(f"{location}: <{name}> is missing or empty; accepted is text")
    return text


def _possessive(option: str) -> str:
    return option if option.endswith(("'s", "s'")) else f"{option}'s"
