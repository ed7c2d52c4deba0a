"""The HTTP endpoint: `POST /v1/checkout` with a photo gives its shopping list. Limits, token, health, readiness.

The photo is the body itself (`curl --data-binary @photo.jpg`). Every upload is checked before it reaches the model: its
size while it arrives, its pixels by its header, and it is decoded on its own, so that a bad one disturbs no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

from flows.serving import Batcher, BusyError, ReadingError, Served
from storage.images import Picture, decode_reduced, picture_size
from tasks.shopping_list import prices_of, shopping_list

_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_BODY = {"requestBody": {"required": True, "content": {"image/jpeg": _BINARY, "image/png": _BINARY}}}
# How many times the most bytes an upload may have before its connection is closed.
_DRAINED = 4
_BEARER = HTTPBearer(auto_error=False)
_TEXTS = {
    401: "no token, or a wrong one",
    408: "the upload took too long",
    413: "more bytes or pixels than allowed",
    415: "not a JPEG or PNG",
    422: "a truncated or broken picture",
    500: "the model could not read the photo",
    503: "no model yet, or too many photos wait",
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one upload may be; `most_held_bytes`: of all uploads under way; `decoding`: photos decoded at once."""

    most_bytes: int = 10_000_000
    most_held_bytes: int = 200_000_000
    most_pixels: int = 30_000_000
    seconds: float = 30.0
    decoding: int = 4


class Product(BaseModel):
    """One line of a shopping list; `price` of one piece and `amount` where the catalog has a price."""

    sku: str
    name: str
    count: int
    confidence: float
    price: float | None
    amount: float | None


class Checkout(BaseModel):
    """A photo's shopping list. `confidence`: the probability that all of it is right; `state` is accepted or
    needs-review, and `reason` says why it needs one; `total` is the receipt's where every product has a price."""

    items: int
    confidence: float
    state: str
    reason: str
    total: float | None
    products: list[Product]


class Problem(BaseModel):
    """What was wrong with a request."""

    detail: str


class Status(BaseModel):
    """How the endpoint is: `loads` counts the models loaded since it started."""

    status: str
    loads: int
    problem: str


def create_app(served: Served, *, token: str | None, limits: Limits, every: float = 1.0, batch: int = 8) -> FastAPI:
    """The application. `token` None: everybody may ask; `every`: seconds between two looks at the model's files."""
    batcher, decoding = Batcher(served=served, batch=batch), asyncio.Semaphore(limits.decoding)
    uploads = _Uploads(limits=limits)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(one) for one in (_refresh(served, every=every), batcher.work())]
        yield
        for task in tasks:
            task.cancel()

    app = FastAPI(title="Tally", summary="Shopping lists off checkout photos", lifespan=lifespan)

    def allowed(given: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]) -> None:
        said = given.credentials.encode() if given else b""
        if token is not None and not secrets.compare_digest(said, token.encode()):
            raise HTTPException(401, _TEXTS[401], headers={"WWW-Authenticate": "Bearer"})

    responses: dict[int | str, dict[str, Any]] = {
        code: {"model": Problem, "description": text} for code, text in _TEXTS.items()
    }

    @app.post("/v1/checkout", dependencies=[Depends(allowed)], openapi_extra=_BODY, responses=responses)
    async def checkout(request: Request) -> Checkout:
        """The shopping list of the photo in the body."""
        if served.reader is None:
            raise _busy("no model yet")
        async with uploads.taken(request) as data, decoding:
            photo_HW3 = await asyncio.to_thread(
                _decoded, data, most_pixels=limits.most_pixels, least_side=served.reader.least_side
            )
        try:
            reader, (objects, count) = await batcher.read(photo_HW3)
        except BusyError as error:
            raise _busy("too many photos wait") from error
        except ReadingError as error:
            raise HTTPException(500, _TEXTS[500]) from error
        one = shopping_list(
            "",
            objects=objects,
            threshold=reader.threshold,
            names={category.sku: category.title for category in reader.categories},
            prices=prices_of(reader.categories),
            count=count,
            trust=reader.confidence,
        )
        products = [Product(**asdict(line), amount=line.amount) for line in one.products]
        return Checkout(
            items=one.items,
            confidence=one.confidence,
            state=one.state,
            reason=one.reason,
            total=one.total,
            products=products,
        )

    @app.get("/health")
    async def health() -> Status:
        """Whether the process lives."""
        return Status(status="ok", loads=served.loads, problem=served.problem)

    @app.get("/ready", responses={503: {"model": Problem, "description": "no model yet"}})
    async def ready() -> Status:
        """Whether it can read photos."""
        if served.reader is None:
            raise HTTPException(503, served.problem or "no model yet")
        return Status(status="ready", loads=served.loads, problem=served.problem)

    return app


async def _refresh(served: Served, *, every: float) -> None:
    while True:
        await asyncio.to_thread(served.refresh)
        await asyncio.sleep(every)


@dataclass(kw_only=True)
class _Uploads:
    """The bytes of all uploads that are under way or wait to be decoded, bounded together; many slow ones hold few."""

    limits: Limits
    held: int = 0

    @contextlib.asynccontextmanager
    async def taken(self, request: Request) -> AsyncIterator[bytes]:
        """The body of a request, given up when it is too large or too slow, or when too much is under way."""
        data = bytearray()
        try:
            async with asyncio.timeout(self.limits.seconds):
                await self._receive(request, into=data)
            yield bytes(data)
        except TimeoutError as error:
            raise HTTPException(408, _TEXTS[408]) from error
        finally:
            self.held -= len(data)

    async def _receive(self, request: Request, *, into: bytearray) -> None:
        most, passed = self.limits.most_bytes, 0
        async for chunk in request.stream():
            passed += len(chunk)
            # A client that still sends would not see the answer: a part of what is too much is let pass unread.
            if passed > _DRAINED * most:
                break
            if passed > most:
                continue
            if self.held + len(chunk) > self.limits.most_held_bytes:
                raise _busy("too many uploads are under way")
            self.held += len(chunk)
            into += chunk
        if passed > most:
            raise HTTPException(413, f"photo: expected at most {most} bytes, got more")


def _busy(why: str) -> HTTPException:
    return HTTPException(503, why, headers={"Retry-After": "1"})


def _decoded(data: bytes, *, most_pixels: int, least_side: int) -> Picture:
    """The photo, no larger than it need be, or an HTTPException with what is wrong with it."""
    if not data.startswith((b"\xff\xd8", b"\x89PNG\r\n\x1a\n")):
        raise HTTPException(415, "photo: expected a JPEG or PNG as the body")
    try:
        width, height = picture_size(data)
        if width * height > most_pixels:
            raise HTTPException(413, f"photo: expected at most {most_pixels} pixels, got {width} x {height}")
        return decode_reduced(data, least_side=least_side)
    except ValueError as error:
        raise HTTPException(422, str(error)) from error
