import pytest

from flows.options import RunOptions
from flows.refusals import checked


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"preset": "huge"}, "preset: expected 'micro', 'demo', 'cpu', 'gpu' or 'paper', got 'huge'"),
        ({"seed": -1}, "seed: expected at least 0, got -1"),
        ({"seed": "x"}, "seed: expected integer, unable to parse string as an integer, got 'x'"),
        ({"name": "a/b"}, "name: expected text that matches ^([A-Za-z0-9_-][A-Za-z0-9._-]*)?$, got 'a/b'"),
        ({"datset": "d"}, "datset: expected no such key, got 'd'"),
        ({"from_stage": "cut"}, "from: expected a stage (ingest, "),
        ({"only": "prune", "to_stage": "train"}, "only: expected no --from and no --to beside it, got both"),
    ],
)
def test_checked__says_key_expected_and_got(values, line):
    with pytest.raises(ValueError, match="expected") as refused:
        checked(RunOptions, {"dataset": "d", **values})
    assert str(refused.value).startswith(line)


def test_checked__names_a_missing_key():
    with pytest.raises(ValueError, match="^dataset: expected a value, got nothing$"):
        checked(RunOptions, {})
