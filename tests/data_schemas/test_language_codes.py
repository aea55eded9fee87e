import pytest

from data_schemas.language_codes import iso_code
from stages.clean.config import CleanConfig
from stages.ingest.config import SourceConfig


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("he", "he"), ("iw", "he"), ("heb", "he"), ("iw-IL", "he"), ("jw", "jv"), ("jav", "jv"), ("in", "id"),
        ("DE", "de"), ("ger", "de"), ("deu", "de"), ("de_AT.UTF-8", "de"), ("zh-Hant-TW", "zh"), ("cmn", "zh"),
        ("nb", "no"), ("nob", "no"), ("nn", "nn"), ("fil", "tl"), ("sr-ME", "sr"), ("ceb", "ceb"), ("bar", "bar"),
        ("bh", "bho"), (" en ", "en"),
        ("xx", None), ("xx-Latn", None), ("un", None), ("english", None), ("zzp", None), ("", None), (None, None),
    ],
)  # fmt: skip
def test_each_language_has_one_code(name: str | None, code: str | None) -> None:
    assert iso_code(name) == code
    assert iso_code(code) == code


def test_configs_store_the_code_and_refuse_what_is_none() -> None:
    assert CleanConfig(languages=("iw", "jw", "de-AT")).languages == ("he", "jv", "de")
    assert SourceConfig(path="x", language="iw").language == "he"
    for config in (lambda: CleanConfig(languages=("klingonese",)), lambda: SourceConfig(path="x", language="xx")):
        with pytest.raises(ValueError, match="is no ISO 639 code of a language; accepted are codes such as de, zh"):
            config()
