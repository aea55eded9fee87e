"""Values of the standard library between the boxes."""

import json
from array import array
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from infra.sandbox.inside.wire import decode, encode


def no_reference(value):
    raise AssertionError(value)


def there_and_back(value):
    return decode(json.loads(json.dumps(encode(value, no_reference))), no_reference)


STANDARD = [
    Decimal("1.10"), Decimal("-0"), Decimal("sNaN"), Decimal("1E+999999"), Decimal(7**9000), Fraction(-7, 3),
    date(2024, 2, 29), datetime(2024, 2, 29, 23, 59, 59, 999_999, fold=1),
    datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=timezone(-timedelta(hours=3, seconds=1))),
    time(1, 2, 3, 4), time(1, tzinfo=UTC), timedelta(days=-1, microseconds=1), UTC,
    timezone(timedelta(minutes=-30, microseconds=7)), UUID(int=5), deque([1, (2,)], maxlen=3), deque(),
    Counter("aab"), OrderedDict(b=1, a=Decimal(2)), defaultdict(list, {"a": [1]}), defaultdict(None, {1: 2}),
    defaultdict(Counter), array("d", [1.5, -0.0]), array("i"), {1: 2}.keys(), {1: [2]}.items(), Decimal, datetime,
    [{Decimal(1): (date(1, 1, 1), Fraction(1, 2))}],
]  # fmt: skip


@pytest.mark.parametrize("value", STANDARD, ids=lambda value: type(value).__name__)
def test_values_of_the_standard_library_arrive_with_their_class(value):
    arrived = there_and_back(value)
    assert type(arrived) is type(value)
    assert repr(arrived) == repr(value)


def test_large_fractions_order_default_factories_and_views_arrive():
    assert there_and_back(Fraction(7**9000, 2)) == Fraction(7**9000, 2)
    assert there_and_back(OrderedDict(a=1, b=2)) != OrderedDict(b=2, a=1)
    arrived = there_and_back(defaultdict(int))
    assert arrived["new"] == 0
    assert list(there_and_back({1: "a", 2: "b"}.values())) == ["a", "b"]
    zoned = datetime(2024, 7, 1, 12, tzinfo=ZoneInfo("UTC"))
    assert there_and_back(zoned) == zoned


def test_named_tuples_keep_their_names_without_code_being_made():
    value = namedtuple("Point", "x y")(1, Decimal(2))
    arrived = there_and_back(value)
    assert arrived == value == (1, 2)
    assert (arrived.x, arrived.y, arrived._fields, arrived._asdict()) == (1, 2, ("x", "y"), {"x": 1, "y": 2})
    assert repr(arrived) == repr(value)
    for name, fields in [("P", ["__eq__"]), ("P", ["x", "x"]), ("P", ["x=print(1)"]), ("P", ["class"]), ("P q", ["x"])]:
        with pytest.raises(ValueError, match="is no named tuple"):
            decode(["namedtuple", name, fields, [0] * len(fields)], no_reference)
    with pytest.raises(ValueError, match="2 items for the fields"):
        decode(["namedtuple", "P", ["x"], [1, 2]], no_reference)


@pytest.mark.parametrize(
    "data",
    [
        ["Popen", "ls"], ["system", "ls"], ["standard type", "Popen"], ["standard type", "dict_keys"],
        ["type", "object"],
        ["Fraction", "1", "0"], ["array", "u", [["list", []]]], ["deque", 5, None], ["defaultdict", [], 5],
        ["datetime", "now", 0], ["date", "2024-01-01", 1], ["timedelta", 10**30, 0, 0], ["UUID", "x"], ["Decimal", "x"],
        ["Decimal", ["Decimal", "1"]], ["dict_items", [1]], ["Counter"], [["list", []]], [],
    ],
)  # fmt: skip
def test_data_that_no_value_has_is_refused(data):
    with pytest.raises(Exception):  # noqa: B017
        decode(data, no_reference)
