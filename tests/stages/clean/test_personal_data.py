import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.clean.config import KINDS, PersonalDataConfig
from stages.clean.personal_data import redact

EVERYTHING = PersonalDataConfig()
# Shapes of keys are put together here, so that no scanner takes this file for a leak.
FOUND = {
    "EMAIL": [
        "ann.miller@millstones.org", "a+b@mail.mill.co.uk", "ANN_1@Millstones.ORG", "राम@चक्की.भारत",
        "bob (at) mill (dot) org", "bob[at]mill.co.uk", "ann (dot) miller (at) mill (dot) org", "ivan собака mail.ru",
    ],
    "IP": ["8.8.8.8", "192.88.98.1", "2606:4700:4700::1111"],
    "PHONE": ["+49 89 636 48018", "(650) 253-0000", "650-253-0000", "+442079460958", "+44 (0)20 7946 0958",
              "0049 89 636 48018", "1-800-555-0199", "+880 2 5566 8800"],
    "CARD": ["4111 1111 1111 1111", "4111111111111111", "3782-822463-10005", "6011 1111 1111 1117",
             "6200 0000 0000 0005", "2200 0000 0000 0004"],
    "IBAN": ["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432", "NO93 8601 1117 947",
             "de89 3704 0044 0532 0130 00"],
    "KEY": [
        "AKIA" + "IOSFODNN7EXAMPLE", "ghp_" + "a1B2" * 9, "xoxb-" + "1234567890-abcdefghij", "AIza" + "Sy0-_" * 7,
        "sk_live_" + "0123456789abcdef", "hf_" + "abcdefghijklmnopqrstuvwxyzABCDEFGH",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow==\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN RSA PRIVATE KEY-----\nDEK-Info: AES-128-CBC,5F\n\nMIIEow==\n-----END RSA PRIVATE KEY-----",
    ],
}  # fmt: skip
LEFT = {
    "reserved names": ["ann@example.org", "root@localhost", "me@mail.test"],
    "no address": ["@decorator", "a@b", "user@", "an @ sign", "3 eggs @ 2 pounds"],
    "private or special addresses": ["192.168.0.1", "10.0.0.1", "127.0.0.1", "224.0.0.1", "fe80::1"],
    "commands, prompts and handles": [
        "ssh ann@server.mill.org",
        "scp -P 22 ann@server.mill.org",
        "[ann@server.mill.org ~]$",
        "@miller@mastodon.social",
        "We met (at) noon; dot",
        "Mill (at) the river. We",
        "look AT this",
    ],
    "numbers of sections and products": [
        "table 5.3.2.1",
        "Chrome/119.0.0.0",
        "Firefox 1.5.0.4",
        "OID 1.3.6.1",
        "έκδοση 8.8.8.8",
    ],
    "versions and sections": ["version 1.2.3.4", "v8.8.8.8", "pkg==8.8.8.8", "1.2.3.4.5", "section 8.8.8.8"],
    "dates, years and ranges": ["2012-03-04", "1914-1918", "10:30:15", "1993-95", "12/10/2019 10:15"],
    "other numbers": ["ISBN 978-0-306-40615-7", "3.14159265358979", "1,234,567,890", "0000-0002-1825-0097"],
    "cards that fail Luhn or have no issuer": ["4111 1111 1111 1112", "1234 5678 9012 3456", "9999 9999 9999 9995"],
    "IBANs that fail the check": ["DE89 3704 0044 0532 0130 01", "GB00WEST12345698765432"],
    "words that look like keys": ["ghp_short", "sk-learn", "AKIAshort", "eyJ.not.a.token", "hf_hub_download"],
}


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind, values in FOUND.items() for value in values])
@pytest.mark.parametrize("frame", ["{}", "Write to {}, or not.", "({})", "a line\n{}\nb"])
def test_personal_data_gives_way(kind: str, value: str, frame: str) -> None:
    assert redact(frame.format(value), EVERYTHING) == (frame.format(f"<{kind}>"), {kind.lower(): 1})


@pytest.mark.parametrize("text", [text for texts in LEFT.values() for text in texts])
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert redact(f"See {text} here.", EVERYTHING) == (f"See {text} here.", {})


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_kinds_asked_for(kind: str) -> None:
    text = " and ".join(values[0] for values in FOUND.values())
    assert redact(text, PersonalDataConfig(kinds=(kind,)))[1] == {kind: 1}  # type: ignore[arg-type]
    assert redact(text, PersonalDataConfig(kinds=())) == (text, {})


def test_numbers_without_a_country_code_are_of_the_region() -> None:
    assert redact("It was 089 63648018 then.", PersonalDataConfig(region="DE"))[1] == {"phone": 1}
    assert redact("It was 089 63648018 then.", PersonalDataConfig(region="US"))[1] == {}
    assert redact("Telefon: 089 63648018 oder 089/63648019.", PersonalDataConfig(region="US"))[1] == {"phone": 2}


def test_local_numbers_of_the_country_of_the_script_or_of_the_word_before_them() -> None:
    for text in ("Звоните 8 (495) 739-70-00 с утра", "客服热线010-6552 9988，", "전화는 02-730-5800입니다",
                 "お問い合わせ 0120-444-113（平日）",
                 "Appelez le 01.99.00.12.34 ou le 01 99 00 12 34.", "call 020 7946 0958"):  # fmt: skip
        assert redact(text, EVERYTHING)[1].keys() == {"phone"}, text
    for text in (
        "В 1941-1945 годах 12 000 000",
        "第3-5頁、価格は12,345,678円、2012.03.04",
        "Tel Aviv 1948-1967, +12 345 678 901 sacks",
    ):
        assert redact(text, EVERYTHING) == (text, {})


@given(st.lists(st.sampled_from([value for values in (*FOUND.values(), *LEFT.values()) for value in values])))
def test_a_second_pass_finds_nothing_and_words_around_stay(values: list[str]) -> None:
    once, counts = redact(" ; ".join(values), EVERYTHING)
    assert redact(once, EVERYTHING) == (once, {})
    assert len(once.split(" ; ")) == max(1, len(values))
    assert sum(counts.values()) == sum(once.count(f"<{kind}>") for kind in FOUND)


@given(st.text())
def test_any_text_comes_back_but_for_its_placeholders(text: str) -> None:
    redacted, counts = redact(text, EVERYTHING)
    assert (redacted == text) == (not counts)


@pytest.mark.parametrize(
    "unit",
    [
        "1 ",
        "1.",
        "a@",
        "+1 ",
        "(1) ",
        "a",
        "1:",
        "A1",
        "eyJa.",
        "-----BEGIN ",
        "xox",
        "@a.",
        "(at) ",
        "a(at)b.",
        "a (dot) ",
        " AT ",
        "DE89 ",
        "tel 1 ",
        "(1)-",
        "00 1",
        "电话1 ",
        "-----BEGIN PRIVATE KEY-----",
    ],
)
def test_half_a_megabyte_of_anything_is_read(unit: str) -> None:
    """A pattern that is quadratic in one of these would take an hour."""
    redact(unit * (500_000 // len(unit)), EVERYTHING)


def test_what_is_found_in_the_shared_corpora(shared_data: Path) -> None:
    found: dict[str, int] = {}
    for name in ("technical", "web", "news"):
        with gzip.open(shared_data / "corpus" / f"{name}.jsonl.gz", "rt") as lines:
            for line in list(lines)[::10]:
                for kind, times in redact(json.loads(line)["text"], EVERYTHING)[1].items():
                    found[kind] = found.get(kind, 0) + times
    assert found["email"] > 20
    assert sum(found.values()) - found["email"] < 20, "numbers in prose are hardly ever personal data"
