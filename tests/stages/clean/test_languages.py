"""The default rules keep running text in every language and drop lists of words."""

import itertools

import pytest

from benchmarks.common.languages import CODES, document, joined, near_copy
from stages.clean.config import CleanConfig
from stages.clean.document_cleaner import Cleaned, Cleaner
from stages.clean.rules_config import Rules

CLEANER = Cleaner(CleanConfig())


def cleaned(text: str, cleaner: Cleaner = CLEANER, language: str | None = None) -> Cleaned:
    return cleaner.clean(
        {"text": text, "genre": "web", "url": None, "source": "tests", "path": "a", "language": language}
    )


@pytest.mark.parametrize("code", CODES)
def test_running_text_is_kept_with_its_language(code: str) -> None:
    results = [cleaned(joined(code, document(code, seed, sentences=8))) for seed in range(8)]
    assert {result.language for result in results if result.dropped_by is None} == {code}
    dropped = [result.dropped_by for result in results if result.dropped_by]
    assert all("gram" in rule for rule in dropped), dropped  # five sentences repeat, with other nouns
    assert len(dropped) <= 4
    web = Cleaner(CleanConfig.model_validate({"lines": {"c4_end_mark": {"action": "drop"}}}))
    text = joined(code, document(code, 3, sentences=8))
    assert cleaned(text, web).text == text


@pytest.mark.parametrize("code", ["de", "ru", "ar", "hi", "zh", "th"])
def test_text_without_stop_words_is_dropped(code: str) -> None:
    rules = {name: {"action": "off"} for name in Rules.model_fields if name not in ("gopher_stop_words",)}
    cleaner = Cleaner(CleanConfig.model_validate({"rules": rules}))
    nouns = [word for word in near_copy(code, ["a"] * 300, 1, similarity=-1) if word != "a"]
    assert cleaned(joined(code, document(code, 1, 20)), cleaner).dropped_by is None
    assert cleaned(joined(code, nouns), cleaner).dropped_by == "gopher_stop_words"


def test_limits_that_a_config_sets_hold_for_every_language() -> None:
    text = joined("zh", document("zh", 1, 8))
    strict = Cleaner(CleanConfig.model_validate({"rules": {"gopher_mean_word_length": {"min": 3.5}}}))
    assert cleaned(text, strict).dropped_by == "gopher_mean_word_length"


def test_the_language_of_a_document_is_an_iso_code() -> None:
    text = joined("he", document("he", 2, 8))
    assert [cleaned(text, language=name).language for name in (None, "iw", "heb-IL", "Klingonese")] == ["he"] * 4
    only = Cleaner(CleanConfig.model_validate({"rules": {"language": {"action": "drop"}}, "languages": ["iw"]}))
    assert cleaned(text, only).dropped_by is None
    assert cleaned(joined("de", document("de", 0, 8)), only).dropped_by == "language"


UZBEK = (
    "Бугун ҳаво яхши эди ва биз дўстлар билан катта боғга бордик. У ерда кўп одам бор эди, лекин бу "
    "жой биз учун жуда қулай. Болалар дарахтлар орасида ўйнаб, катталар эса сув бўйида суҳбат қуриб "
    "ўтирди. Кечқурун шамол турди ва биз ҳам уйга қайтдик. Эртага бозорга бориб, мева олиш керак, "
    "чунки меҳмон келади деб айтишди. Онам нон ёпди, отам эса ўз ишини тугатди."
)
KURDISH = (
    "Îro hewa xweş bû û em bi hevalan re çûn baxçeyê mezin ku li ber çem e. Li wir gelek kes hebûn, "
    "lê cihê me ji yên din xweştir bû. Zarok di nav daran de dilîstin û mezin jî li ber avê "
    "rûdiniştin û bi hev re diaxivîn. Êvarê ba rabû û em jî vegeriyan malê. Sibê divê em biçin bazarê "
    "û fêkî bikirin, ji ber ku mêvan tên. Diya min nan çêkir û bavê min karê xwe qedand, her wekî ku "
    "wî ji me re gotibû."
)
JAVANESE = "ꦲꦶꦁꦝꦸꦱꦸꦤ꧀ꦩꦫꦶꦏꦶ꧈ꦧꦥꦏ꧀ꦠꦤꦶꦤꦤ꧀ꦝꦸꦂꦥꦫꦶꦭꦤ꧀ꦗꦒꦸꦁ꧉ꦄꦤꦏ꧀ꦄꦤꦏ꧀ꦝꦺꦴꦭꦤꦤ꧀ꦲꦶꦁꦥꦶꦁꦒꦶꦂꦏꦭꦶ꧈"


@pytest.mark.parametrize("text", [UZBEK, KURDISH, JAVANESE + JAVANESE[::-1].strip("ꦁꦂꦺꦴꦶꦸ") + "ꦥꦏꦭꦤ꧀ꦠꦺꦁ"])
def test_text_in_a_second_script_or_in_a_language_that_the_detector_does_not_know_is_kept(text: str) -> None:
    assert cleaned(text).dropped_by is None


def test_text_with_vowel_signs_is_judged_without_them() -> None:
    for code, marks in (("ar", "\u064e\u0650\u064f\u0652"), ("he", "\u05b8\u05b4\u05bc\u05b7")):
        text = joined(code, document(code, 5, sentences=8))
        pointed = "".join(one + (marks[place % 4] if one.isalpha() else "") for place, one in enumerate(text))
        assert (cleaned(pointed).dropped_by, cleaned(pointed).language) == (None, code)


def test_words_without_sentences_stay_dropped_where_no_language_is_detected() -> None:
    names = " ".join(f"Kx{first}v Zr{second}q" for first, second in itertools.product("aeiou", "bdfghjk"))
    assert cleaned(names).dropped_by == "gopher_stop_words"
