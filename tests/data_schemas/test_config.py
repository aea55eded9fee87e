from typing import Annotated, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from data_schemas.config import FrozenConfig, StageConfig, canonical_json, runtime_field, with_current_names
from data_schemas.errors import ConfigError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


class Example(StageConfig):
    size: int = Field(3, gt=0, description="a size")
    speed: int = runtime_field(1, description="changes no bytes")


class Several(StageConfig):
    parts: tuple[Example, ...] = Field((), description="configs in a list")
    named: dict[str, Example] = Field({}, description="configs by name")
    plain: dict[str, int] = Field({}, description="no config")


@given(st.dictionaries(st.text(), json_values))
def test_canonical_json_does_not_depend_on_the_order_of_keys(value):
    assert canonical_json(value) == canonical_json(dict(reversed(value.items())))


@pytest.mark.parametrize("value", [{"a": {1, 2}}, {"a": [float("nan")]}, {"a": object()}, {1: "a"}, {"a": b"bytes"}])
def test_values_without_a_stable_encoding_are_refused(value):
    with pytest.raises(ConfigError, match="cache key"):
        canonical_json(value)


def test_runtime_fields_are_in_no_key():
    assert Example(size=4, speed=9).key_fields() == {"size": 4}
    nested = Several(parts=({"size": 2, "speed": 3},), named={"a": {"speed": 5}}, plain={"speed": 7})
    assert nested.key_fields() == {"parts": [{"size": 2}], "named": {"a": {"size": 3}}, "plain": {"speed": 7}}


def test_configs_are_closed_and_immutable():
    with pytest.raises(ValidationError):
        Example(sise=4)  # type: ignore[call-arg]
    with pytest.raises(ValidationError):
        Example().size = 5  # type: ignore[misc]


class Small(FrozenConfig):
    renamed_fields: ClassVar = {"colour": "color"}
    kind: Literal["small"] = "small"
    color: str = Field("red", description="a color")


class Large(FrozenConfig):
    kind: Literal["large"] = "large"
    inner: Small | None = Field(None, description="a part")


class Nested(StageConfig):
    renamed_fields: ClassVar = {"centre": "center"}
    center: int = Field(0, description="a number")
    items: tuple[Annotated[Small | Large, Field(discriminator="kind")], ...] = Field((), description="parts")
    by_name: dict[str, Small] = Field({}, description="parts by name")


def test_recorded_configs_get_the_names_of_today_at_every_depth():
    recorded = {
        "centre": 1,
        "items": [{"kind": "small", "colour": "blue"}, {"kind": "large", "inner": {"colour": "green"}}],
        "by_name": {"colour": {"colour": "gray"}},
        "gone since": True,
    }
    assert with_current_names(Nested, recorded) == {
        "center": 1,
        "items": [{"kind": "small", "color": "blue"}, {"kind": "large", "inner": {"color": "green"}}],
        "by_name": {"colour": {"color": "gray"}},
        "gone since": True,
    }
    assert recorded["centre"] == 1, "the record is left alone"


def test_old_names_are_refused_with_the_new_one():
    with pytest.raises(ValidationError, match="colour is called color now"):
        Nested.model_validate({"items": [{"kind": "small", "colour": "blue"}]})
