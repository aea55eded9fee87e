"""What to read and how: one source in flat fields, or a list of them.

- `SourceConfig`: a glob, the format behind it, and what the files do not say of themselves
- `FieldNames`: which field of a record is what
- `IngestConfig`: the stage's settings
"""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from data_schemas.config import FrozenConfig, StageConfig, runtime_field

PYTHON_DOCUMENTATION = "python://documentation"

FormatName = Literal[
    "json_lines", "json", "parquet", "arrow", "csv", "tsv", "warc", "wikipedia_dump",
    "plain", "html", "wikitext", "gutenberg", "markdown", "rst",
]  # fmt: skip
TextFormatName = Literal["plain", "html", "wikitext", "gutenberg", "markdown", "rst"]
FieldName = str | int


class FieldNames(FrozenConfig):
    """Field of the documents table -> name of the field or column that holds it.

    Dots lead into nested objects (`meta.url`); a number is a column of CSV or TSV, from 0.
    """

    text: FieldName = Field("text", description="the text")
    id: FieldName | None = Field("id", description="the file's own id; kept in the metadata")
    url: FieldName | None = Field("url", description="where the text can be read on the web")
    licence: FieldName | None = Field("license", description="licence of the one document")
    date: FieldName | None = Field(None, description="date of the text; kept in the metadata where not ISO 8601")
    language: FieldName | None = Field(None, description="ISO 639-1 code")
    source: FieldName | None = Field(None, description="name of the collection; wins over `source`")
    genre: FieldName | None = Field(None, description="genre; wins over `genre`")
    title: FieldName | None = Field(None, description="title; kept in the metadata")


class SourceFields(FrozenConfig):
    """What describes a source, wherever it is configured."""

    path: str = Field(
        PYTHON_DOCUMENTATION,
        description="glob over files on any fsspec URL, such as ./my_texts/**/*.jsonl.gz or hf://datasets/..., or "
        "python://documentation: the documentation of this Python and its installed packages",
    )
    format: FormatName | None = Field(None, description="format of the files; by their ending where left out")
    text_format: TextFormatName | None = Field(
        None, description="how the text of a record, or a file of one text, is read; by the format where left out"
    )
    fields: FieldNames = Field(default_factory=FieldNames, description="names of the fields in the records")
    where: dict[str, tuple[str, ...]] = Field(
        {},
        description="field -> values: only records with one of them in each of these fields are read, so that a mixed "
        "file can be several sources",
    )
    keep: tuple[str, ...] = Field((), description="further fields of the records that go to the metadata")
    source: str | None = Field(None, description="name of the collection; from the files where left out")
    genre: str = Field("technical documentation", description="genre of every document: books, wiki, news, web ...")
    licence: str | None = Field(None, description="licence of every document, where the files do not say")
    language: str | None = Field(None, description="ISO 639-1 code, where the files do not say")
    max_source_bytes: int | None = Field(
        None, gt=0, description="stop after this many bytes of source files, taken in the order of their paths' hash"
    )
    delimiter: str | None = Field(
        None, min_length=1, max_length=1, description="between columns; a comma in CSV, a tab in TSV where left out"
    )
    header: bool = Field(True, description="whether the first row of CSV or TSV names the columns")
    quoting: bool | None = Field(
        None,
        description='whether "..." quotes a field; where left out, yes in CSV (RFC 4180) and no in TSV (IANA '
        "text/tab-separated-values; GLUE's files have lone quotes)",
    )

    @field_validator("where", mode="before")
    @classmethod
    def _one_value_is_a_list(cls, value: object) -> object:
        return (
            {name: (v,) if isinstance(v, str) else v for name, v in value.items()} if isinstance(value, dict) else value
        )


class SourceConfig(SourceFields):
    """One collection of files."""

    path: str = Field(description="glob over files on any fsspec URL, or python://documentation")


class IngestConfig(SourceFields, StageConfig):
    """Where the text comes from and how it is described."""

    text_field: str | None = Field(None, description="short for `fields.text`: the field or column with the text")
    sources: tuple[SourceConfig, ...] = Field((), description="several collections, instead of the fields for one")
    partition_bytes: int = Field(
        8_000_000, gt=0, description="source bytes per partition, and text bytes per file it writes; bounds memory"
    )
    max_document_bytes: int = Field(
        50_000_000, gt=0, description="bytes of a record, line or file of one text, from which it is not read"
    )
    max_reject_share: float = runtime_field(
        0.1, ge=0, le=1, description="share of broken records over all sources, above which the run stops"
    )
    reject_share_after: int = runtime_field(
        100, gt=0, description="records that must have been read before broken ones can stop the run"
    )

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> "IngestConfig":
        default = SourceFields()
        described = [name for name in SourceFields.model_fields if getattr(self, name) != getattr(default, name)]
        described += ["text_field"] if self.text_field is not None else []
        if self.sources and described:
            raise ValueError(
                f"{described[0]} and sources are both set; move {', '.join(described)} into an entry of sources"
            )
        if self.text_field is not None and self.fields.text != "text":
            raise ValueError(f"text_field ({self.text_field}) and fields.text ({self.fields.text}) are both set")
        return self

    def all_sources(self) -> tuple[SourceConfig, ...]:
        """The list of sources; one where the flat fields are used."""
        if self.sources:
            return self.sources
        flat = {name: getattr(self, name) for name in SourceFields.model_fields}
        if self.text_field is not None:
            flat["fields"] = self.fields.model_copy(update={"text": self.text_field})
        return (SourceConfig(**flat),)
