"""Codes of languages: ISO 639-1 where a language has one, else the three letters of ISO 639-2 or 639-3.

- `iso_code`: the ISO 639 code for a language's name in data, such as `he` for `iw`, `heb` and `he-IL`
- `LanguageCode`: the type of config fields; other names are refused

The list is that of the languages with a name in Unicode's CLDR 48, and what the detector of `clean` can return. Macro
languages and their largest member have one code: `no` for Bokmål, `zh` for Mandarin, `fa` for Dari.
"""

import difflib
import json
import re
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

_TABLE = Path(__file__).with_suffix(".json")


def iso_code(name: str | None) -> str | None:
    """Code of a language tag (BCP 47, POSIX locale or ISO 639, in any case); None for anything else."""
    primary = re.split("[-_.@]", (name or "").strip().lower(), maxsplit=1)[0]
    codes, aliases = _codes()
    code = aliases.get(primary, primary)
    return code if code in codes else None


@cache
def _codes() -> tuple[frozenset[str], dict[str, str]]:
    """All codes, and other codes of the same languages -> code."""
    table = json.loads(_TABLE.read_text(encoding="utf-8"))
    pairs = (alias.split(":", 1) for line in table["aliases"] for alias in line.split())
    return frozenset(code for line in table["codes"] for code in line.split()), dict(pairs)


def _checked(name: str) -> str:
    code = iso_code(name)
    if code is None:
        close = difflib.get_close_matches(name.lower(), sorted(_codes()[0]), n=3, cutoff=0.6)
        hint = f"; codes like it are {', '.join(close)}" if close else ""
        raise ValueError(f"{name!r} is no ISO 639 code of a language; accepted are codes such as de, zh or ceb{hint}")
    return code


LanguageCode = Annotated[str, AfterValidator(_checked)]
"""Config field with the code of a language; older and longer codes become the one of `iso_code`."""
