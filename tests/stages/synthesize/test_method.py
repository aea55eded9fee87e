"""The seam: what a method may return, and how it is built."""

import pytest
from pydantic import TypeAdapter, ValidationError

from stages.synthesize.method import Failure, TextMethod, checked
from stages.synthesize.methods import build_method
from stages.synthesize.methods_config import MethodConfig

CONFIG = TypeAdapter(MethodConfig)


def test_an_output_is_neither_empty_nor_its_parent():
    assert checked("a", " \n") == Failure("the output is empty")
    assert checked("a", "a") == Failure("nothing was changed")
    assert checked("a", "b") == "b"
    upper = TextMethod("upper", lambda text, seed: text.upper(), version=3)
    assert upper.rewrite(["a", "  ", "A"], [0, 1, 2]) == [
        "A", Failure("the text is empty"), Failure("nothing was changed"),
    ]  # fmt: skip
    assert upper.engine_version.startswith("3 (Unicode ")


def test_methods_are_built_from_their_settings():
    method = build_method(CONFIG.validate_python({"kind": "swap", "share": 0.5}))
    assert (method.name, method.engine) == ("swap", "headrace")
    assert method.rewrite(["left right"], [1]) == ["right left"]


def test_unknown_kinds_are_refused_with_the_list():
    with pytest.raises(ValidationError, match="'swap'"):
        CONFIG.validate_python({"kind": "swop"})
