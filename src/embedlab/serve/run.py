"""Start the service: bind first, then say where it is, then serve until it is told to stop."""

from __future__ import annotations

import logging
import socket
import threading
import webbrowser
from collections.abc import Callable

from embedlab._core.errors import InputError
from embedlab.serve.settings import Settings

_log = logging.getLogger(__name__)


def run(settings: Settings, *, open_page: bool = False, announce: Callable[[str], object] = _log.info) -> None:
    """Serve until Ctrl-C or SIGTERM; calls in flight are finished, jobs are stopped, what they committed stays.

    Args:
        settings: Where to listen and what to serve.
        open_page: Open the page in a browser, where there is one.
        announce: Told the page's address once calls are answered.

    Raises:
        InputError: The address can't be listened on.
    """
    import uvicorn

    from embedlab.serve.app import create_app
    from embedlab.serve.connections import timed_connection

    listener = _listen(settings)
    host, port = listener.getsockname()[:2]
    address = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

    def ready() -> None:
        announce(f"embedlab is at {address} (its API: {address}docs); stop it with Ctrl-C")
        if open_page:
            # a browser that is slow to start must not keep the service from answering
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    limits = settings.limits
    config = uvicorn.Config(
        create_app(settings, on_ready=ready),
        http=timed_connection(limits.idle_s),
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # anyone could claim any address in them
        limit_concurrency=limits.connections,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=10,
    )
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        return  # the usual way to stop; everything is closed by now
    finally:
        listener.close()


def _listen(settings: Settings) -> socket.socket:
    try:
        found = socket.getaddrinfo(
            settings.host or None, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InputError(f"host={settings.host!r} is not an address: {error.strerror}; use 127.0.0.1") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise InputError(
            f"host={settings.host!r} port={settings.port}: {error.strerror}; stop what uses it or choose another --port"
        ) from None
    return listener
