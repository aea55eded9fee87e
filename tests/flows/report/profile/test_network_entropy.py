import pytest

from flows.report.profile.network_entropy import with_networks
from flows.report.profile.page import page
from tests.flows.report.profile.tables import examples, measure, measures


def score(model, metric, value, low=None, high=None):
    return {"task": "held-out text", "model": model, "metric": metric, "value": value, "low": low, "high": high}


def test_bits_per_word_of_a_network_are_its_bits_per_byte_times_the_bytes_of_a_word():
    table = measures(
        row
        for name, size in (("all", 7.0), ("split=held_out", 6.0), ("genre=news", 5.0), ("genre=empty", 0.0))
        for row in (
            measure(name, "length.bytes.total", 10 * size, "bytes"),
            measure(name, "length.words.total", 10 if size else 0, "words"),
            measure(name, "documents", 1, "documents"),
        )
    )
    scores = [
        score("pretrained", "bits per byte", 1.5, 1.4, 1.6), score("compressed", "bits per byte", 2.0),
        score("xz", "bits per byte", 3.0), score("pretrained", "bits per byte, news", 1.2),
        score("pretrained", "bits per byte, empty", 1.2), score("pretrained", "bits per byte, gone", 1.2),
        score("pretrained", "expected calibration error", 0.1), score("compressed", "bits per byte, news", None),
    ]  # fmt: skip
    joined = with_networks(table, scores)
    rows = {(row["slice"], row["measure"]): row for row in joined.to_pylist() if "network" in row["measure"]}
    words = {place: row["value"] for place, row in rows.items() if row["unit"] == "bits/word"}
    assert words == {
        ("all", "entropy.network.pretrained"): pytest.approx(9.0),
        ("all", "entropy.network.compressed"): pytest.approx(12.0),
        ("genre=news", "entropy.network.pretrained"): pytest.approx(6.0),
    }
    whole = rows["all", "entropy.network.pretrained"]
    assert (whole["low"], whole["high"]) == (pytest.approx(8.4), pytest.approx(9.6))
    assert rows["all", "entropy.network.pretrained.bytes"]["value"] == 1.5
    assert joined.schema.equals(table.schema) and with_networks(table, []).equals(table)
    assert "network" in page(joined, examples(), "corpus")
