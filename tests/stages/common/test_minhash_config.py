import pytest
from pydantic import ValidationError

from stages.common.minhash_config import Banding, MinHashConfig
from stages.dedup.config import SurvivorConfig


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.7, 0.8, 0.9, 1.0])
def test_chosen_bands_find_pairs_at_the_threshold_with_as_many_rows_as_they_can(similarity):
    bands, rows = banding = MinHashConfig(similarity=similarity).banding
    assert bands * rows <= 128
    assert banding.probability(similarity) >= 0.99
    assert rows == 128 or Banding(128 // (rows + 1), rows + 1).probability(similarity) < 0.99


def test_without_verification_the_bands_are_datasketchs():
    from datasketch import MinHashLSH

    for similarity in (0.5, 0.7, 0.9):
        theirs, ours = MinHashLSH(similarity, 128), MinHashConfig(similarity=similarity, verify="none").banding
        assert (theirs.b, theirs.r) == ours


def test_configured_bands_are_used_if_they_fit():
    assert MinHashConfig(bands=16, rows=8).banding == (16, 8)
    with pytest.raises(ValidationError, match="16 x 9 = 144, more than the 128"):
        MinHashConfig(bands=16, rows=9)
    with pytest.raises(ValidationError, match="set both or neither"):
        MinHashConfig(bands=16)


def test_criteria_are_distinct():
    with pytest.raises(ValidationError, match="has duplicates"):
        SurvivorConfig(order=("length", "length"))
