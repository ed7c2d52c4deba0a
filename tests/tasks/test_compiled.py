import numba
import pytest

from tasks import compiled as module
from tasks.compiled import compiled


def thrice(x):
    return 3 * x


def test_compiled__gives_what_python_gives():
    assert compiled(thrice)(14) == 42


def test_compiled__works_where_nothing_can_be_kept(monkeypatch):
    asked = []

    def njit(**options):
        asked.append(options)
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return numba.njit(**options)

    monkeypatch.setattr(module, "njit", njit)
    assert compiled(thrice)(14) == 42
    assert asked == [{"cache": True, "nogil": True}, {"nogil": True}]


def test_compiled__errors_are_those_of_python():
    with pytest.raises(ZeroDivisionError):
        compiled(lambda x: 1 // x)(0)
