"""Config of the search for benchmark items, which dedup and synthesize share; imports no compiled code."""

from pydantic import Field, model_validator

from data_schemas.config import FrozenConfig, Location


class NgramConfig(FrozenConfig):
    """Benchmark items that occur in the text, by word n-grams (Brown et al. 2020, 2005.14165, appendix C)."""

    benchmarks: tuple[Location, ...] = Field(
        min_length=1, description="globs over benchmark files on any fsspec URL: .tsv, .csv, .jsonl, .json, .xml"
    )
    ngram: int = Field(13, ge=2, description="words per n-gram, compared without case and punctuation")
    min_words: int = Field(
        8,
        ge=2,
        description="an item whose fields all have fewer than `ngram` words is matched by its whole fields of at least "
        "this many words",
    )
    also_report: int | None = Field(8, ge=2, description="second n-gram length, which is only reported")
    max_documents: int = Field(
        10, gt=0, description="an n-gram in more documents than this is common text, not a leak, and is ignored"
    )

    @model_validator(mode="after")
    def _check_lengths(self) -> "NgramConfig":
        if self.min_words > self.ngram:
            raise ValueError(
                f"min_words is {self.min_words}, more than ngram, {self.ngram}; accepted are 2 to {self.ngram}"
            )
        if self.also_report == self.ngram:
            raise ValueError(f"also_report is {self.ngram}, the same as ngram; set another length or null")
        return self
