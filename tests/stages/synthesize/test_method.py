"""The seam: what a method may return, and how it is built."""

import pytest
from pydantic import TypeAdapter, ValidationError

from data_schemas.config import key_values
from data_schemas.errors import EnvironmentProblem, NotFoundError
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


def test_every_kind_has_a_method_and_its_settings_reach_it(tmp_path, monkeypatch):
    monkeypatch.delenv("A_KEY", raising=False)
    with pytest.raises(EnvironmentProblem, match="A_KEY, which holds the endpoint's key, is not set"):
        build_method(CONFIG.validate_python({"kind": "endpoint", "model": "m", "key_variable": "A_KEY"}))
    monkeypatch.setenv("A_KEY", "secret")
    settings = CONFIG.validate_python({"kind": "endpoint", "model": "m", "key_variable": "A_KEY", "model_version": "3"})
    method = build_method(settings)
    assert (method.name, method.engine, method.engine_version) == ("rephrasing", "endpoint m", "1 (3)")
    assert not {"url", "key_variable", "tries", "timeout_seconds", "concurrency"} & set(key_values(settings))
    with pytest.raises(NotFoundError, match="holds no model"):
        build_method(CONFIG.validate_python({"kind": "local_models", "there": str(tmp_path), "back": str(tmp_path)}))
    with pytest.raises(NotFoundError, match="no-such-run"):
        build_method(CONFIG.validate_python({"kind": "checkpoint", "run": "no-such-run"}), str(tmp_path))
    with pytest.raises(EnvironmentProblem, match="apt-get install wordnet-base"):
        build_method(CONFIG.validate_python({"kind": "synonyms", "folder": str(tmp_path)}))
