"""YAML that users write."""

import pytest
import yaml

from data_schemas.yaml_text import load_yaml


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "a is set twice, in lines 1 and 3"),
        ("outer:\n  - {width: 1, width: 2}\n", "width is set twice, in lines 2 and 2"),
        ("1: a\n1: b\n", "1 is set twice"),
        ("<<: {a: 1}\nb: {c: 1, 'c': 2}\n", "c is set twice"),
        ("day: 2024-13-45\n", "month must be in 1..12"),
        ("a: !!python/object:os.system {}\n", "could not determine a constructor"),
        ("a: [", "expected the node content"),
    ],
)
def test_what_is_refused(text, message):
    with pytest.raises(yaml.YAMLError, match=message):
        load_yaml(text)


def test_what_is_merged_may_be_set_again():
    text = "base: &base {a: 1, b: 2}\nmore: &more {<<: *base, b: 3}\nlast: {<<: [*more, *base], a: 4, 1: x, '1': y}\n"
    values = load_yaml(text)
    assert values == yaml.safe_load(text)
    assert values["last"] == {"a": 4, "b": 3, 1: "x", "1": "y"}
