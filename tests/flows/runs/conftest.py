import shutil

import pytest

from tests.flows.mini import NAMES, mini_config, run_config, write_corpus


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory):
    """(folder of the store, corpus path, run id) of a finished run."""
    folder = tmp_path_factory.mktemp("whole_run")
    path = write_corpus(folder / "texts")
    session, diary = run_config(f"{folder}/store", mini_config(path))
    assert diary.actions == dict.fromkeys(NAMES, "run")
    return folder / "store", path, session.run_id


@pytest.fixture(scope="module")
def finished(whole_run, tmp_path_factory):
    """(store, corpus path, run id) of a finished run; tests add runs to the store but change no artifact."""
    store, path, run_id = whole_run
    return str(shutil.copytree(store, tmp_path_factory.mktemp("finished") / "store")), path, run_id
