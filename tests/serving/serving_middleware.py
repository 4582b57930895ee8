"""The guard alone, around an application that waits for a while and says ok."""

import asyncio

from vmnet_pipeline.serving.auth import ApiKey
from vmnet_pipeline.serving.config import ServeParams
from vmnet_pipeline.serving.metrics import Metrics
from vmnet_pipeline.serving.middleware import ServiceMiddleware


def call_guard(path, headers, key=None, params=None, seconds=0.0):
    """Status and body of one GET."""
    messages = []

    async def application(scope, receive, send):
        await asyncio.sleep(seconds)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        messages.append(message)

    guard = ServiceMiddleware(application, params=params or ServeParams(), key=key or ApiKey(None), metrics=Metrics())
    raw = [(name.encode(), value.encode()) for name, value in {"host": "127.0.0.1", **headers}.items()]
    scope = {"type": "http", "method": "GET", "path": path, "headers": raw, "query_string": b""}
    asyncio.run(guard(scope, receive, send))
    return messages[0]["status"], b"".join(message.get("body", b"") for message in messages[1:])
