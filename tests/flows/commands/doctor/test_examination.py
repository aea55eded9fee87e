"""`headrace doctor` on machines that lack something; each check is the one that a run makes."""

import json
import socket
import warnings
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from data_schemas.errors import EnvironmentProblem
from flows.cli import app
from flows.commands.doctor import machine, software
from flows.commands.doctor.examination import examine
from flows.commands.doctor.finding import Finding
from infra.sandbox.limits import SandboxUnavailable
from tests.infra.store.s3_server import BUCKET, forget_clients, s3_server


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """Without a cluster or server, with a cache of its own; the slow checks are answered."""
    for name in ("RAY_ADDRESS", "PREFECT_API_URL", "CC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(software, "check_server", lambda: None)
    monkeypatch.setattr(software, "check_sandbox", lambda: None)
    monkeypatch.setattr("infra.rates.machine_rates.measure_products", lambda: {"fp32": 2e11, "bf16": 1e11})
    monkeypatch.setattr("infra.rates.machine_rates.measure_memory", lambda: 2e10)


def doctor(*arguments: str) -> tuple[int, dict[str, Finding], str]:
    """Exit status, findings by name, and all that was printed."""
    result = CliRunner().invoke(app, ["doctor", "--json", *arguments])
    answer = next(line for line in result.stdout.splitlines() if line.startswith("{"))
    findings = [Finding(**finding) for finding in json.loads(answer)["findings"]]
    return result.exit_code, {finding.name: finding for finding in findings}, result.output


def test_a_machine_with_everything_blocks_nothing(tmp_path):
    status, findings, _ = doctor("--store", str(tmp_path / "store"))
    assert status == 0 and not any(finding.blocks for finding in findings.values())
    assert list(findings)[:3] == ["processor", "memory", "shared memory"]
    assert findings["matrix products"].found.startswith("fp32 200 GFLOP/s, bf16 100 GFLOP/s, memory 20 GB/s, measured ")
    assert not (tmp_path / "store").exists(), "nothing is made"


def test_an_unusable_store_cluster_and_server_block_and_are_named(monkeypatch, tmp_path):
    with socket.socket() as taken:  # bound and not listening: nothing else can listen there meanwhile
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        monkeypatch.setattr(software, "check_server", refuse(EnvironmentProblem("the server is away; start it")))
        status, findings, output = doctor("--store", "/proc/store")
    assert status == 2
    assert [name for name, finding in findings.items() if finding.blocks] == ["store", "Ray", "Prefect"]
    assert "store, Ray, Prefect" in output.splitlines()[-1]
    assert findings["Ray"].found.endswith(f"cluster at RAY_ADDRESS={address}")
    assert findings["Prefect"].advice == "the server is away; start it"


def refuse(error: Exception):
    def check(*arguments) -> None:
        raise error

    return check


def test_what_is_missing_for_some_work_only_does_not_block(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("WNSEARCHDIR", str(tmp_path))
    monkeypatch.setattr("stages.common.wordnet.FOLDERS", ())
    monkeypatch.setattr("stages.synthesize.engines.apertium.MODES", tmp_path)
    monkeypatch.setattr(software, "check_sandbox", refuse(SandboxUnavailable("no box: install it")))
    status, findings, _ = doctor()
    assert status == 0
    missing = {name: finding.advice for name, finding in findings.items() if finding.found == "none"}
    assert set(missing) == {"C compiler", "sandbox", "WordNet", "Apertium"}
    assert missing["sandbox"] == "no box: install it"
    assert "bash" in findings["Ray"].advice, "there is nothing in PATH"
    assert all("install" in advice for advice in missing.values())


def test_a_compiler_that_fails_is_reported_in_one_line(monkeypatch):
    monkeypatch.setattr(software, "compiler", lambda: ["gcc"])
    monkeypatch.setattr(software, "library", lambda: warnings.warn("they do not compile", stacklevel=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "do not compile" in software.c_compiler().advice


@pytest.mark.parametrize(
    ("limit", "available", "advised"), [(None, 20e9, False), (2 * 10**9, 2e9, True), (None, 1e9, True)]
)
def test_memory_is_that_of_the_container(monkeypatch, limit, available, advised):
    monkeypatch.setattr(machine, "memory_limit", lambda: limit)
    monkeypatch.setattr(machine, "total_memory", lambda: limit or 24e9)
    monkeypatch.setattr(machine, "available_memory", lambda: available)
    finding = machine.memory()
    assert bool(finding.advice) is advised
    assert ("2 GB (limit of the container)" in finding.found) is (limit is not None)


def test_processors_of_a_container_and_settings_of_libraries_are_shown(monkeypatch):
    monkeypatch.setattr(machine, "cpu_count", lambda: 1)
    monkeypatch.setattr(machine, "cpu_quota", lambda: 0.5)
    assert ", 1 core (limit of the container: 0.5), " in machine.processor().found
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert ", ONEDNN_MAX_CPU_ISA=AVX2" in machine.products().found


def test_a_named_temporary_folder_that_cannot_be_written_to_is_reported(monkeypatch):
    monkeypatch.setenv("TMPDIR", "/proc/sys")
    finding = machine.temporary_room()
    assert finding.found == "/proc/sys" and not finding.blocks and "nothing can be written there" in finding.advice


def test_without_home_and_temporary_folder_the_other_checks_are_made(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "rates_file", refuse(FileNotFoundError("no home")))
    monkeypatch.setattr("infra.rates.machine_rates.rates_file", refuse(FileNotFoundError("no home")))
    monkeypatch.setattr(machine.tempfile, "gettempdir", refuse(FileNotFoundError(2, "No usable temporary directory")))
    status, findings, _ = doctor("--store", str(tmp_path))
    assert status == 2 and [name for name, finding in findings.items() if finding.blocks] == ["temporary files"]
    assert "XDG_CACHE_HOME" in findings["matrix products"].advice
    assert "TMPDIR" in findings["temporary files"].advice


def test_little_room_and_a_full_shared_memory_are_reported(monkeypatch, tmp_path):
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: SimpleNamespace(free=50_000_000))
    monkeypatch.setattr(machine, "SHARED_MEMORY", str(tmp_path))
    assert "--shm-size" in machine.shared_memory().advice
    finding = machine.store_room(str(tmp_path / "not" / "yet"))
    assert finding.found.startswith("50 MB free") and "--store" in finding.advice and not finding.blocks


def test_a_store_on_s3_is_tried_and_shown_without_its_password(monkeypatch):
    pytest.importorskip("s3fs")
    pytest.importorskip("moto")
    with s3_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        forget_clients()
        assert machine.store_room(f"s3://{BUCKET}/store") == Finding("store", f"s3://{BUCKET}/store")
        missing = machine.store_room("s3://no-such-bucket/store")
        assert missing.blocks and "no-such-bucket" in missing.advice
    forget_clients()
    monkeypatch.setattr(machine, "check_access", refuse(EnvironmentProblem("it refuses")))
    assert machine.store_room("s3://key:secret@bucket/store") == Finding(
        "store", "s3://bucket/store", "it refuses", blocks=True
    )


def test_a_check_that_cannot_be_made_is_a_finding(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "cpu_flags", refuse(EnvironmentProblem("no /proc")))
    assert examine(str(tmp_path))[0] == Finding("processor", "unknown", "no /proc")
