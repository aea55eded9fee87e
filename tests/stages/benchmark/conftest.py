"""Fixtures of the benchmark stage's tests."""

import pytest


@pytest.fixture(params=[False, True], ids=["fp32", "bf16"])
def fast_bf16(request, monkeypatch) -> bool:
    """Hardware with and without fast bfloat16, which decides the default precision of fine-tuning."""
    monkeypatch.setattr("infra.hardware.has_fast_bf16", lambda: request.param)
    return request.param
