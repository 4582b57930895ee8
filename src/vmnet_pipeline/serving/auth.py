"""The API key of the service: headers, the cookie of the page, and slowing down of guesses."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.serving.guesses import KeyBrake

if TYPE_CHECKING:
    from starlette.datastructures import Headers
    from starlette.types import Scope

KEY_VARIABLE = "VMNET_API_KEY"
MAX_KEY_LENGTH = 1000
COOKIE = "vmnet_session"


class ApiKey:
    """An optional key. A program sends it with every request; a browser trades it for a cookie."""

    def __init__(self, key: str | None) -> None:
        """Take the key; None: everybody may ask.

        Raises:
            ParameterError: It is a key that nobody could send, or guess at once.
        """
        if key is not None:
            _check_key(key)
        self._key = None if key is None else key.encode()
        self._brake = KeyBrake()

    def accepts(self, given: str) -> bool:
        """Whether this is the key; takes the same time however wrong it is."""
        return self._key is None or hmac.compare_digest(_hash(given.encode()), _hash(self._key))

    async def admits(self, given: str, scope: Scope) -> bool:
        """The same for a client: after several wrong keys it takes longer."""
        is_right = self.accepts(given)
        if self._key is not None:
            await self._brake.wait(scope, is_right=is_right)
        return is_right

    def make_cookie(self) -> str:
        """What a browser gets in exchange; the key cannot be told from it."""
        return hmac.new(self._key or b"", b"session", hashlib.sha256).hexdigest()

    async def allows(self, scope: Scope, headers: Headers) -> bool:
        """Whether a request has the key, or its cookie."""
        if self._key is None:
            return True
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = headers.get("x-api-key", "") or (token if scheme.lower() == "bearer" else "")
        if given:
            return await self.admits(given, scope)
        # A cookie has 256 bits: it is not guessed, and is not delayed.
        cookie = _find_cookie(headers.get("cookie", ""))
        return hmac.compare_digest(_hash(cookie.encode()), _hash(self.make_cookie().encode()))


def _check_key(key: str) -> None:
    remedy = f"set {KEY_VARIABLE} to a long random word, or unset it to serve everybody who reaches the address"
    if not key.strip():
        raise ParameterError(f"{KEY_VARIABLE} is set, but it is {'blank' if key else 'empty'}: {remedy}")
    if not key.isascii() or not key.isprintable() or key != key.strip():
        fault = "has characters that are not ASCII, control characters, or blanks at an end"
        raise ParameterError(f"{KEY_VARIABLE} {fault}, which cannot be sent in a header: {remedy}")
    if len(key) > MAX_KEY_LENGTH:
        raise ParameterError(f"{KEY_VARIABLE} has more than {MAX_KEY_LENGTH} characters: {remedy}")


def _find_cookie(header: str) -> str:
    """The value of our cookie, or nothing.

    `http.cookies` takes seconds for a header full of backslashes, and gives up at a cookie of somebody else that it
    does not understand.
    """
    cookies = (part.strip().partition("=") for part in header.split(";"))
    return next((value for name, _, value in cookies if name == COOKIE), "")


def _hash(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()
