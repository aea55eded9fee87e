"""Phone numbers in text, by Google's libphonenumber.

- `find`: the spans of all phone numbers of a text

Without a sign that it is one, a number must be valid and have the grouping of its country: with a country code, or in
local notation of the configured region. Near a word for a telephone, or after another phone number, any valid number
counts, also in local notation of the countries of that word: dates, prices and tables hardly ever are there.
"""

import re
from collections.abc import Iterator

import phonenumbers

ATTACHED = "0-9A-Za-z_\u00aa-\u058f"
"""Characters that make a number part of a longer word: those of alphabets with spaces between words."""
# The pattern begins with a character class, to which the engine can skip, and the look-behind follows it: five times
# as fast as with the look-behind first.
_NUMBER = re.compile(
    rf"[+(0-9](?<![{ATTACHED}.,/+-].)(?:(?<=[+0-9])|(?=\d{{1,5}}\)))(?:\d|[ .-]\d|(?:\)| ?[(/-]) ?\(?\d){{6,18}}"
    rf"(?![{ATTACHED}/-]|[.,]\d)",
    re.S,
)
_PLAIN_GROUPS = re.compile(r"(?:\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?|\(\d{2,4}\)[ .-]?)?\d{1,8}(?:[ .-]\d{1,8}){1,6}")
"""Single spaces, full stops and hyphens between groups, and parentheses around an area code only."""
_THOUSANDS = re.compile(r"\+?\d{1,3}(?:[ .]\d{3})+")
"""A number such as `+12 345 678 901`."""
_EXIT = re.compile(r"00 ?(?=[1-9])")
"""Prefix of international calls in most countries (ITU E.123), in place of `+`."""
_COUNTRIES = (
    ("tel phone phones telephone call ring dial fax mobile cell hotline whatsapp", "US GB AU NZ IE IN ZA SG"),
    ("telefon tel fax telefax handy mobil rufnummer hotline durchwahl", "DE AT CH"),
    ("tél tel téléphone portable fax appelez appeler", "FR BE CH"),
    ("tel teléfono móvil llame telefono cellulare telefone celular ligue fax", "ES MX AR CO CL PE IT PT BR"),
    ("telefoon telefon tel tlf mobil puh puhelin soita ring", "NL BE SE NO DK FI"),
    ("telefon tel zadzwoń volejte hívjon arayın sunați", "PL CZ SK HU RO TR"),
    ("тел телефон телефону телефоны факс звоните звонить моб мобильный телефонуйте дзвоніть", "RU UA KZ BY BG"),
    ("τηλ τηλέφωνο καλέστε κινητό φαξ", "GR CY"),
    ("هاتف الهاتف تلفون جوال موبايل فاكس اتصل تلفن موبایل فون", "SA EG AE IR PK IQ MA"),
    ("טלפון טל נייד פקס חייגו", "IL"),
    ("telepon hp hubungi simu", "ID MY KE TZ"),
)
_COUNTRIES_WITHOUT_SPACES = (
    ("电话 手机 热线 传真 拨打 致电 座机", "CN"),
    ("電話 携帯 ファックス ファクス 熱線 傳真 手機", "JP TW HK"),
    ("전화 휴대폰 팩스 연락처", "KR"),
    ("फ़ोन फोन मोबाइल दूरभाष ফোন কল মোবাইল தொலைபேசி ఫోన్ ફોન ഫോൺ", "IN BD LK NP"),
    ("โทร มือถือ แฟกซ์ điện thoại ໂທ ទូរស័ព្ទ ဖုန်း", "TH VN LA KH MM"),
)
"""Words for a telephone, and the countries whose local notation is near them. Words of the second table count within
others."""
_SCRIPTS = (
    ("\u0370", "\u03ff", "GR CY"), ("\u0400", "\u052f", "RU UA KZ BY BG"), ("\u0590", "\u05ff", "IL"),
    ("\u0600", "\u06ff", "SA EG AE IR PK IQ MA"), ("\u0900", "\u097f", "IN NP"), ("\u0980", "\u09ff", "BD IN"),
    ("\u0a00", "\u0d7f", "IN"), ("\u0d80", "\u0dff", "LK"), ("\u0e00", "\u0e7f", "TH"), ("\u0e80", "\u0eff", "LA"),
    ("\u1000", "\u109f", "MM"), ("\u10a0", "\u10ff", "GE"), ("\u1200", "\u137f", "ET"), ("\u1780", "\u17ff", "KH"),
    ("\u3040", "\u30ff", "JP"), ("\u4e00", "\u9fff", "CN TW HK"), ("\uac00", "\ud7af", "KR"),
)  # fmt: skip
"""First and last letters of scripts, and the countries whose local notation is likely beside them."""
_CONTEXT = 32
"""Characters before a number that are searched for such words, within the line."""
_NEXT = 20
"""Characters up to a number from the one before it, such as a second line of the same office."""
_MAX_MISSES = 100
"""Numbers beside such words in a text that are valid in none of their countries; after these only the country of the
last number is tried, as each try takes 30 microseconds."""
_WORD = re.compile(r"[^\W\d_]+")


def find(text: str, region: str) -> Iterator[tuple[int, int]]:
    """Spans of phone numbers, in order.

    Args:
        text: with all digits, spaces and hyphens of Unicode as ASCII's.
        region: ISO 3166 code of the country of numbers in local notation.
    """
    end, countries, misses, last = -_NEXT, frozenset[str](), 0, ""
    for match in _NUMBER.finditer(text):
        before = text[max(0, match.start() - _CONTEXT) : match.start()]
        near = _countries(before)
        if match.start() - end < _NEXT:
            near |= countries
        if misses > _MAX_MISSES and near:
            near = frozenset((last,)) if last else frozenset()
        first = (last,) if near and last else ()
        if found := _country(match[0], (*first, region, *_countries_of_script(before)), near):
            end, countries, last = match.end(), near | {found}, found
            yield match.span()
        elif near:
            misses += 1


def _countries(before: str) -> frozenset[str]:
    """Countries of the words for a telephone in the text before a number."""
    line = before.rpartition("\n")[2].casefold()
    words = set(_WORD.findall(line))
    names = [countries for cues, countries in _COUNTRIES if not words.isdisjoint(cues.split())]
    if not line.isascii():
        names += [
            countries for cues, countries in _COUNTRIES_WITHOUT_SPACES if any(cue in line for cue in cues.split())
        ]
    return frozenset(" ".join(names).split())


def _countries_of_script(before: str) -> tuple[str, ...]:
    """Countries of the last script in the text before a number; none for Latin."""
    last = next((character for character in reversed(before) if character.isalpha()), "a")
    return next((tuple(countries.split()) for first, end, countries in _SCRIPTS if first <= last <= end), ())


def _country(number: str, regions: tuple[str, ...], near: frozenset[str]) -> str:
    """Country of a phone number; empty for any other number.

    Args:
        number: digits, with what separates them.
        regions: countries of numbers in local notation.
        near: countries whose local notation may be here; empty if nothing suggests a phone number.
    """
    if not 7 <= sum(map(str.isdigit, number)) <= 17 or number.count("(") != number.count(")"):
        return ""
    prefix = _EXIT.match(number)
    international = "+" + number[prefix.end() :] if prefix else number
    if international[0] == "+":
        strict = (prefix is not None and not near) or bool(_THOUSANDS.fullmatch(number))
        return _valid(international, regions[0], strict=strict)
    if not near and not _PLAIN_GROUPS.fullmatch(number):
        return ""
    candidates = (*regions, *sorted(near))
    return next((country for country in candidates if _valid(number, country, strict=not near)), "")


def _valid(number: str, region: str, *, strict: bool) -> str:
    """Country of a valid number; with `strict` also in the grouping of its country."""
    leniency = phonenumbers.Leniency.STRICT_GROUPING if strict else phonenumbers.Leniency.VALID
    for match in phonenumbers.PhoneNumberMatcher(number, region, leniency):
        if match.raw_string == number:
            return phonenumbers.region_code_for_number(match.number) or region
    return ""
