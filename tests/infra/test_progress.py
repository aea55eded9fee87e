import json
from unittest.mock import Mock, call

from infra.progress import KEPT, RelayedListener, relayed
from infra.store.filesystem import Folder


def test_what_a_worker_tells_is_heard_once_and_in_order_also_after_it_was_started_again(tmp_path):
    folder, driver = Folder(str(tmp_path)), Mock()
    RelayedListener(folder).logged("of an earlier run")
    with relayed(folder, driver):
        RelayedListener(folder).advanced("recovery", 100, 300, "step 100")
        again = RelayedListener(folder)
        again.logged("continues")
        again.advanced("recovery", 200, 300, "step 200")
    assert driver.mock_calls == [
        call.advanced("recovery", 100, 300, "step 100"),
        call.logged("continues"),
        call.advanced("recovery", 200, 300, "step 200"),
    ]
    assert folder.names() == []


def test_the_file_holds_the_newest_calls_alone(tmp_path):
    folder, driver = Folder(str(tmp_path)), Mock()
    with relayed(folder, driver):
        worker = RelayedListener(folder)
        for number in range(3 * KEPT):
            worker.logged(str(number))
        assert len(json.loads(folder.read(folder.names()[0]))) == KEPT
    assert driver.mock_calls[-1] == call.logged(str(3 * KEPT - 1))
