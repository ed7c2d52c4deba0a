"""Object storage that fails: every request of a commit answered with an error, cut off, or not at all (moto's server).

A proxy in front of moto's S3 server does to the n-th request what it is told; the rest goes through.
"""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from benchmarks.faults_commit import KEY, STAGE, UnsoundError, publish
from flows.refusals import trouble
from storage import store as store_module
from storage.store import Store
from storage.verify import verify

# 500 and 503 are tried again; 403 and 404 are not; "cut off" breaks the connection in the middle of an upload or an
# answer, "silence" answers after longer than the client waits.
FAULTS = ("500", "503", "403", "404", "cut off", "silence")
_ERRORS = {"500": "InternalError", "503": "SlowDown", "403": "AccessDenied", "404": "NoSuchBucket"}
_PATIENCE = 0.3


@dataclass(kw_only=True)
class Service:
    """An S3 service in this process; `fault(number)` says what becomes of each request, "" for nothing."""

    requests: int = 0
    fault: Callable[[int], str] = lambda number: ""
    url: str = ""
    _lock: Any = field(default_factory=threading.Lock)

    def wrapped(self, inner: Callable[..., Any]) -> Callable[..., Any]:
        """The WSGI application in front of moto's."""

        def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:  # noqa: ANN401 - WSGI
            with self._lock:
                self.requests += 1
                fault = self.fault(self.requests)
            if fault in _ERRORS:
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                start_response(f"{fault} Fault", [("Content-Type", "application/xml")])
                return [f"<Error><Code>{_ERRORS[fault]}</Code><Message>a test</Message></Error>".encode()]
            if fault == "silence":
                time.sleep(3 * _PATIENCE)
            if fault == "cut off":
                # A part of the upload has arrived; nothing of it may be seen, and no answer comes.
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0) // 2)
                environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
                raise ConnectionResetError
            return inner(environ, start_response)

        return application


class _Quiet(WSGIRequestHandler):
    def log(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def service() -> Iterator[Service]:
    """The service, while it is used, in the environment of this process."""
    made = Service()
    application = made.wrapped(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_Quiet)
    made.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with tempfile.TemporaryDirectory() as cache, _environment(made.url, cache=cache), _impatient():
        yield made
    server.shutdown()
    thread.join()


@contextmanager
def _environment(url: str, *, cache: str) -> Iterator[None]:
    settings: Mapping[str, str] = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "TALLY_CACHE": cache,
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)


@contextmanager
def _impatient() -> Iterator[None]:
    """Two attempts and short waits in place of the product's, so that a fault takes a second and not minutes."""
    before = store_module._ATTEMPTS, store_module._PATIENCE
    store_module._ATTEMPTS = 2
    store_module._PATIENCE = {"connect_timeout": 5, "read_timeout": _PATIENCE}
    try:
        yield
    finally:
        store_module._ATTEMPTS, store_module._PATIENCE = before


def faults(*, kinds: tuple[str, ...] = FAULTS, every: int = 1) -> dict[str, Any]:
    """Each fault at each request of a commit (or `every` n-th one), for a moment and for as long as it lasts.

    For a moment: one request; the client's own attempts may get over it. For long: all from there on; the commit must
    raise an OSError that says so. Afterwards nothing half is seen, and a commit without a fault completes.
    """
    found = {"faults": 0, "got over": 0, "told": 0}
    with service() as made:
        count = _commit(made, lambda number: "")[1]
        for kind in kinds:
            for number in range(1, count + 1, every):
                for last in (number, 2**31):
                    told, _ = _commit(made, partial(_between, kind=kind, first=number, last=last))
                    found["faults"] += 1
                    found["told" if told else "got over"] += 1
    return {"requests of a commit": count, **found}


def _between(number: int, *, kind: str, first: int, last: int) -> str:
    return kind if first <= number <= last else ""


def _commit(made: Service, fault: Callable[[int], str]) -> tuple[bool, int]:
    """A commit under a fault: whether it told of it, and how many requests it made."""
    made.fault = lambda number: ""
    bucket = f"bucket-{uuid.uuid4().hex}"
    store = Store.open(f"s3://{bucket}/store")
    store._fs.mkdir(bucket)
    made.requests, made.fault = 0, fault
    told, digest = False, ""
    try:
        digest = publish(store)
    except OSError as error:
        told = True
        if bucket not in trouble(error):
            raise UnsoundError(f"{trouble(error)!r} does not say where") from error
    except Exception as error:
        raise UnsoundError(f"raised {error!r}") from error
    count, made.fault = made.requests, lambda number: ""
    _require_sound(store, digest=digest)
    return told, count


def _require_sound(store: Store, *, digest: str) -> None:
    found = store.find(STAGE, key=KEY)
    if digest and found is None:
        raise UnsoundError("what was committed is gone")
    if found is not None:
        for row in found.ok:
            store.read(row)
    if verify(store).damage:
        raise UnsoundError(f"damage: {verify(store).damage}")
    again = publish(store)
    if digest and again != digest:
        raise UnsoundError("done again, it is another")
