import pytest

from tests.flows.mini import mini_config, run_config, write_corpus


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """(store, record) of a mini run of the real stages."""
    folder = tmp_path_factory.mktemp("report")
    session, _ = run_config(f"{folder}/store", mini_config(write_corpus(folder / "texts")))
    return f"{folder}/store", session.record
