"""The verb ``serve``: the HTTP API and the web page."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Annotated

import typer

MIB = 1024 * 1024


def serve(
    collection: Annotated[
        list[str] | None, typer.Option(help="Serve only this collection, by name or path; may be repeated.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than loopback need EMBEDLAB_API_KEY.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8080,
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Model that callers may use for embeddings and new collections; may be repeated."),
    ] = None,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="Name accepted in the Host header; may be repeated.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads for searching and embedding.")] = None,
    requests_per_s: Annotated[float, typer.Option(min=0, help="Calls per second and client; 0 for no limit.")] = 100.0,
    max_body_mib: Annotated[int, typer.Option(min=1, help="Largest body of a call that is not an upload.")] = 8,
    max_upload_mib: Annotated[int, typer.Option(min=1, help="Largest upload, all files together.")] = 256,
    max_file_mib: Annotated[int, typer.Option(min=1, help="Largest file of an upload.")] = 64,
    max_batch: Annotated[int, typer.Option(min=1, help="Most texts in one embeddings call.")] = 2048,
    timeout_s: Annotated[float, typer.Option(min=0.1, help="Longest time for one call.")] = 30.0,
) -> None:
    """Serve collections: HTTP API, openai-compatible embeddings and a web page, on this machine only by default."""
    # Calls run side by side already: threads inside each matrix product would only wait for one another's core, at
    # two to three times the processor time per search. Has to be said before numpy is first imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    from embedlab.serve.run import run
    from embedlab.serve.settings import Limits, Settings

    settings = Settings(
        host=host,
        port=port,
        api_key=os.environ.get("EMBEDLAB_API_KEY") or None,
        collections=tuple(collection or ()),
        models=tuple(model or ("default",)),
        allowed_hosts=tuple(allowed_host or ()),
        limits=Limits(
            requests_per_s=requests_per_s,
            body_bytes=max_body_mib * MIB,
            upload_bytes=max_upload_mib * MIB,
            file_bytes=max_file_mib * MIB,
            batch_texts=max_batch,
            timeout_s=timeout_s,
        ),
    )
    if workers is not None:
        settings = replace(settings, workers=workers)
    run(settings, open_page=open_page, announce=typer.echo)
