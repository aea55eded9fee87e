"""Kinds of personal data, in a module of its own so that `headrace plan` imports no pattern."""

from typing import Literal

Kind = Literal["key", "email", "iban", "card", "phone", "ip"]
KINDS: tuple[Kind, ...] = ("key", "email", "iban", "card", "phone", "ip")
