import errno
import sys
from contextlib import contextmanager

import pytest
from botocore.exceptions import EndpointConnectionError

from storage.manifest import ManifestRow
from storage.store import Store
from tasks import stage as stage_module
from tasks.params import StageParams
from tasks.process import StageFailedError, run_in_child
from tasks.stage import (
    KilledStageError,
    Stage,
    execute,
    is_transient,
    key_of,
    load_input,
    look_up,
    run_stage_locally,
    stage,
)


class CopyParams(StageParams):
    stage = "copy"
    suffix: str = "!"


CALLS = []


@stage(CopyParams)
def copy(context, *, params, source=None):
    CALLS.append(params.suffix)
    text = "nothing" if source is None else context.read(source.row("text")).decode()
    context.put((text + params.suffix).encode(), path="text.txt", row=ManifestRow(item_id="text"))
    context.content["length"] = len(text)
    context.report(letters=len(text))


@pytest.fixture
def store(tmp_path, monkeypatch):
    CALLS.clear()
    monkeypatch.setattr(stage_module, "load_stage", {"copy": copy}.__getitem__)
    return Store.open(str(tmp_path))


def test_execute__computes_once_and_takes_the_cached_result_after(store):
    first, one = execute(CopyParams(), inputs={}, store=store)
    second, two = execute(CopyParams(), inputs={}, store=store)
    assert (one.cached, two.cached, CALLS) == (False, True, ["!"])
    assert first.content_digest == second.content_digest == two.content_digest


def test_execute__records_parameters_inputs_and_metrics(store):
    first, _ = execute(CopyParams(), inputs={}, store=store)
    second, _ = execute(CopyParams(suffix="?"), inputs={"source": first}, store=store)
    assert store.read(second.row("text")) == b"nothing!?"
    assert second.metadata["parameters"] == {"seed": 0, "suffix": "?"}
    assert second.metadata["inputs"]["source"]["content_digest"] == first.content_digest
    assert second.metadata["metrics"] == {"letters": 8}
    assert second.content == {"length": 8}


def test_execute__runs_again_when_an_artifact_is_gone(store):
    manifest, _ = execute(CopyParams(), inputs={}, store=store)
    store._fs.rm(store._path(manifest.row("text").url))
    assert look_up(CopyParams(), inputs={}, store=store) is None
    _, result = execute(CopyParams(), inputs={}, store=store)
    assert (result.cached, CALLS) == (False, ["!", "!"])


def test_execute__refresh_computes_again(store):
    execute(CopyParams(), inputs={}, store=store)
    _, result = execute(CopyParams(), inputs={}, store=store, refresh=True)
    assert (result.cached, len(CALLS)) == (False, 2)


def test_execute__tells_start_and_end(store):
    events = []
    execute(CopyParams(), inputs={}, store=store, events=events.append)
    assert [event["kind"] for event in events] == ["start", "metrics", "end"]
    assert events[0]["cached"] is False


def test_execute__publishes_nothing_when_the_stage_fails(store, monkeypatch):
    def broken(context, *, params):
        context.put(b"half", path="half.txt", row=ManifestRow(item_id="half"))
        raise OSError("disk full")

    monkeypatch.setattr(stage_module, "load_stage", lambda _: Stage(params_class=CopyParams, function=broken))
    with pytest.raises(OSError, match="disk full"):
        execute(CopyParams(), inputs={}, store=store)
    assert look_up(CopyParams(), inputs={}, store=store) is None


def test_key_of__does_not_depend_on_where_an_input_lies(tmp_path, store):
    here = run_stage_locally(copy, CopyParams(), store=store)
    there = run_stage_locally(copy, CopyParams(), store=Store.open(str(tmp_path / "other")))
    assert here.url != there.url
    assert key_of(CopyParams(), inputs={"source": here}) == key_of(CopyParams(), inputs={"source": there})


def test_key_of__a_later_setting_counts_where_it_says_something_else():
    class MoreParams(CopyParams):
        later = {"upper": False}
        upper: bool = False

    assert key_of(MoreParams(), inputs={}) == key_of(CopyParams(), inputs={})
    assert key_of(MoreParams(upper=True), inputs={}) != key_of(CopyParams(), inputs={})
    assert key_of(MoreParams(suffix="?"), inputs={}) == key_of(CopyParams(suffix="?"), inputs={})


def test_load_input__takes_urls_references_and_lists(store):
    manifest, result = execute(CopyParams(), inputs={}, store=store)
    assert load_input(None, store=store) is None
    assert load_input(manifest.url, store=store).content_digest == manifest.content_digest
    assert [one.url for one in load_input([result.to_json()], store=store)] == [manifest.url]


def test_stage__refuses_a_function_of_another_name():
    with pytest.raises(AssertionError, match="must be named copy"):

        @stage(CopyParams)
        def paste(context, *, params):
            raise NotImplementedError


def test_run_in_child__tells_the_end_of_the_log_when_the_child_fails(store):
    with pytest.raises(StageFailedError, match="No module named 'tasks.copy'"):
        run_in_child(CopyParams(), key="k", inputs={}, store=store, workers=1, events=lambda _: None)


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (KilledStageError("killed by signal 9"), True),
        (StageFailedError("ended with exit code 1"), False),
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (OSError(errno.EIO, "disk"), True),
        (OSError(errno.ENOSPC, "disk full"), False),
        (FileNotFoundError(errno.ENOENT, "gone"), False),
        (EndpointConnectionError(endpoint_url="http://s3"), True),
        (ValueError("preset: expected …"), False),
        (None, False),
    ],
)
def test_is_transient__where_trying_again_can_help(error, again):
    assert is_transient(error) is again


def test_execute__waits_for_admission_only_when_it_computes(store):
    admitted = []

    @contextmanager
    def slot(params):
        admitted.append(params.stage)
        yield

    for _ in range(2):
        execute(CopyParams(), inputs={}, store=store, admitted=slot)
    assert admitted == ["copy"]


def test_look_up__imports_neither_torch_nor_prefect(tmp_path):
    import subprocess

    code = """
import sys
from flows.runner import LookUpRunner, NotCachedError
from flows import cli
from storage.store import Store
from tasks.params import CoarseParams
try:
    LookUpRunner(store=Store.open(sys.argv[1])).stage("coarse", CoarseParams())
except NotCachedError:
    print(sorted({"torch", "prefect", "matplotlib"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
