"""Submissions that break off, and clusters that are gone when a run is cancelled."""

import pytest

from flows.commands.jobs import submit
from flows.jobs.cancelling import cancel
from flows.runs.view import SilentView
from infra.ray_jobs.dashboard import ClusterAway
from infra.ray_jobs.requests import JobFolder, JobResult
from infra.store.runs import RunStore
from tests.flows.jobs.in_process import request, use_cluster


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, "interrupted"), (ClusterAway, "failed")])
def test_a_submission_that_breaks_off_leaves_no_job(corpus, store, monkeypatch, error, status):
    """Ctrl-C, or a lost answer, after the cluster has received the job."""
    cluster = use_cluster(monkeypatch, store)

    def received_and_lost(job):
        cluster.states[job.submission_id] = "RUNNING"
        received.append(job)
        raise error("lost")

    received, cluster.execute = [], received_and_lost
    with pytest.raises(error):
        submit(request(corpus, store, "run"), SilentView())
    [job] = received
    assert cluster.stops == [job.submission_id]
    assert RunStore(store).get("latest").status == status
    assert cluster.executed(job) == "FAILED", "it comes too late to take the run"
    cluster.execute = lambda job: "RUNNING"
    assert submit(request(corpus, store, "run"), SilentView())[0] == job.run_id, "the same command continues the run"


def test_a_cancel_reaches_the_cluster_of_each_attempt(corpus, store, monkeypatch):
    """Each attempt may have a cluster of its own, such as those of KubeRay, which end with it."""
    cluster = use_cluster(monkeypatch, store)
    cluster.execute = lambda job: "RUNNING"
    run_id, first = submit(request(corpus, store, "run"), SilentView())
    jobs, asked = JobFolder(RunStore(store).folder, run_id), []
    second = first.model_copy(update={"number": first.number + 1, "address": "http://gone:1"})
    jobs.write(second)

    def connected(address):
        asked.append(address)
        if address == "http://gone:1":
            raise ClusterAway("cannot reach the Ray cluster at http://gone:1")
        return cluster

    monkeypatch.setattr("flows.jobs.cancelling.RayJobs", connected)
    with pytest.raises(ClusterAway, match="gone:1"):
        cancel(store, run_id, None, lambda line: None)
    assert (asked, cluster.stops) == (["http://gone:1", cluster.address], [first.submission_id])
    jobs.write_result(second.number, JobResult(status="failed"))  # the job there has ended, as it says itself
    assert cancel(store, run_id, None, lambda line: None).status == "interrupted"
