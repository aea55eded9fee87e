"""Settings of the replacement of personal data; pydantic alone."""

from typing import Literal

from pydantic import Field

from data_schemas.config import FrozenConfig

Kind = Literal["key", "email", "iban", "card", "phone", "ip"]
KINDS: tuple[Kind, ...] = ("key", "email", "iban", "card", "phone", "ip")


class PersonalDataConfig(FrozenConfig):
    """Which kinds of personal data give way to placeholders such as `<EMAIL>`."""

    kinds: tuple[Kind, ...] = Field(
        KINDS, description="what is replaced: keys and tokens, e-mail addresses, IBANs, payment cards, phones, IPs"
    )
    region: str = Field(
        "US", min_length=2, max_length=2, description="ISO 3166 code: phone numbers without a country code are of here"
    )
