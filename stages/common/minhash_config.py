"""Config of near-duplicate detection, which dedup and synthesize share; imports no compiled code."""

from typing import Literal, NamedTuple

from pydantic import Field, model_validator

from data_schemas.config import FrozenConfig

RECALL_AT_THRESHOLD = 0.99
"""Minimum probability that a pair at the threshold becomes a candidate, if candidates are verified."""
SEED = 1
"""Seed of the permutations; datasketch's default, so that its sketches and ours are comparable."""
_STEPS = 1000


class Banding(NamedTuple):
    """Division of a signature for locality-sensitive hashing."""

    bands: int
    rows: int

    def probability(self, similarity: float) -> float:
        """Probability that such documents share a band: 1 - (1 - s^rows)^bands (Indyk & Motwani 1998)."""
        return float(1 - (1 - similarity**self.rows) ** self.bands)


class MinHashConfig(FrozenConfig):
    """MinHash settings and the threshold of near duplicates."""

    permutations: int = Field(128, gt=0, le=4096, description="MinHash values per document (Broder 1997)")
    shingle_words: int = Field(5, gt=0, description="words per shingle; 5 as FineWeb (2406.17557, 3.4)")
    similarity: float = Field(0.8, gt=0, le=1, description="minimum Jaccard similarity of near duplicates")
    bands: int | None = Field(None, gt=0, description="bands of the signature; computed from `similarity` if omitted")
    rows: int | None = Field(None, gt=0, description="signature values per band; set together with `bands`")
    verify: Literal["jaccard", "signature", "none"] = Field(
        "jaccard",
        description="check of candidates: by their sets of shingles, by the share of equal signature values "
        "(standard error 0.035 at 128 permutations and 0.8), or none",
    )

    @model_validator(mode="after")
    def _check_bands(self) -> "MinHashConfig":
        if (self.bands is None) != (self.rows is None):
            raise ValueError("bands and rows must be set together; set both or neither")
        if self.bands and self.rows and self.bands * self.rows > self.permutations:
            raise ValueError(
                f"bands x rows is {self.bands} x {self.rows} = {self.bands * self.rows}, more than the "
                f"{self.permutations} permutations; raise permutations or lower bands or rows"
            )
        return self

    @property
    def banding(self) -> Banding:
        """The configured bands and rows, or those computed from the threshold.

        With verification a false candidate costs a microsecond but a missed pair cannot be recovered, so the number of
        rows is the largest (with the fewest candidates) that still finds `RECALL_AT_THRESHOLD` of the pairs at the
        threshold: 21 x 6 at 0.8, where datasketch's equal weights yield 9 x 13 and find 0.40. Without verification it
        is datasketch's criterion: the minimum sum of the areas of false positives and false negatives.
        """
        if self.bands and self.rows:
            return Banding(self.bands, self.rows)
        choices = [Banding(self.permutations // rows, rows) for rows in range(1, self.permutations + 1)]
        if self.verify == "none":
            return min(choices, key=self._error_area)
        accepted = [banding for banding in choices if banding.probability(self.similarity) >= RECALL_AT_THRESHOLD]
        return max(accepted, key=lambda banding: banding.rows, default=choices[0])

    def _error_area(self, banding: Banding) -> float:
        """Area under the curve left of the threshold plus area above it on the right, by the midpoint rule."""
        points = [(step + 0.5) / _STEPS for step in range(_STEPS)]
        curve = [(point, banding.probability(point)) for point in points]
        return sum(p if point < self.similarity else 1 - p for point, p in curve) / _STEPS
