import pytest
from pydantic import ValidationError

from data_schemas.config import canonical_json
from data_schemas.errors import ConfigError
from flows.config.run_config import apply_overrides, build_run_config
from stages.clean.config import CleanConfig


def clean(*overrides: str) -> CleanConfig:
    config = build_run_config(
        apply_overrides({}, [f"clean.{override}" for override in overrides]), "test"
    ).stage_config("clean")
    assert isinstance(config, CleanConfig)
    return config


def test_an_entry_changes_only_what_it_names():
    rule = clean("rules.gopher_mean_word_length.max=12").rules.gopher_mean_word_length
    assert (rule.action, rule.min, rule.max) == ("drop", 3, 12)
    assert clean("rules.c4_curly_bracket.action=drop").rules.c4_curly_bracket.max == 0
    assert clean("lines.c4_words={action: drop, min: 5}").lines.c4_words.min == 5


def test_a_genre_changes_only_what_it_names():
    config = clean("rules.gopher_words.min=20", "by_genre.books.rules.gopher_words.max=1e9",
                   "by_genre.web.lines.c4_end_mark.action=drop")  # fmt: skip
    lines, rules = config.rules_of("books")
    assert (rules.gopher_words.action, rules.gopher_words.min, rules.gopher_words.max) == ("drop", 20, 1e9)
    assert lines == config.lines
    assert config.rules_of("web")[0].c4_end_mark.action == "drop"
    assert config.rules_of("news") == (config.lines, config.rules)


def test_what_is_resolved_reads_back_and_makes_a_key():
    config = clean("by_genre.books.rules.gopher_words.max=1e9")
    again = CleanConfig.model_validate(config.model_dump(mode="json"))
    assert again == config
    assert again.rules_of("books") == config.rules_of("books")
    assert '"gopher_words":{"action":"drop","max":100000.0,"min":50.0}' in canonical_json(config.key_fields())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rules.gopher_word.max=3", "did you mean 'gopher_words'"),
        ("lines.c4_endmark.action=drop", "did you mean 'c4_end_mark'"),
        ("by_genre.web.rules.c4_curly_brackets.action=tag", "did you mean 'c4_curly_bracket'"),
        ("by_genre.web.lines.zzz.action=off", "accepted are c4_citations"),
        ("rules.gopher_words.action=delete", "'drop', 'tag' or 'off'"),
        ("lines.c4_words.action=tag", "'drop' or 'off'"),
        ("rules.gopher_words.min=200000", "no score is accepted"),
        ("by_genre.books.rules.gopher_words.min=200000", "no score is accepted"),
        ("rules.gopher_words.threshold=3", "threshold"),
    ],
)
def test_errors_say_what_is_accepted(override, message):
    with pytest.raises(ConfigError, match=message):
        clean(override)


def test_a_genre_is_checked_when_the_config_is_read():
    with pytest.raises(ValidationError):
        CleanConfig.model_validate({"by_genre": {"web": {"rules": {"nosuch": {}}}}})
