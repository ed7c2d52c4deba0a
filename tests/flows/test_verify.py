import errno
import json

import pytest

from flows import cli
from flows.refusals import trouble
from flows.runner import LocalRunner
from storage.files import local_path
from tests.flows.small_pipeline import COMPUTED, climb


def verified(capsys, *options):
    """Exit code and output of `tally verify`."""
    code = 0
    try:
        cli.app(["verify", *options], exit_on_error=False, print_error=False)
    except SystemExit as end:
        code = end.code
    return code, capsys.readouterr().out


def test_verify__tells_damage_sets_it_aside_and_a_run_makes_it_again(store, capsys):
    runner = LocalRunner(store=store)
    before = climb(runner)
    assert verified(capsys, "--store", store.url)[0] == 0
    path = local_path(runner.results["upper"].manifest).parent / "text.txt"
    path.write_text("TEE")
    code, told = verified(capsys, "--store", store.url)
    assert code == cli.EXIT_DAMAGED and "1 damaged among 3 manifests, 3 files" in told.replace("\n", " ")
    code, told = verified(capsys, "--store", store.url, "--quarantine", "--json")
    report = json.loads(told)
    assert (code, report["sound"], report["moved"]) == (cli.EXIT_DAMAGED, False, 1)
    assert report["damage"][0]["url"] == f"file://{path}"
    assert verified(capsys, "--store", store.url)[0] == 0
    COMPUTED.clear()
    assert climb(LocalRunner(store=store)) == before
    assert COMPUTED == ["upper"]


@pytest.mark.parametrize("command", ["verify", "gc"])
def test_commands_on_a_store__refuse_a_folder_that_is_none(tmp_path, command):
    with pytest.raises(ValueError, match="expected a store"):
        cli.app([command, "--store", str(tmp_path / "none")], exit_on_error=False, print_error=False)


def test_execute__sets_a_broken_manifest_aside_and_says_so(store):
    runner, events = LocalRunner(store=store), []
    climb(runner)
    path = local_path(runner.results["upper"].manifest)
    data = path.read_bytes()
    path.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    climb(LocalRunner(store=store, events=events.append))
    [said] = [event["message"] for event in events if event["kind"] == "log"]
    assert said.startswith("set aside, made again: file://") and "the file was changed" in said
    aside = local_path(store.url) / "quarantine" / "upper" / path.parent.name
    assert sorted(one.name for one in aside.iterdir()) == ["manifest.parquet", "reason.json"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/s/a"), "/s/a: No space left on device; make room"),
        (PermissionError(errno.EACCES, "Permission denied", "/s"), "/s: Permission denied; give this user"),
        (OSError(errno.EIO, "Input/output error", "/s"), "/s: Input/output error; the disk could not do it"),
        (ConnectionError("bucket/a: the object storage did not answer"), "did not answer; what is finished is kept"),
        (RuntimeError("stage train was killed"), "stage train was killed"),
    ],
)
def test_trouble__says_where_what_and_what_to_do(error, said):
    assert said in trouble(error)
