import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stages.synthesize.config import SynthesizeConfig, labels
from stages.synthesize.shares import Quota, targets


def test_shares_are_rounded_by_largest_remainder():
    assert targets(10, [Fraction("0.25"), Fraction("0.25"), Fraction("0.5")]) == [3, 2, 5]
    assert targets(7, [Fraction("0.1"), Fraction("0.5"), Fraction("0.05")]) == [1, 4, 0]
    assert targets(0, [Fraction(1)]) == [0] and targets(9, [Fraction(0), Fraction(1)]) == [0, 9]
    assert targets(1000, [Fraction("0.1")] * 3) == [100, 100, 100], "0.1 is a tenth, not its nearest double"


@given(st.integers(0, 10**6), st.lists(st.fractions(0, 1), min_size=1, max_size=6))
def test_targets_are_within_one_of_their_share_and_sum_to_the_rounded_sum(documents, shares):
    numbers = targets(documents, shares)
    assert all(abs(number - documents * share) < 1 for number, share in zip(numbers, shares, strict=True))
    assert sum(numbers) == math.floor(documents * sum(shares) + Fraction(1, 2))


def test_further_parents_make_up_for_refused_texts():
    quota = Quota("news", 0, 100, 10, np.arange(100))
    assert quota.next_parents().tolist() == list(range(10))
    quota.made, quota.accepted, quota.again = 9, 4, [7]
    assert quota.next_parents().tolist() == [7, *range(10, 23)], "6 missing at 4 of 9"
    quota.accepted = 10
    assert len(quota.next_parents()) == 0


def test_a_genre_may_have_its_own_shares_by_the_names_of_the_methods():
    values = {"methods": [{"kind": "swap", "share": 0.2}, {"kind": "swap", "share": 0.1, "alpha": 0.3}]}
    config = SynthesizeConfig.model_validate({**values, "shares": {"news": {"swap-2": 0}}})
    assert labels(config.methods) == ["swap", "swap-2"]
    assert config.shares_of("news") == [Fraction(1, 5), 0] and config.shares_of("wiki")[1] == Fraction(1, 10)
    with pytest.raises(ValidationError, match=r"shares.news names 'synonyms'; the methods are swap, swap-2"):
        SynthesizeConfig.model_validate({**values, "shares": {"news": {"synonyms": 0.1}}})
    with pytest.raises(
        ValidationError, match=r"gates.exempt names 'swap-2'; the kinds of methods are swap, deletion, "
    ):
        SynthesizeConfig.model_validate({**values, "gates": {"exempt": {"swap-2": ["changed_name"]}}})


def test_the_method_whose_parents_are_repeated_may_be_of_another_run_but_not_of_no_kind():
    for name in ("keyboard", "sentence_shuffling", "swap-12"):
        SynthesizeConfig.model_validate({"methods": [{"kind": "repetition", "parents_of": name}]})
    for name in ("keybord", "swap-", "swap-second"):
        with pytest.raises(ValidationError, match=f"parents_of names '{name}'; accepted is a kind of method, .*swap"):
            SynthesizeConfig.model_validate({"methods": [{"kind": "repetition", "parents_of": name}]})
