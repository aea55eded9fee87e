import pytest

from data_schemas.errors import EnvironmentProblem
from infra.ray_jobs import cancel, following
from infra.ray_jobs.cancel import stop_jobs
from infra.ray_jobs.client import JobState
from infra.ray_jobs.dashboard import ClusterAway
from infra.ray_jobs.following import Pulse, follow
from infra.ray_jobs.logs import LogReader
from infra.store.filesystem import Folder


class Clock:
    """Time that passes only in `sleep`."""

    def __init__(self, events):
        self.now, self.events = 0.0, events

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        for event in self.events.pop(round(self.now), ()):
            event()


class Cluster:
    """Jobs whose state is what `answer` says, or raises."""

    address = "http://cluster"

    def __init__(self, answer="RUNNING"):
        self.answer, self.held, self.stops, self.released = answer, [], [], []

    def state(self, submission_id):
        if isinstance(self.answer, Exception):
            raise self.answer
        metadata = {"headrace_run": "r", "headrace_python": "python3.12"}
        return None if self.answer is None else JobState(submission_id, self.answer, "why", "07", metadata)

    def all(self):
        return [self.state("job"), JobState("other", "RUNNING", metadata={"headrace_run": "other"})]

    def stop(self, submission_id):
        self.stops.append(submission_id)

    def release(self, submission_id, python):
        self.released.append((submission_id, python))

    def held_by(self, driver):
        return self.held.pop(0) if self.held else []


def followed(tmp_path, monkeypatch, cluster, events, log=None):
    clock, lines = Clock(events), []
    monkeypatch.setattr(following, "time", clock)
    folder = Folder(str(tmp_path))
    end = follow(
        cluster,
        "job",
        log or LogReader(folder, "r"),
        Pulse(folder.child("r.claims"), 2),
        lines.append,
        poll_seconds=1.0,
    )
    return end, lines, clock.now


def test_a_dashboard_that_is_away_ends_no_job_whose_heart_beats(tmp_path, monkeypatch):
    cluster, folder = Cluster(EnvironmentProblem("cannot reach it")), Folder(str(tmp_path))
    beats = {second: [lambda s=second: folder.write("r.claims/000002.beat", str(s).encode())] for second in range(300)}
    beats[299].append(lambda: setattr(cluster, "answer", "SUCCEEDED"))
    end, lines, seconds = followed(tmp_path, monkeypatch, cluster, beats)
    assert (end.status, seconds) == ("SUCCEEDED", 299)
    assert lines == ["cannot reach it; waits for it, or for the job's heartbeat to stop"]


@pytest.mark.parametrize("answer", [EnvironmentProblem("the head is gone"), None])
def test_a_job_without_dashboard_and_heartbeat_is_lost_after_a_minute(tmp_path, monkeypatch, answer):
    cluster, folder = Cluster("RUNNING"), Folder(str(tmp_path))
    events = {
        second: [lambda s=second: folder.write("r.claims/000002.beat", str(s).encode())] for second in range(1, 20)
    }
    events[5].append(lambda: setattr(cluster, "answer", answer))
    end, _, seconds = followed(tmp_path, monkeypatch, cluster, events)
    assert (end.status, seconds) == ("LOST", 19 + following.UNREACHABLE_SECONDS)


def test_a_job_that_waits_for_room_is_not_lost_and_a_broken_log_ends_nothing(tmp_path, monkeypatch):
    class Broken:
        calls = 0

        def new_text(self):
            self.calls += 1
            if self.calls > 500:
                return iter(["one\ntwo\n"]) if self.calls == 1002 else iter(())
            raise OSError("the stream broke")

    cluster = Cluster("PENDING")
    end, lines, seconds = followed(
        tmp_path, monkeypatch, cluster, {1000: [lambda: setattr(cluster, "answer", "FAILED")]}, Broken()
    )
    assert (end.status, end.message, seconds) == ("FAILED", "why", 1000)
    assert lines == ["job job waits: why", "one", "two"]


def test_a_cancel_waits_until_the_run_holds_nothing(monkeypatch):
    cluster = Cluster("RUNNING")
    cluster.held = [["actor Worker (ALIVE)", "placement group (CREATED)"], ["actor Worker (ALIVE)"]]
    clock = Clock({3: [lambda: setattr(cluster, "answer", "STOPPED")]})
    monkeypatch.setattr(cancel, "time", clock)
    lines: list[str] = []
    assert stop_jobs(cluster, "r", report=lines.append) == ["job"]
    assert set(cluster.stops) == {"job"}, "no job of another run is touched"
    assert lines == ["stops job job"]
    assert not cluster.held


def test_what_does_not_end_is_an_error_that_names_it(monkeypatch):
    cluster = Cluster("STOPPED")
    cluster.held = [["actor Worker (ALIVE)"]] * 10_000
    monkeypatch.setattr(cancel, "time", Clock({}))
    with pytest.raises(
        EnvironmentProblem, match=r"still has: actor Worker \(ALIVE\); try again with: headrace cancel r"
    ):
        stop_jobs(cluster, "r")


def test_a_job_that_waits_for_resources_is_released_as_it_cannot_stop(monkeypatch):
    cluster, clock = Cluster("PENDING"), Clock({8: [lambda: setattr(cluster, "answer", "FAILED")]})
    monkeypatch.setattr(cancel, "time", clock)
    monkeypatch.setattr(cancel, "POLL_SECONDS", 1.0)
    assert stop_jobs(cluster, "r") == ["job"]
    assert (cluster.released, clock.now) == ([("job", "python3.12")], 8), "once, after five seconds"


def test_a_cancel_asks_a_cluster_that_is_away_again_and_one_that_refuses_only_once(monkeypatch):
    cluster = Cluster(ClusterAway("cannot reach it"))
    clock = Clock(
        {20: [lambda: setattr(cluster, "answer", "RUNNING")], 30: [lambda: setattr(cluster, "answer", "STOPPED")]}
    )
    monkeypatch.setattr(cancel, "time", clock)
    monkeypatch.setattr(cancel, "POLL_SECONDS", 1.0)
    assert stop_jobs(cluster, "r") == ["job"]
    assert clock.now == 30
    cluster.answer = ClusterAway("cannot reach it")
    with pytest.raises(ClusterAway):
        stop_jobs(cluster, "r", stop_seconds=50)
    assert clock.now == 80
    cluster.answer = EnvironmentProblem("refuses the token")
    with pytest.raises(EnvironmentProblem, match="token"):
        stop_jobs(cluster, "r")
    assert clock.now == 80


@pytest.mark.parametrize(("starts", "expected"), [(5, []), (40, ["job job waits: why"])])
def test_a_job_that_does_not_start_is_reported_once_with_rays_reason(tmp_path, monkeypatch, starts, expected):
    cluster = Cluster("PENDING")
    events = {starts: [lambda: setattr(cluster, "answer", "RUNNING")],
              90: [lambda: setattr(cluster, "answer", "SUCCEEDED")]}  # fmt: skip
    end, lines, seconds = followed(tmp_path, monkeypatch, cluster, events)
    assert (end.status, lines, seconds) == ("SUCCEEDED", expected, 90)
