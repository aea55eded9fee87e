import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.clean.rules import language

TEXTS = {
    "en": "The wheel of the mill turns slowly in the cold river, and the miller watches it from the window.",
    "de": "Das Rad der Mühle dreht sich langsam im kalten Fluss, und der Müller sieht ihm vom Fenster aus zu.",
    "fr": "La roue du moulin tourne lentement dans la rivière froide, et le meunier la regarde de sa fenêtre.",
    "ru": "Колесо мельницы медленно вращается в холодной реке, и мельник смотрит на него из окна.",
    "zh": "磨坊的轮子在冰冷的河水中慢慢转动，磨坊主从窗口看着它。",
    "ja": "水車は冷たい川の中でゆっくりと回り、粉屋は窓からそれを見ている。",
}


def detect(text: str) -> tuple[str | None, float]:
    data = np.frombuffer(text.encode("utf-8", "replace"), dtype=np.uint8)
    return language.confirmed(language.detect(text), data)


@pytest.mark.parametrize("code", TEXTS)
def test_languages(code: str) -> None:
    detected, share = detect(TEXTS[code] * 3)
    assert detected == code
    assert share > 0.9


@pytest.mark.parametrize("text", ["", "12 34 56", "\x00\x01", "\ud800", "<<<>>>", "zxq"])
def test_what_is_no_language(text: str) -> None:
    assert detect(text) == (None, 0.0)


def test_a_mixture_has_a_smaller_share() -> None:
    code, share = detect(TEXTS["en"] * 3 + TEXTS["de"] * 2)
    assert (code, 0.4 < share < 0.8) == ("en", True)


@given(st.text())
def test_any_text_has_an_answer(text: str) -> None:
    code, share = detect(text)
    assert 0 <= share <= 1
    assert (code is None) == (share == 0)


def test_the_shared_speeches_are_english(shared_data: Path) -> None:
    with gzip.open(shared_data / "corpus" / "speech.jsonl.gz", "rt") as lines:
        assert {detect(json.loads(line)["text"])[0] for line in lines} == {"en"}
