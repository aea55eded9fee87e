"""Personal data and secrets in a text.

- `find`: keys and tokens, e-mail addresses, IBANs, payment cards, phone numbers and IP addresses
- `KINDS`: their names

Precision comes first: a placeholder instead of a version number or an ISBN harms the text, so every kind has a check
beyond its pattern: Luhn and issuer (cards), mod 97 (ISO 13616), a public address (IPs), a number that is valid in its
country and grouped accordingly (phones, by Google's libphonenumber), the issuer's prefix and length (keys), a top-level
domain and no code around it (e-mail). Numbers are compared with all spaces, hyphens and digits of Unicode as ASCII's.
"""

import ipaddress
import re
import unicodedata
from bisect import bisect
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from stages.common.personal_data import email_addresses, phone_numbers
from stages.common.personal_data.kinds import KINDS, Kind
from stages.common.personal_data.phone_numbers import ATTACHED

Span = tuple[int, int]


class Match(NamedTuple):
    """A match in a text."""

    start: int
    end: int
    """In characters."""
    kind: Kind


_KEYS = (
    (
        "-----BEGIN",
        r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----"
        r"(?:(?!-----)[\s\S]){1,20000}-----END [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----",
    ),
    ("AKIA", r"(?<![A-Z0-9])AKIA[A-Z0-9]{16}(?![A-Z0-9])"),
    ("ASIA", r"(?<![A-Z0-9])ASIA[A-Z0-9]{16}(?![A-Z0-9])"),
    *((f"gh{kind}_", rf"gh(?<![A-Za-z0-9_]..){kind}_[A-Za-z0-9]{{36}}(?![A-Za-z0-9])") for kind in "pousr"),
    ("github_pat_", r"(?<![A-Za-z0-9_])github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}(?![A-Za-z0-9])"),
    ("xox", r"(?<![A-Za-z0-9])xox[abeprs]-[0-9A-Za-z-]{20,200}"),
    ("AIza", r"(?<![A-Za-z0-9])AIza[0-9A-Za-z_-]{35}(?![0-9A-Za-z_-])"),
    ("_live_", r"(?<![A-Za-z0-9])[rsp]k_live_[0-9A-Za-z]{16,100}"),
    ("sk-", r"(?<![A-Za-z0-9-])sk-(?:ant-|proj-)?(?=[A-Za-z_-]{0,200}[0-9])[A-Za-z0-9_-]{32,200}"),
    ("glpat-", r"(?<![A-Za-z0-9_-])glpat-[A-Za-z0-9_-]{20}(?![A-Za-z0-9_-])"),
    ("npm_", r"(?<![A-Za-z0-9_])npm_[A-Za-z0-9]{36}(?![A-Za-z0-9])"),
    ("pypi-AgE", r"(?<![A-Za-z0-9_-])pypi-AgE[A-Za-z0-9_-]{50,400}"),
    ("SG.", r"(?<![A-Za-z0-9_.-])SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])"),
    ("hf_", r"(?<![A-Za-z0-9])hf_[A-Za-z]{34}(?![A-Za-z0-9])"),
    ("eyJ", r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,4000}\.eyJ[A-Za-z0-9_-]{8,4000}\.[A-Za-z0-9_-]{8,4000}"),
)
"""A string that every such key contains, and the key's pattern as its issuer documents it."""
_COMPILED_KEYS = tuple((marker, re.compile(pattern)) for marker, pattern in _KEYS)
_PLAIN = {
    **dict.fromkeys(map(chr, (0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000)), " "),
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\ufe58\ufe63\uff0d", "-"),
    **{chr(point): chr(point - 0xFEE0) for point in range(0xFF08, 0xFF5B) if chr(point - 0xFEE0).isalnum()},
    **dict(zip("（）＋．＠＿", "()+.@_", strict=True)),
    **{chr(point): str(unicodedata.decimal(chr(point))) for point in range(0x80, 0x10000) if chr(point).isdecimal()},
}  # fmt: skip
"""Character -> its ASCII equivalent in numbers and addresses: spaces, hyphens (not the dash of U+2014),
digits of all scripts, full-width forms."""
_UNUSUAL = re.compile(f"[{''.join(_PLAIN)}]")
# Each pattern begins with a character class, to which the engine can skip, and the look-behind follows it: five times
# as fast as with the look-behind first.
_IBAN_DIGITS = re.compile(r"[0-9](?<=[A-Za-z]{2}.)(?<![A-Za-z0-9]...)[0-9](?=[ -]?[A-Za-z0-9]{2})", re.S)
_IBAN_LENGTHS = {country: length for length, countries in {
    15: "NO", 16: "BE", 18: "DK FI FK FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK", 21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL", 24: "AD CZ DZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
    29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
}.items() for country in countries.split()}  # fmt: skip
"""Characters of an IBAN by country (the registry of ISO 13616)."""
_CARD = re.compile(rf"[0-9](?<![{ATTACHED}.,/-].)\d{{3}}(?:[ -]?\d{{2,6}}){{2,4}}(?![{ATTACHED}/-]|[.,]\d)", re.S)
_ISSUERS = re.compile(
    r"4(?:\d{12}|\d{15})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|6(?:011|4[4-9]\d|5\d\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|3(?:0[0-5]|[68]\d)\d{11}|62\d{14,17}|220[0-4]\d{12}"
)
"""Visa, Mastercard (two ranges), American Express, Discover, JCB, Diners Club, UnionPay, Mir: first digits and
lengths."""
_IPV4 = re.compile(r"[0-9](?<![0-9A-Za-z_.\u00aa-\u058f-].)\d{0,2}(?:\.\d{1,3}){3}(?![0-9A-Za-z_-]|\.\d)", re.S)
_IPV6 = re.compile(r"[23](?<![\w:.].)[0-9A-Fa-f]{3}(?::[0-9A-Fa-f]{0,4}){3,7}(?![\w:])", re.S)
_VERSION_BEFORE = re.compile(
    r"(?:(?<![^\W\d_])(?:v|ver|rev|oid|sec|fig)|versi[oóeė]\w{0,2}|versão|wersj\w|verz\w{1,2}|sürüm\w{0,3}|phiên bản"
    r"|release|revision|firmware|section|chapter|верси\w{1,2}|версі\w|έκδοση\w?|إصدار|نسخة|نسخه|גרסה|גרסא|संस्करण|সংস্করণ|รุ่น|เวอร์ชัน|版本?|バージョン|버전|[=~<>!]=|§)"
    r"[\s.:='\"(>為为は是-]{0,5}$",
    re.IGNORECASE,
)
"""Words and operators before a version."""
_ADDRESS_BEFORE = re.compile(
    r"(?:\bip\b|ipv4|addr|host|server|\bdns\b|\bping\b|gateway|resolver|адрес|сервер|地址|アドレス|주소)", re.IGNORECASE
)
_PATH_BEFORE = re.compile(r"[^\s/:]/$")
"""A product before its version, as in `Chrome/119.0.0.0`; not `http://`."""
_VERSION_LIKE = re.compile(r"(?:(?:[12]?\d|3[01])(?:\.|$)){4}|\d+\.0\.0\.\d+")
"""Numbers up to 31: one of 4,096 addresses, and nearly all versions and section numbers."""
_RESOLVERS = frozenset(("1.0.0.1", "1.1.1.1", "4.2.2.2", "8.8.4.4", "8.8.8.8", "9.9.9.9"))
"""Well-known addresses that look like versions."""
_CONTEXT = 24
"""Characters before a number that are searched for a word such as `version`."""


def find(text: str, kinds: Sequence[Kind], region: str) -> list[Match]:
    """Personal data of these kinds in the order of the text, without overlaps.

    Args:
        text: any text.
        kinds: kinds to look for; of two matches that overlap, that of the kind that comes first in `KINDS` counts.
        region: ISO 3166 code of the country of phone numbers without a country code.
    """
    taken: list[Match] = []  # in the order of the text
    plain = text if text.isascii() else _UNUSUAL.sub(lambda match: _PLAIN[match[0]], text)
    for kind in KINDS:
        if kind in kinds:
            for start, end in _matches(kind, plain, region):
                index = bisect(taken, (start,))
                is_after = index == 0 or taken[index - 1].end <= start
                if is_after and (index == len(taken) or end <= taken[index].start):
                    taken.insert(index, Match(start, end, kind))
    return taken


def _matches(kind: Kind, text: str, region: str) -> Iterator[Span]:
    if kind == "key":
        return _keys(text)
    if kind == "email":
        return email_addresses.find(text)
    if kind == "iban":
        return _ibans(text)
    if kind == "card":
        return (match.span() for match in _CARD.finditer(text) if _is_card(match[0]))
    return phone_numbers.find(text, region) if kind == "phone" else _addresses(text)


def _keys(text: str) -> Iterator[Span]:
    for marker, pattern in _COMPILED_KEYS:
        if marker in text:
            yield from (match.span() for match in pattern.finditer(text))


def _ibans(text: str) -> Iterator[Span]:
    for match in _IBAN_DIGITS.finditer(text):
        start = match.start() - 2
        if length := _IBAN_LENGTHS.get(text[start : start + 2].upper()):
            rest = re.compile(rf"(?:[ -]?[A-Za-z0-9]){{{length - 4}}}(?![A-Za-z0-9])").match(text, match.end())
            if rest and _is_iban(text[start : rest.end()]):
                yield start, rest.end()


def _is_iban(candidate: str) -> bool:
    """ISO 13616: the letters as numbers, the first four characters moved to the end, modulo 97; small letters only in
    groups, as hexadecimal numbers have none."""
    joined = re.sub("[ -]", "", candidate)
    if joined != joined.upper() and (joined == candidate or joined != joined.lower()):
        return False
    digits = "".join(str(int(character, 36)) for character in joined[4:] + joined[:4])
    return int(digits) % 97 == 1


def _is_card(candidate: str) -> bool:
    digits = re.sub(r"\D", "", candidate)
    return bool(_ISSUERS.fullmatch(digits)) and _luhn(digits)


def _luhn(digits: str) -> bool:
    """ISO/IEC 7812-1: every second digit from the right doubled, its digits added, the sum a multiple of ten."""
    doubled = [int(digit) * (1 + index % 2) for index, digit in enumerate(reversed(digits))]
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


def _addresses(text: str) -> Iterator[Span]:
    if "." in text:
        for match in _IPV4.finditer(text):
            before = text[max(0, match.start() - _CONTEXT) : match.start()]
            if _is_public(match[0]) and not _is_version(match[0], before):
                yield match.span()
    if ":" in text:
        yield from (match.span() for match in _IPV6.finditer(text) if _is_public(match[0]))


def _is_version(candidate: str, before: str) -> bool:
    """True for four numbers that are rather a version or the number of a section than an address."""
    if _VERSION_BEFORE.search(before) or _PATH_BEFORE.search(before):
        return True
    named = candidate in _RESOLVERS or _ADDRESS_BEFORE.search(before)
    return bool(_VERSION_LIKE.fullmatch(candidate)) and not named


def _is_public(candidate: str) -> bool:
    try:
        address = ipaddress.ip_address(candidate)
    except ValueError:
        return False
    return address.is_global and not address.is_multicast
