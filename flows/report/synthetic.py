"""Synthetic documents: what each method made of each genre, and what the gates refused."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from data_schemas.manifest import Manifest
from data_schemas.tables import KEPT

SHOWN_ROWS = 24
SURPLUS = "surplus"


@dataclass(frozen=True)
class SyntheticRow:
    """One method in one genre."""

    genre: str
    method: str
    documents: str
    """Real documents of the genre."""
    target: str
    kept: str
    short: str
    """Documents that are missing; empty if the share is reached."""


@dataclass(frozen=True)
class MethodRow:
    """One method over all genres."""

    method: str
    engine: str
    made: str
    """Texts that the gates judged, and parents without one."""
    accepted: str
    """Share of them that no gate refused."""
    refused: str
    """Gates with the numbers of texts that they refused."""


@dataclass(frozen=True)
class Synthetic:
    """Contents of the section."""

    summary: list[str]
    rows: list[SyntheticRow]
    more: int
    """Rows that are not shown."""
    methods: list[MethodRow]
    missing: list[str]
    """Why methods were left out."""


def synthetic(manifests: Mapping[str, Manifest]) -> Synthetic | None:
    """The section, the largest shares first; None for a run without synthetic documents."""
    if "synthesize" not in manifests:
        return None
    manifest = manifests["synthesize"]
    shares, refusals = manifest.metrics["shares"], manifest.metrics["refusals"]
    ordered = sorted(shares, key=lambda row: (-row["target"], row["genre"], row["method"]))
    wanted = [row for row in ordered if row["target"]]
    rows = [
        SyntheticRow(
            row["genre"], row["method"], f"{row['documents']:,}", f"{row['target']:,}", f"{row['kept']:,}",
            f"{row['short']:,} short" if row["short"] else "",
        )
        for row in wanted[:SHOWN_ROWS]
    ]  # fmt: skip
    methods = [
        _method(each["label"], f"{each['engine']} {each['engine_version']}", Counter(refusals[each["label"]]))
        for each in manifest.metrics["methods"]
        if each["label"] not in manifest.metrics["missing_engines"]
    ]
    missing = [f"{label} was left out: {why}" for label, why in manifest.metrics["missing_engines"].items()]
    return Synthetic(_summary(manifest), rows, max(0, len(wanted) - SHOWN_ROWS), methods, missing)


def _summary(manifest: Manifest) -> list[str]:
    counts = manifest.counts
    facts = [
        f"{counts['synthetic_documents']:,} synthetic documents",
        f"{100 * counts['synthetic_bytes'] / max(1, counts['train_bytes']):.1f} % of the training text",
    ]
    names = {
        "short_documents": "short of their share",
        "parents_too_long": "documents too long to have children",
        "parents_with_benchmark_items": "documents without children, for their benchmark items",
    }
    return facts + [f"{counts[name]:,} {meaning}" for name, meaning in names.items() if counts.get(name)]


def _method(label: str, engine: str, verdicts: Counter[str]) -> MethodRow:
    made, accepted = verdicts.total(), verdicts[KEPT] + verdicts[SURPLUS]
    refused = [f"{name.replace('_', ' ')} {count:,}" for name, count in verdicts.most_common() if name != KEPT]
    share = f"{100 * accepted / made:.1f} %" if made else ""
    return MethodRow(label, engine, f"{made:,}", share, ", ".join(refused))
