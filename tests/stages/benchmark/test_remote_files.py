import functools
import http.server
import threading
import zipfile
from typing import ClassVar

import pytest

from data_schemas.errors import EnvironmentProblem, InputDataError
from stages.benchmark import remote_files as remote_data
from stages.benchmark.remote_files import display_path, is_available, local_file, local_folder
from stages.benchmark.task import TaskContext
from stages.benchmark.tasks.glue.prompted import GlueTask
from stages.benchmark.tasks.squad.prompted import SquadTask
from stages.benchmark.tasks.winograd.task import WinogradTask

SQUAD = SquadTask().file
WINOGRAD = WinogradTask().file


class Quiet(http.server.SimpleHTTPRequestHandler):
    requests: ClassVar[list[str]] = []

    def do_GET(self):
        self.requests.append(self.path)
        if "broken" in self.path:
            self.send_error(500)
        else:
            super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def web(tmp_path, monkeypatch):
    """(URL, requested paths) of a server with benchmark files; copies go to a cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(remote_data, "_urls", {})
    monkeypatch.setattr(remote_data, "_absent", set())
    served = tmp_path / "served"
    served.mkdir()
    (served / "dev-v2.0.json").write_bytes(SQUAD.read_bytes())
    (served / "winograd.jsonl").write_bytes(WINOGRAD.read_bytes())
    with zipfile.ZipFile(served / "RTE.zip", "w") as archive:
        archive.write(GlueTask().folder / "RTE" / "dev.tsv", "RTE/dev.tsv")
    monkeypatch.setattr(Quiet, "requests", [])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(served)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", Quiet.requests
    server.shutdown()


def test_files_are_copied_once_and_are_the_same_data(web):
    url, requests = web
    task = SquadTask(path=f"{url}/dev-v2.0.json")
    values = [result.score["value"] for result in task.baselines(TaskContext(0))]
    assert values == [result.score["value"] for result in SquadTask().baselines(TaskContext(0))]
    assert task.fingerprint() == SquadTask().fingerprint() and task.tokens() == SquadTask().tokens()
    assert requests.count("/dev-v2.0.json") == 1
    assert WinogradTask(path=f"{url}/winograd.jsonl").fingerprint() == WinogradTask().fingerprint()


def test_archives_are_read_through_a_chain_and_missing_sets_are_reported(web):
    url, _ = web
    task = GlueTask(path=f"zip://::{url}/RTE.zip", sets=("RTE", "WNLI"))
    rows = {result.score["task"]: result.score for result in task.baselines(TaskContext(0))}
    assert rows["GLUE RTE"]["value"] is not None
    assert rows["GLUE WNLI"]["value"] is None
    assert f"no data at zip://WNLI/dev.tsv::{url}/RTE.zip; get it" in rows["GLUE WNLI"]["note"]


def test_a_failing_server_is_an_error_and_a_missing_file_is_requested_once(web):
    url, requests = web
    with pytest.raises(InputDataError, match=r"/broken\.json cannot be downloaded .*500.*set a local path"):
        SquadTask(path=f"{url}/broken.json").fingerprint()
    missing = local_file(f"{url}/none.json")
    assert not is_available(missing) and not is_available(missing) and requests.count("/none.json") == 1
    assert display_path(missing) == f"{url}/none.json" and display_path(local_folder("a/b")) == "a/b"


def test_without_a_home_a_url_is_refused_with_what_helps(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pathlib.Path.home", raising_no_home)
    with pytest.raises(EnvironmentProblem, match=r"https://host/data cannot be downloaded: .* set XDG_CACHE_HOME"):
        local_folder("https://host/data")
    assert local_folder("data").name == "data"


def raising_no_home():
    raise RuntimeError("Could not determine home directory.")
