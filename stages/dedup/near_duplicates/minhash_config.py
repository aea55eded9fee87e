"""Settings of near-duplicate detection and the rule by which one document of a cluster stays; pydantic alone."""

from typing import Literal, NamedTuple

from pydantic import Field, model_validator

from data_schemas.config import FrozenConfig

RECALL_AT_THRESHOLD = 0.99
"""Least probability that a pair just at the threshold becomes a candidate, where candidates are verified."""
SEED = 1
"""Of the permutations; datasketch's default, so that its sketches and ours can be compared."""
_STEPS = 1000


class Banding(NamedTuple):
    """How a signature is cut for locality-sensitive hashing."""

    bands: int
    rows: int

    def probability(self, similarity: float) -> float:
        """That two documents of this Jaccard similarity share a band: 1 - (1 - s^rows)^bands (Indyk & Motwani 1998)."""
        return float(1 - (1 - similarity**self.rows) ** self.bands)


class MinHashConfig(FrozenConfig):
    """When two documents are near duplicates."""

    permutations: int = Field(128, gt=0, le=4096, description="MinHash values per document (Broder 1997)")
    shingle_words: int = Field(5, gt=0, description="words per shingle; 5 as FineWeb (2406.17557, 3.4)")
    similarity: float = Field(0.8, gt=0, le=1, description="Jaccard similarity of shingles from which two are the same")
    bands: int | None = Field(None, gt=0, description="bands of the signature; chosen from `similarity` if left out")
    rows: int | None = Field(None, gt=0, description="signature values per band; given with `bands` or not at all")
    verify: Literal["jaccard", "signature", "none"] = Field(
        "jaccard",
        description="how candidates are checked: by their sets of shingles, by the share of equal signature values "
        "(standard error 0.035 at 128 permutations and 0.8), or not",
    )

    @model_validator(mode="after")
    def _bands_fit(self) -> "MinHashConfig":
        if (self.bands is None) != (self.rows is None):
            raise ValueError("bands and rows go together; give both or neither")
        if self.bands and self.rows and self.bands * self.rows > self.permutations:
            raise ValueError(
                f"bands x rows is {self.bands} x {self.rows} = {self.bands * self.rows}, more than the "
                f"{self.permutations} permutations; raise permutations or lower bands or rows"
            )
        return self

    @property
    def banding(self) -> Banding:
        """The bands and rows asked for, or those that suit the threshold.

        With verification a false candidate costs a microsecond and a missed pair is lost for good, so it is the most
        rows (the fewest candidates) that still find `RECALL_AT_THRESHOLD` of the pairs at the threshold: 21 x 6 at
        0.8, where datasketch's equal weights give 9 x 13 and find 0.40. Without verification it is datasketch's
        criterion: the least sum of the areas of false positives and false negatives.
        """
        if self.bands and self.rows:
            return Banding(self.bands, self.rows)
        choices = [Banding(self.permutations // rows, rows) for rows in range(1, self.permutations + 1)]
        if self.verify == "none":
            return min(choices, key=self._wrong_area)
        sure = [one for one in choices if one.probability(self.similarity) >= RECALL_AT_THRESHOLD]
        return max(sure, key=lambda one: one.rows, default=choices[0])

    def _wrong_area(self, banding: Banding) -> float:
        """Area under the curve left of the threshold and above it on the right, by the midpoint rule."""
        points = [(step + 0.5) / _STEPS for step in range(_STEPS)]
        curve = [(point, banding.probability(point)) for point in points]
        return sum(found if point < self.similarity else 1 - found for point, found in curve) / _STEPS


class SurvivorConfig(FrozenConfig):
    """Which document of a cluster stays: the first by these criteria, and of equals the smallest id."""

    order: tuple[Literal["source_priority", "quality", "length"], ...] = Field(
        ("source_priority", "quality", "length"),
        description="criteria, the weightiest first: place in `source_priority`, highest quality, longest text",
    )
    source_priority: tuple[str, ...] = Field((), description="sources, the best first; all others come after them")

    @model_validator(mode="after")
    def _each_once(self) -> "SurvivorConfig":
        for name, values in (("order", self.order), ("source_priority", self.source_priority)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} names something twice: {', '.join(values)}")
        return self
