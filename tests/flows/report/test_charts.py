import json
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest

from flows.report.bars import Quantity, bars
from flows.report.charts import MAX_POINTS, Curve, curve_chart, frontier_chart, moving_average, thinned
from flows.report.training_curves import _last_sample


def test_a_moving_average_keeps_constants_and_the_start_and_removes_noise():
    assert moving_average(np.full(30, 2.5)).tolist() == [2.5] * 30
    steep = np.linspace(8, 3, 100)
    assert moving_average(steep)[:50] == pytest.approx(steep[:50])
    noise = np.tile([1.0, -1.0], 200)
    assert np.abs(moving_average(noise)[20:]).max() < 0.2
    assert moving_average(np.array([4.0])).tolist() == [4.0]


def test_thinning_keeps_few_values_and_the_mean_of_many():
    assert thinned([1, 2, 3]).tolist() == [1, 2, 3]
    many = np.arange(1000.0)
    assert len(thinned(many)) == MAX_POINTS
    assert thinned(np.tile(many, 4)).mean() == pytest.approx(many.mean())


def test_bars_share_one_scale_that_holds_the_intervals():
    first, second = bars([Quantity("a", 1.0, "1", low=0.5, high=2.0), Quantity("b", 0.5, "0.5")])
    assert (first.length, first.interval) == (50, (25, 75))
    assert (second.length, second.interval) == (25, None)
    assert bars([Quantity("nothing", 0, "0")])[0].length == 0


def test_charts_leave_the_settings_of_matplotlib_alone_and_escape_names():
    before = dict(matplotlib.rcParams, backend="")
    svg = frontier_chart(["<b>$x$</b>", "y"], [100, 100], [1.5, 1.5], "title")
    assert dict(matplotlib.rcParams, backend="") == before
    assert "&lt;b&gt;$x$&lt;/b&gt;" in svg


@pytest.mark.parametrize("values", [[3.0], [3.0, float("nan")], [0.0, 0.0]])
def test_curves_of_poor_values_are_drawn(values):
    tokens = list(range(1, len(values) + 1))
    assert "<svg" in curve_chart(Curve("t", tokens, values, smoothed=True, from_zero=True))


def test_a_sample_with_another_line_separator_is_one_line():
    """The text of samples is not escaped; U+2028 and U+0085 end lines for `str.splitlines` alone."""
    rows = "".join(json.dumps({"texts": [text]}, ensure_ascii=False) + "\n" for text in ("first", "a\u2028b\u0085c"))
    artifact = SimpleNamespace(paths=lambda _: ["samples.jsonl"], read=lambda _: rows.encode())
    assert _last_sample(artifact) == ["a\u2028b\u0085c"]
