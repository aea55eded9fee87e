"""The config section `ingest`: one source in flat fields, or a list of sources.

- `SourceConfig`: a glob, the format of its files, and metadata that the files lack
- `FieldNames`: names of the fields in the records
- `IngestConfig`: the whole section
"""

import json
from typing import Literal

from pydantic import Field, field_validator, model_validator

from data_schemas.config import FrozenConfig, Location, StageConfig, runtime_field
from data_schemas.language_codes import LanguageCode

PYTHON_DOCUMENTATION = "python://documentation"

FormatName = Literal[
    "json_lines", "json", "parquet", "arrow", "csv", "tsv", "warc", "wikipedia_dump",
    "plain", "html", "wikitext", "gutenberg", "markdown", "rst",
]  # fmt: skip
TextFormatName = Literal["plain", "html", "wikitext", "gutenberg", "markdown", "rst"]
FieldName = str | int


class FieldNames(FrozenConfig):
    """Column of the documents table -> name of the field or column that contains it.

    Dots lead into nested objects (`meta.url`); a number is a column index of CSV or TSV, from 0.
    """

    text: FieldName = Field("text", description="the text")
    id: FieldName | None = Field("id", description="the file's own id; stored in the metadata")
    url: FieldName | None = Field("url", description="web address of the text")
    licence: FieldName | None = Field("license", description="license of the document")
    date: FieldName | None = Field(None, description="date of the text; stored in the metadata if it is not ISO 8601")
    language: FieldName | None = Field(
        None, description="language: an ISO 639 code or a tag such as pt-BR; other names are ignored"
    )
    source: FieldName | None = Field(
        None, description="name of the collection; takes precedence over the setting `source`"
    )
    genre: FieldName | None = Field(None, description="genre; takes precedence over the setting `genre`")
    title: FieldName | None = Field(None, description="title; stored in the metadata")


class SourceFields(FrozenConfig):
    """Fields of a source, flat in `ingest` or in an entry of `ingest.sources`."""

    path: Location = Field(
        PYTHON_DOCUMENTATION,
        description="glob over files on any fsspec URL, such as ./my_texts/**/*.jsonl.gz or hf://datasets/..., or "
        "python://documentation: the documentation of this Python and the packages that Headrace depends on",
    )
    format: FormatName | None = Field(None, description="format of the files; by their extension if omitted")
    text_format: TextFormatName | None = Field(
        None, description="format of the text of a record, or of a file with a single text; by `format` if omitted"
    )
    fields: FieldNames = Field(default_factory=FieldNames, description="names of the fields in the records")
    where: dict[str, tuple[str, ...]] = Field(
        {},
        description="field -> values: only records with one of the values in each of these fields are read, so that "
        "a mixed file can be split into several sources",
    )
    keep: tuple[str, ...] = Field((), description="further fields of the records to store in the metadata")
    source: str | None = Field(None, description="name of the collection; from the files if omitted")
    genre: str | None = Field(
        None,
        description="genre of every document: books, wiki, news, web ...; by default unknown, or technical "
        "documentation for python://documentation",
    )
    licence: str | None = Field(None, description="license of documents whose file specifies none")
    language: LanguageCode | None = Field(None, description="ISO 639 code of documents whose file specifies none")
    max_source_bytes: int | None = Field(
        None, gt=0, description="maximum bytes of source files to read, in the order of the hashes of their paths"
    )
    delimiter: str | None = Field(
        None, min_length=1, max_length=1, description="separator of columns; by default a comma in CSV, a tab in TSV"
    )
    header: bool = Field(True, description="whether the first row of CSV or TSV contains column names")
    quoting: bool | None = Field(
        None,
        description='whether "..." quotes a field; by default true for CSV (RFC 4180) and false for TSV (IANA '
        "text/tab-separated-values; GLUE's files have unbalanced quotes)",
    )

    @field_validator("where", mode="before")
    @classmethod
    def _wrap_single_values(cls, value: object) -> object:
        return (
            {name: (v,) if isinstance(v, str) else v for name, v in value.items()} if isinstance(value, dict) else value
        )


class SourceConfig(SourceFields):
    """A collection of files."""

    path: Location = Field(description="glob over files on any fsspec URL, or python://documentation")


class IngestConfig(SourceFields, StageConfig):
    """Sources of text, and limits of reading."""

    text_field: str | None = Field(None, description="shorthand for `fields.text`: the field or column with the text")
    sources: tuple[SourceConfig, ...] = Field((), description="several collections, instead of the flat fields")
    partition_bytes: int | None = Field(
        None,
        gt=0,
        description="source bytes per partition, and text bytes per file written; bounds memory; by default 8 MB, or a "
        "2,000th of all sources if that is more, up to 512 MB",
    )
    max_document_bytes: int = Field(
        50_000_000, gt=0, description="maximum bytes of a document, line or single-text file; larger ones are rejected"
    )
    max_document_seconds: float = Field(
        5.0,
        gt=0,
        le=3600,
        description="maximum CPU time to extract the text of a document in HTML, wikitext, Markdown "
        "or reStructuredText; a document near the limit may pass on a faster processor only",
    )
    max_reject_share: float = runtime_field(
        0.1, ge=0, le=1, description="maximum share of broken records over all sources; the run stops above it"
    )
    reject_share_after: int = runtime_field(
        100, gt=0, description="minimum number of records read before broken ones can stop the run"
    )

    @model_validator(mode="after")
    def _check_no_duplicate_settings(self) -> "IngestConfig":
        default = SourceFields()
        flat = [name for name in SourceFields.model_fields if getattr(self, name) != getattr(default, name)]
        flat += ["text_field"] if self.text_field is not None else []
        if self.sources and flat:
            empty = getattr(default, flat[0], None)
            raise ValueError(
                f"{flat[0]} and sources are both set; move {', '.join(flat)} into an entry of sources, or, if it is "
                f"from a config that this one extends, remove it with {flat[0]}: {json.dumps(empty, default=str)}"
            )
        if self.text_field is not None and self.fields.text != "text":
            raise ValueError(
                f"text_field ({self.text_field}) and fields.text ({self.fields.text}) are both set; set one"
            )
        return self

    def all_sources(self) -> tuple[SourceConfig, ...]:
        """The sources; a single one if the flat fields are used."""
        if self.sources:
            return self.sources
        flat = {name: getattr(self, name) for name in SourceFields.model_fields}
        if self.text_field is not None:
            flat["fields"] = self.fields.model_copy(update={"text": self.text_field})
        return (SourceConfig(**flat),)
