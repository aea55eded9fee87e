import numpy as np
import pytest

from stages.clean.rules import badwords


def share(text: str) -> float:
    return badwords.share(np.frombuffer(text.encode(), dtype=np.uint8))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("What the hell, he said.", 1 / 5),
        ("HELL", 1),
        ("hello shell", 0),
        ("God may kill the fat miller on a slope", 0),
        ("", 0),
        ("...", 0),
    ],
)
def test_share_of_listed_words(text: str, wanted: float) -> None:
    assert share(text) == pytest.approx(wanted)
