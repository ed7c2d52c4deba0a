import errno

import pytest
from aiohttp import ClientConnectionError, ClientOSError, SocketTimeoutError
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)

from storage.service import answering

CLIENTS = [
    ReadTimeoutError(endpoint_url="http://127.0.0.1:9000/bucket"),
    ConnectTimeoutError(endpoint_url="http://127.0.0.1:9000/bucket"),
    EndpointConnectionError(endpoint_url="http://127.0.0.1:9000/bucket"),
    NoCredentialsError(),
    ClientError({"Error": {"Code": "503", "Message": "slow down"}}, "PutObject"),
    SocketTimeoutError("Timeout on reading data from socket"),
    ClientConnectionError("Connection closed"),
    ClientOSError(errno.ECONNRESET, "Connection reset by peer"),
]


class _Failing:
    """A file system whose every call raises."""

    def __init__(self, error):
        self._error = error

    def cat_file(self, path):
        raise self._error


def raised(error):
    with pytest.raises(Exception) as caught:
        answering(_Failing(error)).cat_file("bucket/store/file")
    assert caught.value.__cause__ is error
    return caught.value


@pytest.mark.parametrize("error", CLIENTS, ids=lambda one: type(one).__name__)
def test_answering__every_error_of_a_client_is_a_connection_error_that_says_where(error):
    told = raised(error)
    assert type(told) is ConnectionError
    assert str(told) == f"bucket/store/file: the object storage did not answer as it should ({error})"


@pytest.mark.parametrize("kind", [PermissionError, OSError, TimeoutError, ConnectionResetError])
def test_answering__the_kind_and_number_of_an_os_error_stay(kind):
    told = raised(kind(errno.EIO, "broken"))
    assert (type(told), told.errno, told.strerror) == (
        type(kind(errno.EIO, "")),
        errno.EIO,
        "bucket/store/file: broken",
    )


@pytest.mark.parametrize("kind", [FileNotFoundError, FileExistsError, IsADirectoryError])
def test_answering__what_callers_tell_apart_keeps_its_class(kind):
    assert type(raised(kind("gone"))) is kind


class _OwnError(TimeoutError):
    """One that can't be made of a number and a text."""

    def __init__(self, *, place):
        super().__init__(f"at {place}")


def test_answering__a_foreign_os_error_is_of_the_nearest_kind_of_pythons():
    told = raised(_OwnError(place="home"))
    assert type(told) is TimeoutError and "bucket/store/file: at home" in str(told)


def test_answering__other_errors_pass():
    error = ValueError("a bug")
    with pytest.raises(ValueError, match="^a bug$"):
        answering(_Failing(error)).cat_file("bucket")
