"""Tables of a corpus profile, written by hand."""

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from data_schemas.artifact_kinds import PROFILE
from data_schemas.manifest import ArtifactRef
from data_schemas.tables import EXAMPLES, MEASURES
from infra.store.artifacts import Artifact, ArtifactStore
from stages.profile.stage import ProfileStage
from tests import stores

HOSTILE = '"><script>alert("x")</script><img src=x onerror=alert(1)>\u202e'
ARABIC = "مرحبا بالعالم 😀"


def measure(
    slice_name: str,
    name: str,
    value: float,
    unit: str,
    item: str | None = None,
    low: float | None = None,
    high: float | None = None,
    exact: bool = True,
) -> dict[str, Any]:
    """A row of `MEASURES`."""
    return dict(zip(MEASURES.names, (slice_name, name, item, value, low, high, unit, exact), strict=True))


def measures(rows: Iterable[dict[str, Any]] = ()) -> pa.Table:
    """`MEASURES`."""
    return pa.Table.from_pylist(list(rows), MEASURES)


def examples(*rows: tuple[str, str, str | None, str, str]) -> pa.Table:
    """`EXAMPLES`."""
    return pa.Table.from_pylist([dict(zip(EXAMPLES.names, row, strict=True)) for row in rows], EXAMPLES)


def small_corpus() -> list[dict[str, Any]]:
    """1,000 documents of three genres, one of which has a name to break out of the page."""
    rows = [
        measure("all", "documents", 1_000, "documents"),
        measure("all", "length.words.total", 250_000, "words"),
        measure("all", "length.words.histogram", 400, "documents", "128-255"),
        measure("all", "length.words.histogram", 0, "documents", "256-511"),
        measure("all", "length.words.histogram", 600, "documents", "512-1023"),
        measure("all", "length.bytes.total", 1_400_000, "bytes"),
        measure("all", "length.bytes.histogram", 1_000, "documents", "1024-2047"),
        measure("all", "entropy.unigram.plug_in", 10.2, "bits/word"),
        measure("all", "entropy.unigram.miller_madow", 10.22, "bits/word", None, 10.12, 10.32, False),
        measure("all", "entropy.bigram_conditional.plug_in", 5.11, "bits/word"),
        measure("all", "zipf.exponent", 1.0, "", "ranks 1-100", 0.99, 1.01),
        *(measure("all", "zipf.curve", 10_000 / rank, "tokens", f"{rank}") for rank in (1, 10, 100)),
        measure("all", "heaps.exponent", 0.5, "", "100-10000 words"),
        measure("all", "heaps.scale", 20.0, "types", "100-10000 words"),
        measure("all", "genres.confusion", 0.6, "share", "news -> news", 0.55, 0.65, False),
        measure("all", "genres.confusion", 0.2, "share", "news -> web", 0.15, 0.25, False),
        measure("all", "genres.confusion", 0.2, "share", f"{HOSTILE} -> web", 0.15, 0.25, False),
        *(
            measure("all", "entities.PERSON", 90 - n, "mentions", f"Person {n}", 80 - n, 99 - n, False)
            for n in range(40)
        ),
        measure("all", "entities.PERSON", 200, "mentions", HOSTILE, 180, 220, False),
        measure(
            "all", "toxicity.left_out", 1, "analyses", "the list is not installed: pip install 'headrace[toxicity]'"
        ),
        measure("all", "whatever.new_thing", 3, "bits/fish"),
        measure("all", "whatever.by_color", 0.25, "share", ARABIC),
    ]
    for name, documents in (("genre=news", 800), (f"genre={HOSTILE}", 150), (f"source={ARABIC}", 50)):
        rows.append(measure(name, "documents", documents, "documents"))
        rows.append(measure(name, "entropy.unigram.miller_madow", 9.5, "bits/word"))
        rows.append(measure(name, "length.words.total", 123_456_789, "words"))
        rows.append(measure(name, "length.words.quantile", 12_345, "words", "50%"))
        rows.append(measure(name, "compression.zstd3.ratio", 2.56, ""))
        rows.append(measure(name, "readability.flesch_en.mean", 51.23, "points"))
        rows.append(measure(name, "divergence.words.jensen_shannon", 0.1234, "bits/word"))
        rows += [measure(name, f"{share}.share", 0.1234, "share") for share in ("removed", "personal_data")]
    return rows


def profile_artifact(store: str, rows: Iterable[dict[str, Any]], attempt: str = "a-run", **manifest: Any) -> Artifact:
    """A committed profile of a dedup artifact that need not exist."""
    artifacts = ArtifactStore(store)
    out = artifacts.writer("profile", "f" * 64, attempt, PROFILE)
    out.write_table("measures.arrow", measures(rows))
    out.write_table("examples.arrow", examples())
    corpus = ArtifactRef(stage="dedup", key="d" * 64, attempt="a-run", digest="d" * 64)
    manifest = {"stage_version": ProfileStage.version, **manifest}
    return stores.commit(artifacts, out, "profile", "f" * 64, PROFILE, inputs={"corpus": corpus}, **manifest)
