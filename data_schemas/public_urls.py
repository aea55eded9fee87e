"""URLs without what is nobody else's business: user info, and queries with signatures and tokens.

- `public_url`: a URL for ids, keys, records, logs and messages; the same for every signature of a file
- `public_text`: a message with the URLs in it replaced by their public forms

Nothing heavy is imported here: errors, and with them the command line, use it.
"""

import re

PUBLIC = {"public": True}
"""Serialization context in which a `Location` (`data_schemas/config.py`) becomes its public form."""
_USER_INFO = re.compile(r"(?<=://)([^/?#@\s]*)@")
_WITHOUT_PASSWORDS = ("abfs", "abfss", "az", "github", "wasb", "wasbs")
"""Protocols in which the part before `@` is a container or a repository."""
_QUERY = re.compile(r"[?#].*", re.DOTALL)
_URL = re.compile(r"""[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s'"<>)\]}|\\]+""")
"""A protocol of limited length: a megabyte of letters is searched from each of them."""


def public_url(url: str) -> str:
    """URL without user info, and on the web without query and fragment; local paths and globs are unchanged.

    Parts of a chained URL (`zip://*.csv::https://host/a.zip?token=x`) are treated one by one.
    """
    return "::".join(map(_public_part, url.split("::"))) if "://" in url else url


def public_text(text: str) -> str:
    """Text with the public forms of all URLs in it."""
    return _URL.sub(lambda match: public_url(match[0]), text) if "://" in text else text


def _public_part(url: str) -> str:
    protocol = url.split("://")[0].lower()
    if protocol not in _WITHOUT_PASSWORDS:
        url = _USER_INFO.sub("", url)
    return _QUERY.sub("", url) if protocol in ("http", "https") else url
