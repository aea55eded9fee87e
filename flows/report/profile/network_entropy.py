"""Entropy of a corpus by the networks that a run trained on it, beside that of its counts.

- `with_networks`: the profile's figures and those of the networks
"""

from collections.abc import Sequence

import pyarrow as pa

from data_schemas.tables import MEASURES
from flows.report.benchmark_scores import MODELS, Score
from flows.report.profile.figures import ALL

METRIC = "bits per byte"
BYTES, WORDS = "length.bytes.total", "length.words.total"


def with_networks(measures: pa.Table, scores: Sequence[Score]) -> pa.Table:
    """Figures with `entropy.network.MODEL` in bits per word and `entropy.network.MODEL.bytes` in bits per byte.

    They are cross-entropies of held-out text that the benchmark scored, upper bounds of the entropy of the language.
    Bits per word are bits per byte times the bytes per word of the held-out text, spaces and punctuation included; of a
    genre, the bytes per word of the genre.

    Args:
        measures: table with the schema `MEASURES`.
        scores: rows of the score table of the same run.
    """
    lengths = _bytes_per_word(measures)
    rows = []
    for score in scores:
        metric, _, genre = score["metric"].partition(", ")
        slice_name = f"genre={genre}" if genre else ALL
        per_word = lengths.get("split=held_out" if slice_name == ALL else slice_name, lengths.get(slice_name))
        if metric != METRIC or score["model"] not in MODELS or score["value"] is None or per_word is None:
            continue
        name = f"entropy.network.{score['model']}"
        for measure, unit, factor in ((name, "bits/word", per_word), (f"{name}.bytes", "bits/byte", 1.0)):
            value, low, high = (None if score[end] is None else score[end] * factor for end in ("value", "low", "high"))
            rows.append({"slice": slice_name, "measure": measure, "item": None, "value": value, "low": low,
                         "high": high, "unit": unit, "exact": False})  # fmt: skip
    return pa.concat_tables([measures.cast(MEASURES), pa.Table.from_pylist(rows, MEASURES)])


def _bytes_per_word(measures: pa.Table) -> dict[str, float]:
    """Slice -> bytes per word; without slices that have no words."""
    totals: dict[str, dict[str, float]] = {}
    for row in measures.select(["slice", "measure", "value"]).to_pylist():
        if row["measure"] in (BYTES, WORDS):
            totals.setdefault(row["slice"], {})[row["measure"]] = row["value"]
    return {name: total[BYTES] / total[WORDS] for name, total in totals.items() if total.get(WORDS) and BYTES in total}
