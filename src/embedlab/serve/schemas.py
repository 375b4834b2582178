"""The shapes of calls and answers; what these refuse never reaches a collection."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Mode = Literal["hybrid", "dense", "lexical"]
Scalar = str | int | float | bool
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Id = Annotated[str, StringConstraints(min_length=1, max_length=200)]

MOST_WEIGHT = 1000  # of an aspect, either way
Weight = Annotated[float, Field(ge=-MOST_WEIGHT, le=MOST_WEIGHT, allow_inf_nan=False)]


class Asked(BaseModel):
    """A body that a caller sends: unknown names are refused, nothing is converted in silence."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class NewCollection(Asked):
    """What to make."""

    name: Name
    model: str | None = Field(None, max_length=500)


class SearchQuery(Asked):
    """What to look for."""

    query: str = Field(min_length=1)
    mode: Mode = "hybrid"
    top_k: int = Field(10, ge=1)
    filter: str | None = None
    explain: bool = False
    weight: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    aspects: dict[str, Weight] | None = Field(None, max_length=64)


class EmbeddingsQuery(BaseModel):
    """What to embed; as openai clients send it, so that names of theirs which mean nothing here are let pass."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    input: Any
    model: str = Field(max_length=500)
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1)
    input_type: Literal["document", "query"] = "document"
    user: str | None = None


class CollectionOut(BaseModel):
    """A collection."""

    name: str
    model: str
    dim: int
    fingerprint: str
    documents: int
    passages: int
    bytes: int | None
    version: int
    created: float
    updated: float
    writing: bool
    aspects: list[str] = []


class CollectionsOut(BaseModel):
    """All collections."""

    collections: list[CollectionOut]


class DocumentOut(BaseModel):
    """A document without its text."""

    source: str
    title: str
    format: str
    passages: int
    metadata: dict[str, Scalar]
    uploaded: bool


class DocumentsOut(BaseModel):
    """One page of documents."""

    total: int
    offset: int
    limit: int
    documents: list[DocumentOut]


class PassageOut(BaseModel):
    """A passage."""

    id: str
    source: str
    title: str
    format: str
    text: str
    start: int
    end: int
    page: int | None
    headings: list[str]
    metadata: dict[str, Scalar]


class HitOut(PassageOut):
    """A passage that was found."""

    score: float
    highlights: list[tuple[int, int]]
    best_sentence: tuple[int, int] | None
    parts: dict[str, float] | None
    matched: list[str] | None
    shared: list[tuple[str, float]] | None


class SearchOut(BaseModel):
    """Hits, best first."""

    query: str
    mode: Mode
    took_ms: float
    version: int
    hits: list[HitOut]


class SimilarOut(BaseModel):
    """Hits, best first."""

    took_ms: float
    version: int
    hits: list[HitOut]


class ContextOut(BaseModel):
    """A passage and its neighbours."""

    passage: PassageOut
    before: list[PassageOut]
    after: list[PassageOut]


class FacetValueOut(BaseModel):
    """A value to filter by."""

    value: str
    documents: int
    filter: str


class FacetOut(BaseModel):
    """A field to filter by."""

    field: str
    values: list[FacetValueOut]


class FacetsOut(BaseModel):
    """Fields to filter by."""

    version: int
    facets: list[FacetOut]


class PointsOut(BaseModel):
    """Points, one list per column."""

    id: list[str]
    x: list[float]
    y: list[float]
    source: list[str]
    title: list[str]
    group: list[str]


class MapOut(BaseModel):
    """The map of a collection."""

    version: int
    total: int
    shown: int
    explained: tuple[float, float]
    points: PointsOut


class PlacesOut(BaseModel):
    """Places of some passages on the map."""

    version: int
    points: PointsOut


class ProblemOut(BaseModel):
    """A document that was not taken in."""

    source: str
    message: str


class JobOut(BaseModel):
    """A job and how far it is."""

    id: str
    collection: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    documents_done: int
    documents_total: int
    passages: int
    passages_per_s: float
    errors: list[ProblemOut]
    message: str | None
    created: float
    started: float | None
    finished: float | None


class JobsOut(BaseModel):
    """Jobs, newest first."""

    jobs: list[JobOut]


class UploadOut(BaseModel):
    """What came of an upload."""

    job: JobOut
    accepted: list[str]
    refused: list[ProblemOut]


class DeletedOut(BaseModel):
    """How much is gone."""

    deleted: int | str


class InfoOut(BaseModel):
    """What a page needs to know at the start."""

    version: str
    models: list[str]
    can_create: bool
    formats: list[str]
    limits: dict[str, int | float]


class ProblemDetailOut(BaseModel):
    """What is wrong."""

    message: str
    type: str
    field: str | None


class ErrorOut(BaseModel):
    """The shape of every error."""

    error: ProblemDetailOut
