import pytest

from tests.flows.mini import write_corpus


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "texts", documents=10)


@pytest.fixture
def store(tmp_path):
    return str(tmp_path / "store")
