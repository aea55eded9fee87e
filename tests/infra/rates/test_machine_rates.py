import json
import os
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.rates import machine as machine_module
from infra.rates import machine_rates as module
from infra.rates.machine import key_of, machine
from infra.rates.machine_rates import MachineRates, keep, machine_rates, rates_file
from infra.rates.rates import Rate


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def rates(**changes) -> MachineRates:
    fields = {
        "key": machine_module.machine_key(), "machine": machine(), "measured": datetime(2026, 11, 30, tzinfo=UTC),
        "products": {"fp32": 2e11, "bf16": 1e12}, "memory": 1e10,
        "rates": (Rate(kind="clean", amount=1e6, per_second=4e6),),
    }  # fmt: skip
    return MachineRates(**(fields | changes))


def test_what_is_kept_is_read_again():
    assert machine_rates() is None
    assert keep(rates()) == rates_file()
    assert machine_rates() == rates()
    assert [path.name for path in rates_file().parent.iterdir()] == [rates_file().name]


def test_measuring_fills_the_file_once(monkeypatch):
    measured = []
    monkeypatch.setattr(module, "measure_products", lambda: measured.append(1) or {"fp32": 1.0, "bf16": 2.0})
    monkeypatch.setattr(module, "measure_memory", lambda: 3.0)
    first = machine_rates(measure=True)
    assert first == machine_rates(measure=True) == machine_rates()
    assert (first.products["bf16"], first.memory, measured) == (2.0, 3.0, [1])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        json.dumps({"version": 99}).encode(),
        rates().model_dump_json().replace("2e11", "NaN").replace("200000000000.0", "-1e400").encode(),
        rates().model_dump_json().replace("4000000.0", "0").encode(),
    ],
    ids=["empty", "cut off", "no text", "no object", "later version", "no number", "rate of 0"],
)
def test_a_damaged_file_is_measured_again_with_a_line(content, monkeypatch, caplog):
    rates_file().parent.mkdir(parents=True)
    rates_file().write_bytes(content)
    assert machine_rates() is None
    assert caplog.text.count("cannot be used") == 1
    monkeypatch.setattr(module, "measure_products", lambda: {"fp32": 1.0})
    monkeypatch.setattr(module, "measure_memory", lambda: 3.0)
    assert machine_rates(measure=True).memory == 3.0
    assert machine_rates().memory == 3.0


def test_rates_of_another_machine_are_not_this_machines(caplog):
    keep(rates(key="0" * 16))
    assert machine_rates() is None
    assert "another machine" in caplog.text


def test_a_folder_that_cannot_be_written_to_is_done_without(monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(module, "measure_products", lambda: {"fp32": 1.0})
    monkeypatch.setattr(module, "measure_memory", lambda: 3.0)
    assert keep(rates()) is None
    assert machine_rates() is None
    assert machine_rates(measure=True).memory == 3.0
    assert "not kept" in caplog.text
    monkeypatch.setattr(module, "measure_memory", lambda: 4.0)
    assert machine_rates(measure=True).memory == 3.0, "measured once"


def test_a_full_disk_leaves_the_earlier_file(monkeypatch):
    keep(rates())

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert keep(rates(memory=5.0)) is None
    assert machine_rates() == rates()
    assert len(list(rates_file().parent.iterdir())) == 1


def test_another_processor_quota_or_torch_is_another_machine():
    keys = {key_of(machine() | change) for change in ({}, {"cores": 96}, {"quota": 0.5}, {"torch": "9.9"})}
    assert len(keys) == 4


def test_other_instructions_or_threads_are_another_machine(monkeypatch):
    for name in machine_module.SETTINGS:
        monkeypatch.delenv(name, raising=False)
    described = machine.__wrapped__()
    assert "settings" not in described, "keys of files and records from before stay"
    for name in ("ATEN_CPU_CAPABILITY", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
        assert key_of(machine.__wrapped__()) != key_of(described)
        monkeypatch.setenv(name, "")
        assert machine.__wrapped__() == described


def test_a_quota_below_the_threads_limits_the_measured_rate(monkeypatch):
    import torch

    from infra.rates import products

    monkeypatch.setattr(products, "_product_rate", lambda dtype: 8e9)
    for quota, rate in ((None, 8e9), (torch.get_num_threads() / 4, 2e9), (999.0, 8e9)):
        monkeypatch.setattr(products, "cpu_quota", lambda quota=quota: quota)
        assert products.measure_products()["fp32"] == rate


def test_gpus_are_those_of_the_driver(monkeypatch, tmp_path):
    monkeypatch.setattr(machine_module, "GPU_INFORMATION", str(tmp_path))
    assert machine_module._gpu_models() == []
    (tmp_path / "0000:01:00.0").mkdir()
    (tmp_path / "0000:01:00.0" / "information").write_text("Model: \t\t NVIDIA H200\nIRQ: 7\n")
    assert machine_module._gpu_models() == ["NVIDIA H200"]


@given(kind=st.text(max_size=9), amount=st.floats(1e-9, 1e25), rate=st.floats(1e-9, 1e25))
def test_every_rate_survives_the_file(kind, amount, rate):
    kept = rates(rates=(Rate(kind=kind, amount=amount, per_second=rate),))
    assert MachineRates.model_validate_json(kept.model_dump_json()) == kept


def test_products_and_memory_are_measured_within_a_budget(monkeypatch):
    from infra.rates import products

    monkeypatch.setattr(products, "BUDGET_SECONDS", 0.0)
    monkeypatch.setattr(products, "LAST_SIZE", 256)
    monkeypatch.setattr(products, "COPIED_BYTES", 2**20)
    measured = products.measure_products()
    assert measured.keys() == {"fp32", "bf16"}
    assert all(value > 1e6 for value in [*measured.values(), products.measure_memory()])


def test_the_file_is_read_without_torch():
    script = "import sys, infra.rates.machine_rates as rates; rates.machine_rates(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"
