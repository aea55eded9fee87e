"""Templates of wikitext in the middle of sentences, whose arguments are words of the text.

- `shown_text`: the words of a template; empty for all templates that are not listed here

Extractors that drop every template lose the numbers and foreign words of an encyclopedia: "At , Alabama has one of the
longest waterways". The names are those of the largest Wikipedias.
"""

import re
from collections.abc import Callable, Sequence

from mwparserfromhell.nodes import Template
from mwparserfromhell.nodes.extras import Parameter
from mwparserfromhell.wikicode import Wikicode

Render = Callable[[Wikicode], str]

_ARGUMENTS = {
    1: """nowrap nobr nobreak nbhyph nbh nowraplinks small smaller big larger abbr abbrlink tooltip sc smallcaps sup sub
        mvar var em strong strikethrough quote cquote blockquote ill link-interwiki flag flagcountry ruby nihongo
        nihongo2 japonais japanese unicode 仮リンク le link-en нп нп2 нп3 нп4 нп5 нобр нет_переносов lien
        iw interlanguage_link interlanguage_link_multi illm nihongo3
        num kbd key button samp tq xt gaps overline underline u s""",
    2: """lang langue lingua langx transl transliteration idioma lingua2 sprache 語言""",
    3: "tsl translink",
}  # fmt: skip
_BY_NAME = {name.replace("_", " "): number for number, names in _ARGUMENTS.items() for name in names.split()}
"""Template -> its argument that is shown, from 1."""
_SIGNS = {
    "ndash": "–", "mdash": "—", "emdash": "—", "endash": "–", "snd": " – ", "spnd": " – ", "spaced ndash": " – ",
    "nbsp": " ", "space": " ", "'": "'", "'s": "'s", "=": "=", "·": " · ", "dot": " · ", "bull": " · ", "•": " · ",
    "times": "×", "pm": "±", "-'": "'", "gbp": "£", "eur": "€",
}  # fmt: skip
_PREFIXES = {
    "circa": "c. ", "c.": "c. ", "ca.": "c. ", "usd": "US$", "us$": "US$", "£": "£", "€": "€", "inr": "₹", "¥": "¥",
    "uss": "USS ", "hms": "HMS ", "ss": "SS ", "as of": "As of ", "#": "",
}  # fmt: skip
_MEASURES = frozenset(("convert", "cvt", "unité", "unite", "unidad", "val", "unit", "formatnum"))
_JOINED = {"date": " ", "date-": " ", "frac": "/", "fraction": "/", "sfrac": "/", "sortname": " ", "ship": " "}
_RANGE_WORDS = frozenset(("to", "-", "–", "and", "or", "by", "x", "×", "+/-", "±", "to(-)", "and(-)"))
_NUMBER = re.compile(r"[-−+]?[\d.,/\s]*\d")
_FUNCTION = re.compile(r"(?:formatnum|lc|uc|lcfirst|ucfirst|nowrap)\s*:\s*(.*)", re.I | re.S)
_LANGUAGE_TEMPLATE = re.compile(r"lang-[a-z]{2,3}(?:-[a-z]+)*")


def shown_text(template: Template, render: Render) -> str:
    """Words of a template in its sentence; empty if it has none, or is not known.

    Args:
        template: the template.
        render: function that gives the text of an argument.
    """
    name = " ".join(str(template.name).replace("_", " ").split()).lower()
    if function := _FUNCTION.fullmatch(str(template.name).strip()):
        return function[1] if "{{" not in function[1] else ""
    if name in _SIGNS:
        return _SIGNS[name]
    number = 1 if _LANGUAGE_TEMPLATE.fullmatch(name) else _BY_NAME.get(name)
    joint, prefix = _JOINED.get(name), _PREFIXES.get(name)
    if number is None and joint is None and prefix is None and name not in _MEASURES:
        return ""
    arguments = [render(parameter.value).strip() for parameter in template.params if _is_positional(parameter)]
    if number is not None:
        return arguments[number - 1] if len(arguments) >= number else ""
    if joint is not None:
        return joint.join(argument for argument in arguments if argument)
    if prefix is not None:
        return prefix + arguments[0] if arguments and arguments[0] else ""
    unit = next(
        (render(parameter.value).strip() for parameter in template.params if _key(parameter) in ("u", "ul")), ""
    )
    return " ".join([*_measure(arguments), unit]).strip()


def _key(parameter: Parameter) -> str:
    return str(parameter.name).strip()


def _is_positional(parameter: Parameter) -> bool:
    return not parameter.showkey or _key(parameter).isdecimal()


def _measure(arguments: Sequence[str]) -> list[str]:
    """Numbers and units as written, without the conversion: `5 to 10 km`, `5 ft 8 in`."""
    words: list[str] = []
    expects_number = True
    for argument in arguments:
        is_number = _NUMBER.fullmatch(argument) is not None
        if not argument or (expects_number and not is_number) or (not words and not is_number):
            break
        if words and is_number and not expects_number and _NUMBER.fullmatch(words[-1]):
            break
        words.append(argument)
        expects_number = argument in _RANGE_WORDS
        if not is_number and not expects_number and len(words) >= 4:
            break
        if not is_number and not expects_number and not _continues(arguments[len(words) :]):
            break
    return words


def _continues(rest: Sequence[str]) -> bool:
    """Whether a number and a further unit follow a unit, as in `5|ft|8|in`."""
    return (
        len(rest) > 1
        and _NUMBER.fullmatch(rest[0]) is not None
        and _NUMBER.fullmatch(rest[1]) is None
        and bool(rest[1])
    )
