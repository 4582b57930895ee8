"""Configuration of the service: limits, workers, access, and the folders of its collection."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator, Field

from vmnet_pipeline.params import Params

MEBIBYTE = 1 << 20
TRANSPORT = "vmnet.transport"  # extension of the ASGI scope: the transport of the connection
MAX_PREFIX_LENGTH = 200
_PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]+)*")


def is_prefix(text: str) -> bool:
    """Whether this is empty or a path such as `/music`, without a trailing slash."""
    return len(text) <= MAX_PREFIX_LENGTH and _PREFIX.fullmatch(text) is not None


def _check_network(text: str) -> str:
    ipaddress.ip_network(text)
    return text


def _check_prefix(text: str) -> str:
    text = text.rstrip("/")
    if not is_prefix(text):
        raise ValueError("write a path of letters, digits and `-._~` that begins with a slash")
    return text


class ServeParams(Params):
    """Limits of the service, set with `kedro serve --set NAME=VALUE`."""

    n_workers: int = Field(1, ge=1, le=64, description="Processes that embed uploads; each holds the networks once.")
    max_waiting: int = Field(
        8, ge=0, description="Uploads that may wait in addition to those being processed; more are refused with 429."
    )
    max_upload_mb: float = Field(200.0, gt=0.0, description="Largest media file, in MiB.")
    keep_upload_s: float = Field(
        900.0, gt=0.0, description="An upload that the page may ask about again is removed after this time without use."
    )
    max_kept_mb: float = Field(
        2048.0, gt=0.0, description="All these uploads together, in MiB; the one unused for longest gives way."
    )
    max_json_mb: float = Field(16.0, gt=0.0, description="Largest JSON body (features), in MiB.")
    max_duration_s: float = Field(3600.0, gt=0.0, description="Longest media file, in seconds.")
    request_timeout_s: float = Field(120.0, gt=0.0, description="After this a request ends with 504.")
    media_timeout_s: float = Field(1800.0, gt=0.0, description="The same for sending one media file.")
    job_timeout_s: float = Field(
        60.0, gt=0.0, description="Longest processing of one upload; then its worker is replaced."
    )
    max_top_k: int = Field(100, ge=1, description="Most results of one request.")
    max_connections: int = Field(256, ge=1, description="Open connections; requests of more are refused with 503.")
    head_timeout_s: float = Field(
        10.0, gt=0.0, description="A connection without a complete head after this time is closed."
    )
    min_body_kb_s: float = Field(
        32.0,
        ge=0.0,
        description="Least average rate of a body in KiB/s after head_timeout_s; a slower one ends with 408.",
    )
    write_timeout_s: float = Field(
        30.0, gt=0.0, description="A client that takes less than 32 KiB of its responses in this time is disconnected."
    )
    reload_every_s: float = Field(2.0, gt=0.0, description="How often the service looks for a new search index.")
    max_map_points: int = Field(2000, ge=0, description="Points of each side on the page's map; 0: no map.")
    allowed_hosts: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        ("127.0.0.1", "localhost"), description="Accepted Host headers, against DNS rebinding; `*`: any."
    )
    allowed_origins: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), description="Origins of other pages that may use the service (CORS), e.g. `https://example.org`."
    )
    trusted_proxies: tuple[Annotated[str, AfterValidator(_check_network)], ...] = Field(
        ("127.0.0.1", "::1"),
        description="Addresses or networks of proxies whose `X-Forwarded-Prefix`, `-For` and `-Proto` are trusted.",
    )
    root_path: Annotated[str, AfterValidator(_check_prefix)] = Field(
        "",
        description="Path below which a proxy serves it, e.g. `/music`, unless the proxy sends `X-Forwarded-Prefix`.",
    )

    def admit_host(self, host: str) -> ServeParams:
        """Copy with the name of the listening address among `allowed_hosts`, unless it means any address."""
        names = {"::": ["::1"], "localhost": ["::1"], "0.0.0.0": [], "": []}.get(host, [host])  # noqa: S104
        return self.model_copy(update={"allowed_hosts": tuple(dict.fromkeys([*self.allowed_hosts, *names]))})

    @property
    def max_upload_bytes(self) -> int:
        """`max_upload_mb` in bytes."""
        return int(self.max_upload_mb * MEBIBYTE)
