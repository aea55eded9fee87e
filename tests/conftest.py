"""Fixtures that several folders share."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from infra.sandbox import SandboxUnavailable, check_sandbox
from infra.workers.ray_session import close_ray

# Before torch is imported. Operations of tests are too small for threads, and threads that wait spin: beside another
# busy process the tests of `modeling` took 466 s with two threads and 49 s with one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The first call of a compiled function compiles it, and machines are busy; no test asserts a time. Every run of the
# tests tries the same examples; `pytest --hypothesis-profile=search` looks for new ones.
UNTIMED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("search", **UNTIMED)
settings.register_profile("headrace", derandomize=True, **UNTIMED)
settings.load_profile("headrace")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def shared_data() -> Path:
    """Real corpora and benchmark files beside the checkout; tests that use them skip where there are none."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no shared data beside the checkout")
    return SHARED_DATA


@pytest.fixture(scope="session")
def sandbox() -> None:
    """Tests that run model-written code skip where the sandbox cannot be had, unless CI_NEEDS_SANDBOX is set."""
    try:
        check_sandbox()
    except SandboxUnavailable as refusal:
        if os.environ.get("CI_NEEDS_SANDBOX"):
            raise
        pytest.skip(str(refusal))


@pytest.fixture(scope="module", autouse=True)
def own_ray() -> Iterator[None]:
    """Each module starts its own Ray: workers have the environment of the process at the time of its start."""
    yield
    close_ray()


@pytest.fixture(params=["file", "memory"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty store on each kind of filesystem."""
    return f"memory://store-{uuid.uuid4().hex}" if request.param == "memory" else f"file://{tmp_path}/store"
