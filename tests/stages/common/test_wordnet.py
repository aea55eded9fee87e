"""WordNet's files: a tiny database written by hand, and the real one where it is installed."""

from pathlib import Path

import pytest

from data_schemas.errors import EnvironmentProblem, HeadraceError
from stages.common.wordnet import digest_of, installed_folder, load

LICENCE = "  1 This software and database is being provided to you, the LICENSEE\n"


def write_wordnet(folder: Path) -> Path:
    """Three synsets: a goose (bird), a goose (person), a small animal; `dog` as noun and verb."""
    folder.mkdir(parents=True, exist_ok=True)
    data = {
        "noun": "00000070 05 n 02 goose 0 Gray_goose 1 001 @ 00000200 n 0000 | a bird; \"honk\"\n"
        "00000150 18 n 01 goose 1 000 | a silly person\n00000200 05 n 01 dog 0 000 | barks\n",
        "verb": "00000070 38 v 02 chase 0 dog 2 000 01 + 08 00 | go after\n",
        "adj": "00000070 00 a 02 galore(ip) 0 small 0 000 | abundant\n",
        "adv": "00000070 02 r 01 fast 0 000 | quickly\n",
    }  # fmt: skip
    index = {
        "noun": "dog n 1 0 1 1 00000200  \ngoose n 2 1 @ 2 1 00000070 00000150  \ngray_goose n 1 1 @ 1 0 00000070  \n",
        "verb": "chase v 1 0 1 0 00000070  \ndog v 1 0 1 1 00000070  \n",
        "adj": "galore a 1 0 1 0 00000070  \nsmall a 1 0 1 0 00000070  \n",
        "adv": "fast r 1 0 1 0 00000070  \n",
    }
    for name in data:
        (folder / f"data.{name}").write_text(LICENCE + data[name])
        (folder / f"index.{name}").write_text(LICENCE + index[name])
    (folder / "noun.exc").write_text("geese goose\n")
    (folder / "cntlist.rev").write_text("dog%1:05:00:: 1 42\ngoose%1:05:00:: 1 3\ndog%2:38:02:: 1 2\n")
    return folder


def test_senses_have_supersenses_synonyms_and_counts_in_the_order_of_the_index(tmp_path):
    wordnet = load(write_wordnet(tmp_path))
    assert [(s.supersense, s.words, s.occurrences) for s in wordnet.senses("goose", "n")] == [
        ("noun.animal", ("goose", "Gray goose"), 3),
        ("noun.person", ("goose",), 0),
    ]
    assert wordnet.senses("gray goose", "n")[0].words == ("goose", "Gray goose")
    assert wordnet.senses("dog", "v")[0] == ("verb.motion", ("chase", "dog"), 2)
    assert wordnet.senses("galore", "a")[0].words == ("galore", "small")
    assert wordnet.senses("goose", "v") == () and wordnet.senses("", "n") == ()


def test_base_forms_follow_exceptions_first_and_then_rules(tmp_path):
    wordnet = load(write_wordnet(tmp_path))
    assert wordnet.base_forms("geese", "n") == ("goose",)
    assert wordnet.base_forms("dogs", "n") == wordnet.base_forms("dog", "n") == ("dog",)
    assert wordnet.base_forms("chasing", "v") == wordnet.base_forms("chased", "v") == ("chase",)
    assert wordnet.base_forms("smallest", "a") == ("small",)
    assert wordnet.base_forms("s", "n") == wordnet.base_forms("", "n") == wordnet.base_forms("chasing", "n") == ()


def test_the_digest_needs_no_parsing_and_irregular_forms_are_the_exceptions_turned_round(tmp_path):
    wordnet = load(write_wordnet(tmp_path))
    assert digest_of(tmp_path) == wordnet.digest
    assert wordnet.irregular_forms("goose", "n") == ("geese",) and wordnet.irregular_forms("dog", "n") == ()


def test_what_is_missing_or_damaged_is_named(tmp_path, monkeypatch):
    with pytest.raises(EnvironmentProblem, match="apt-get install wordnet-base"):
        installed_folder(str(tmp_path / "nowhere"))
    folder = write_wordnet(tmp_path / "here")
    monkeypatch.setenv("WNSEARCHDIR", str(folder))
    assert installed_folder() == folder
    for name, text, words in (
        ("data.noun", "00000070 05 n 02 goose 0\n", "not in WordNet's format"),
        ("index.verb", "dog v 1 0 1 1 00000999\n", "refers to a synset"),
        ("index.adj", None, "does not exist"),
    ):
        broken = write_wordnet(tmp_path / name)
        (broken / name).unlink() if text is None else (broken / name).write_text(text)
        with pytest.raises(HeadraceError, match=words):
            load(broken)


def test_the_installed_database_reads_whole():
    try:
        wordnet = load(installed_folder())
    except EnvironmentProblem as refusal:
        pytest.skip(str(refusal))
    assert wordnet.senses("dog", "n")[0].supersense == "noun.animal"
    assert "automobile" in wordnet.senses("car", "n")[0].words
    assert wordnet.base_forms("went", "v") == ("go",) and wordnet.base_forms("better", "a") == (
        "good",
        "well",
        "better",
    )
    assert all(sense.words for sense in wordnet.senses("set", "v"))
