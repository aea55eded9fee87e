import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest
import ray

from data_schemas.errors import EnvironmentProblem
from infra.ray_jobs import client
from infra.ray_jobs.client import RayJobs
from infra.ray_jobs.dashboard import ClusterAway

VERSION = json.dumps({"ray_version": ray.__version__})


@contextmanager
def dashboard(*answers: tuple[int, str]) -> Iterator[str]:
    """A server that gives each answer once, and the last one from then on."""
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def without_cluster(monkeypatch):
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ((401, "Unauthorized: Missing authentication token"), "needs a token: set RAY_AUTH_MODE=token"),
        ((403, "Forbidden: Invalid authentication token"), "refuses the token: set RAY_AUTH_MODE=token"),
        ((404, "no such page"), r"answers, but not as the dashboard of a Ray cluster \(status 404\)"),
        ((200, "<html>a proxy</html>"), "answers, but not as the dashboard of a Ray cluster"),
        ((200, '{"ray_version": }'), "answers, but not as the dashboard of a Ray cluster"),
        ((503, "starting"), r"\(status 503\)"),
        ((200, '{"ray_version": "2.9.3"}'), f"has Ray 2.9.3, and here is Ray {ray.__version__}"),
    ],
)
def test_what_answers_but_cannot_be_used_is_refused_in_one_sentence(answer, sentence):
    with dashboard(answer) as url, pytest.raises(EnvironmentProblem, match=sentence) as refusal:
        RayJobs(url)
    assert url in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_address_where_nobody_listens_or_no_address(monkeypatch):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        for form in (f"http://{address}", address, f"http://user:secret@{address}/"):
            with pytest.raises(EnvironmentProblem, match=r"cannot reach the Ray cluster at .*refused") as refusal:
                RayJobs(form)
            assert "secret" not in str(refusal.value)
    with pytest.raises(EnvironmentProblem, match=r"cannot reach .*nowhere\.invalid"):
        RayJobs("http://nowhere.invalid:8265")
    with pytest.raises(EnvironmentProblem, match=r"set execution\.address"):
        RayJobs(None)
    with dashboard((200, VERSION)) as url:  # that of the config counts, whatever Ray's own variables say
        monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
        assert RayJobs(url).address == url


def test_states_that_cannot_be_had_are_errors_and_unknown_jobs_are_none():
    job = {"type": "SUBMISSION", "submission_id": "a", "status": "RUNNING", "entrypoint": "", "job_id": "01000000"}
    with dashboard((200, VERSION), (404, "Job a does not exist"), (500, "boom\nat"), (200, json.dumps(job))) as url:
        jobs = RayJobs(url)
        assert jobs.state("a") is None
        with pytest.raises(EnvironmentProblem, match="answers: Request failed with status code 500: boom"):
            jobs.state("a")
        state = jobs.state("a")
        assert (state.status, state.driver, state.has_ended) == ("RUNNING", "01000000", False)


def test_a_cluster_that_knows_the_id_or_has_no_agent_yet(monkeypatch):
    waits = []
    monkeypatch.setattr("infra.ray_jobs.client.time.sleep", waits.append)
    taken = (500, "ValueError: Job with submission_id a already exists. Please use a different submission_id.")
    starting = (500, "No available agent to submit job, please try again later..")
    done = (200, json.dumps({"job_id": "a", "submission_id": "a"}))
    with dashboard((200, VERSION), taken, starting, starting, done, starting) as url:
        jobs = RayJobs(url)
        assert jobs.submit("a", "true", {}, {}) is False
        assert jobs.submit("b", "true", {}, {}) is True
        assert waits == [1.0, 2.0]
        with pytest.raises(EnvironmentProblem, match="No available agent"):
            jobs.submit("c", "true", {}, {})


def test_a_cluster_that_went_away_is_waited_for(monkeypatch):
    lines: list[str] = []
    with dashboard((200, VERSION)) as url:
        jobs = RayJobs(url)
        jobs.wait_until_back(pytest.fail)
    slept: list[float] = []
    monkeypatch.setattr(client, "time", SimpleNamespace(monotonic=lambda: sum(slept), sleep=slept.append))
    with pytest.raises(ClusterAway, match="cannot reach the Ray cluster"):
        jobs.wait_until_back(lines.append, 10.0)
    assert len(lines) == 1 and lines[0].endswith("waits up to 10 s for it")
    assert slept == [client.RETURN_POLL_SECONDS] * 5
    with dashboard((401, "Unauthorized: Missing authentication token")) as url:
        jobs._client._address = url
        with pytest.raises(EnvironmentProblem, match="needs a token"):
            jobs.wait_until_back(pytest.fail)
