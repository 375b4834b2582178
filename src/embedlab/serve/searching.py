"""Search, neighbours, facets and the map of one collection."""

import time
from typing import Annotated

from fastapi import APIRouter, Query

from embedlab._core.errors import InputError
from embedlab.serve.errors import ApiError
from embedlab.serve.filters import check_filter
from embedlab.serve.metrics import Metrics
from embedlab.serve.pool import Pool
from embedlab.serve.schemas import (
    MOST_WEIGHT,
    ContextOut,
    FacetsOut,
    MapOut,
    Mode,
    PlacesOut,
    SearchOut,
    SearchQuery,
    SimilarOut,
)
from embedlab.serve.settings import Limits
from embedlab.serve.shelf import Shelf
from embedlab.text.aspect_documents.names import parse_weights


def searching_router(shelf: Shelf, pool: Pool, limits: Limits, metrics: Metrics) -> APIRouter:
    """Build the routes that read passages.

    Args:
        shelf: The collections.
        pool: Threads to work in.
        limits: Bounds on queries and hits.
        metrics: Where searches are counted.

    Returns:
        The routes.
    """
    router = APIRouter(prefix="/api/collections/{name}", tags=["search"])
    top_k_range = Query(ge=1, le=limits.top_k)
    filter_length = Query(min_length=1, max_length=limits.query_chars)
    aspects_asked = Query(max_length=64, description="Compare in this aspect, as NAME=WEIGHT.")

    async def search(name: str, query: SearchQuery) -> SearchOut:
        if len(query.query) > limits.query_chars or not query.query.strip():
            raise ApiError(
                400,
                f"query has {len(query.query)} characters: 1 to {limits.query_chars} are allowed, not blank",
                field="query",
            )
        check_filter(query.filter, limits.query_chars)
        if query.top_k > limits.top_k:
            raise ApiError(400, f"top_k={query.top_k}: allowed is 1 to {limits.top_k}", field="top_k")
        began = time.perf_counter()
        version, hits = await pool.run(shelf.search, name, query)
        metrics.searches.labels(query.mode).inc()
        return SearchOut(query=query.query, mode=query.mode, took_ms=_since(began), version=version, hits=hits)

    @router.get("/search", summary="Search, for links")
    async def search_by_link(
        name: str,
        query: Annotated[str, Query(min_length=1, max_length=limits.query_chars)],
        mode: Mode = "hybrid",
        top_k: Annotated[int, top_k_range] = 10,
        filter: Annotated[str | None, filter_length] = None,  # noqa: A002 - the name callers know
        explain: bool = False,
        weight: Annotated[float | None, Query(ge=0, le=1)] = None,
        aspect: Annotated[list[str], aspects_asked] = [],  # noqa: B006 - the host copies it
    ) -> SearchOut:
        weights = _weights(aspect)
        return await search(
            name,
            SearchQuery(
                query=query, mode=mode, top_k=top_k, filter=filter, explain=explain, weight=weight, aspects=weights
            ),
        )

    @router.post("/search", summary="Search")
    async def search_by_body(name: str, query: SearchQuery) -> SearchOut:
        return await search(name, query)

    @router.get("/passages/{passage_id}", summary="Show a passage and its neighbours")
    async def show_passage(name: str, passage_id: str, context: Annotated[int, Query(ge=0, le=10)] = 1) -> ContextOut:
        return await pool.run(shelf.passage, name, passage_id, context)

    @router.get("/passages/{passage_id}/similar", summary="Find passages like this one")
    async def similar(
        name: str,
        passage_id: str,
        top_k: Annotated[int, top_k_range] = 10,
        filter: Annotated[str | None, filter_length] = None,  # noqa: A002 - the name callers know
        aspect: Annotated[list[str], aspects_asked] = [],  # noqa: B006
    ) -> SimilarOut:
        check_filter(filter, limits.query_chars)
        began = time.perf_counter()
        version, hits = await pool.run(shelf.similar, name, passage_id, top_k, filter, _weights(aspect))
        metrics.searches.labels("similar").inc()
        return SimilarOut(took_ms=_since(began), version=version, hits=hits)

    @router.get("/facets", summary="List values to filter by")
    async def facets(name: str) -> FacetsOut:
        return await pool.run(shelf.facets, name)

    @router.get("/map", summary="Place passages on a flat map")
    async def show_map(name: str, limit: Annotated[int, Query(ge=10, le=limits.map_points)] = 2000) -> MapOut:
        return await pool.run(shelf.map, name, limit)

    @router.get("/map/places", summary="Place some passages on the same map")
    async def places(
        name: str, passage_id: Annotated[list[str], Query(alias="id", min_length=1, max_length=100)]
    ) -> PlacesOut:
        return await pool.run(shelf.places, name, passage_id)

    return router


def _weights(given: list[str]) -> dict[str, float] | None:
    try:
        weights = parse_weights([text[:200] for text in given])
    except InputError as error:
        raise ApiError(400, str(error), field="aspect") from None
    for name, weight in weights.items():
        if not -MOST_WEIGHT <= weight <= MOST_WEIGHT:  # nan is not, either
            raise ApiError(400, f"aspect={name}={weight}: allowed is -{MOST_WEIGHT} to {MOST_WEIGHT}", field="aspect")
    return weights or None


def _since(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 3)
