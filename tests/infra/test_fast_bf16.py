"""bfloat16 is taken where it was measured to be clearly faster, on any processor."""

from collections.abc import Iterator

import pytest

from infra import hardware


@pytest.fixture
def products(monkeypatch, tmp_path) -> Iterator[list[dict[str, float]]]:
    """Answers of the measurement, used from the front; the cache folder is empty."""
    answers: list[dict[str, float]] = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("infra.rates.machine_rates.measure_products", lambda: answers.pop(0))
    monkeypatch.setattr("infra.rates.machine_rates.measure_memory", lambda: 1e10)
    hardware.has_fast_bf16.cache_clear()
    yield answers
    hardware.has_fast_bf16.cache_clear()


def processor(monkeypatch: pytest.MonkeyPatch, *flags: str) -> None:
    monkeypatch.setattr(hardware, "device", lambda: {"flags": list(flags), "vendor": "any"})


@pytest.mark.parametrize(
    ("fp32", "bf16", "fast"),
    [(186e9, 425e9, True), (291e9, 1214e9, True), (221e9, 181e9, False), (161e9, 84e9, False), (100e9, 140e9, False)],
)
def test_the_measurement_decides_and_is_made_once(monkeypatch, products, fp32, bf16, fast):
    processor(monkeypatch, "avx512f", "avx512_bf16")
    products.append({"fp32": fp32, "bf16": bf16})
    assert hardware.has_fast_bf16() is fast
    hardware.has_fast_bf16.cache_clear()  # another process finds it in the cache folder
    assert hardware.has_fast_bf16() is fast and not products


def test_a_processor_without_instructions_for_it_is_not_measured(monkeypatch, products):
    processor(monkeypatch, "avx512f")
    assert not hardware.has_fast_bf16()
