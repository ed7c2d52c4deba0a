"""Who may do what: one dependency that every route carries, sign-in with a token, and the token of each form.

Reading is open on loopback; elsewhere it needs the token, as every action does everywhere. Whoever gives the token gets
a signed cookie for half a day; a form carries a token made from that cookie, so that no other site can post it. On
loopback a request must also name this host: a foreign name that resolves to it (DNS rebinding) is turned away.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

import orjson
from fastapi import Request, Response

from inspector.problems import PageError

COOKIE = "tally-inspector"
_SECONDS = 12 * 3600
_MOST_FORM_BYTES = 64_000
_LEAST_TOKEN = 16
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1", "[::1]"})
# They show nothing of the store.
_PUBLIC = ("/sign-in", "/health", "/static/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """Whoever sends a request: a random number of their own, the name they gave, and whether they gave the token."""

    nonce: str
    name: str = ""
    signed_in: bool = False


class SignInError(PageError):
    """The page needs the token."""

    def __init__(self) -> None:
        """Say so."""
        super().__init__(401, "Sign in", "This needs the inspector's token.")


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can only be reached from this machine."""
    return host in _LOOPBACK or host.startswith("127.")


def require_token(token: str | None, *, host: str) -> None:
    """Raise ValueError where a service would listen beyond this machine without a token."""
    if token is None and not is_loopback(host):
        raise ValueError(
            f"host: expected --token-file when listening beyond this machine, got none for {host}; "
            "put a long random text into a file, or listen on 127.0.0.1"
        )


def checked_token(token: str | None, *, host: str) -> str:
    """The token to be used: the one given; without one, on loopback, a new one.

    Raises:
        ValueError: it is too short, or there is none although the host is not loopback.
    """
    require_token(token, host=host)
    if token is not None and len(token) < _LEAST_TOKEN:
        raise ValueError(f"token: expected at least {_LEAST_TOKEN} characters, got {len(token)}")
    return token or secrets.token_urlsafe(24)


class Access:
    """The inspector's door. `open_reading`: pages can be read without the token."""

    def __init__(self, *, token: str, open_reading: bool, clock: Callable[[], float] = time.time) -> None:
        """Guard with `token`."""
        self._token, self._open_reading, self._clock = token.encode(), open_reading, clock
        self._secret = hashlib.sha256(b"tally inspector " + self._token).digest()

    async def guard(self, request: Request) -> None:
        """Let a request through, or raise PageError; what is known of its sender stays in `request.state.visitor`."""
        visitor = self._visitor(request)
        request.state.visitor = visitor
        request.state.form_token = self.form_token(visitor)
        if self._open_reading and not is_loopback(request.url.hostname or ""):
            raise PageError(421, "Another host", "This inspector answers under this machine's own name only.")
        posts = request.method not in ("GET", "HEAD")
        if posts:
            await self._check_form(request, visitor=visitor)
        public = request.url.path.startswith(_PUBLIC)
        if public or visitor.signed_in or (not posts and (self._open_reading or self._bears_token(request))):
            return
        raise SignInError

    def knows(self, token: str) -> bool:
        """Whether this is the token; takes as long either way."""
        return hmac.compare_digest(token.encode(), self._token)

    def admit(self, response: Response, *, name: str, secure: bool) -> None:
        """Give the sender a cookie as one who gave the token, under a new number."""
        self._set_cookie(response, Visitor(nonce=secrets.token_urlsafe(18), name=name, signed_in=True), secure=secure)

    def remember(self, response: Response, visitor: Visitor, *, secure: bool) -> None:
        """Give the sender a cookie as a visitor, so that the sign-in form can be told from a forged one."""
        self._set_cookie(response, visitor, secure=secure)

    def form_token(self, visitor: Visitor) -> str:
        """What this visitor's forms carry."""
        return hmac.new(self._secret, b"form " + visitor.nonce.encode(), hashlib.sha256).hexdigest()

    async def _check_form(self, request: Request, *, visitor: Visitor) -> None:
        form = await form_of(request)
        request.state.form = form
        if not hmac.compare_digest(form.one("form_token").encode(), self.form_token(visitor).encode()):
            raise PageError(403, "Not sent", "The form is too old or from elsewhere. Open the page again and retry.")

    def _bears_token(self, request: Request) -> bool:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self.knows(token)

    def _visitor(self, request: Request) -> Visitor:
        body, _, signature = request.cookies.get(COOKIE, "").partition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(body).encode()):
            return Visitor(nonce=secrets.token_urlsafe(18))
        told: Mapping[str, object] = orjson.loads(base64.urlsafe_b64decode(body))
        signed_in = bool(told["signed_in"]) and float(str(told["until"])) > self._clock()
        return Visitor(nonce=str(told["nonce"]), name=str(told["name"]), signed_in=signed_in)

    def _set_cookie(self, response: Response, visitor: Visitor, *, secure: bool) -> None:
        told = {
            "nonce": visitor.nonce,
            "name": visitor.name,
            "signed_in": visitor.signed_in,
            "until": self._clock() + _SECONDS,
        }
        body = base64.urlsafe_b64encode(orjson.dumps(told)).decode()
        value = f"{body}.{self._signature(body)}"
        response.set_cookie(COOKIE, value, max_age=_SECONDS, httponly=True, samesite="lax", secure=secure)

    def _signature(self, body: str) -> str:
        return hmac.new(self._secret, b"cookie " + body.encode(), hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of a posted form in their order."""

    fields: tuple[tuple[str, str], ...] = ()

    def one(self, name: str) -> str:
        """The first value of a field, "" where it was not sent."""
        return next(iter(self.all(name)), "")

    def all(self, name: str) -> list[str]:
        """Every value of a field."""
        return [value for field, value in self.fields if field == name]


async def form_of(request: Request) -> Form:
    """The fields of a posted form. Raises PageError when it is too large or no form."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > _MOST_FORM_BYTES:
            raise PageError(413, "Too much", f"A form may have {_MOST_FORM_BYTES} bytes.")
    try:
        return Form(tuple(parse_qsl(data.decode(), keep_blank_values=True, max_num_fields=1000)))
    except ValueError as error:
        raise PageError(400, "Not a form", "The request's body is no form.") from error
