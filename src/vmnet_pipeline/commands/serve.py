"""`kedro serve`: the search service and its page."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vmnet_pipeline.commands.collection import choose_collection, tell_network
from vmnet_pipeline.commands.errors import report_errors
from vmnet_pipeline.commands.project import ProjectCommand
from vmnet_pipeline.commands.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmnet_pipeline.serving.config import ServeParams
    from vmnet_pipeline.types import CollectionPlaces


@click.command(name="serve", cls=ProjectCommand, short_help="Start the page and HTTP interface of a collection.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=8321, show_default=True, help="Port to listen at.")
@click.option(
    "--media-root",
    "roots",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Folder whose media may be served; repeatable.  [default: the media folder]",
)
@click.option("--set", "settings", multiple=True, help="A setting NAME=VALUE, see docs/parameters.md; repeatable.")
@choose_collection
@report_errors()
def serve(host: str, port: int, roots: tuple[Path, ...], settings: tuple[str, ...], places: CollectionPlaces) -> None:
    """Serve a collection: a web page and an HTTP API.

    Embed and index the collection first: kedro run --pipelines=embed,index. With the environment variable
    VMNET_API_KEY set, every request needs that key.
    """
    from vmnet_pipeline.serving.config import ServeParams
    from vmnet_pipeline.storage.names import find_on_disk

    media = find_on_disk(places.media_roots[0].expanduser())
    default_root = media.parent if media.suffix.lower() == ".csv" else media
    run_server(replace(places, media_roots=roots or (default_root,)), read_settings(settings, ServeParams), host, port)


def run_server(places: CollectionPlaces, params: ServeParams, host: str, port: int) -> None:
    """Serve until the process is asked to end; finish requests in progress first.

    The port is taken before anything is loaded, and announced when everything is.

    Raises:
        SearchIndexError: The collection has no index, or it is damaged.
        ParameterError: The key, the address or the port cannot be used.
    """
    from vmnet_pipeline.serving.listening import listen

    host, shown = read_host(host)
    with ExitStack() as stack:
        sockets = [stack.enter_context(own) for own in listen(host, port)]
        import uvicorn

        from vmnet_pipeline.serving.app import make_app
        from vmnet_pipeline.serving.auth import KEY_VARIABLE, ApiKey
        from vmnet_pipeline.serving.server import allow_connections, configure_server
        from vmnet_pipeline.serving.state import Service

        key = ApiKey(os.environ.get(KEY_VARIABLE))
        service = Service(places, params.admit_host(host))
        app = make_app(service, key)
        allow_connections(params.max_connections)
        tell_network(places)
        port = sockets[0].getsockname()[1]
        click.echo(f"Page and interface: http://{shown}:{port}{params.root_path}/   (Ctrl-C ends it)")
        with suppress(KeyboardInterrupt), _ending_on_hangup():
            uvicorn.Server(configure_server(app, service, host, port)).run(sockets=sockets)


def read_host(host: str) -> tuple[str, str]:
    """The listening address without brackets, and as written in a URL."""
    bare = host.strip().removeprefix("[").removesuffix("]")
    return bare, f"[{bare}]" if ":" in bare else bare


@contextmanager
def _ending_on_hangup() -> Iterator[None]:
    """Treat SIGHUP (a closed terminal) and SIGQUIT like SIGTERM, unless they are ignored (nohup)."""
    numbers = [getattr(signal, name) for name in ("SIGHUP", "SIGQUIT") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
