"""Three stages of text in a row, for tests of how runs are cached: they note each time that they are computed."""

from storage.manifest import ManifestRow
from tasks.params import StageParams
from tasks.stage import Stage

COMPUTED = []


class WordParams(StageParams):
    stage = "word"
    text: str = "tea"


class UpperParams(StageParams):
    stage = "upper"
    exclamations: int = 0


class LengthParams(StageParams):
    stage = "length"


def word(context, *, params):
    write(context, params.text)


def upper(context, *, params, source):
    write(context, context.read(source.row("text")).decode().upper() + "!" * params.exclamations)


def length(context, *, params, source):
    write(context, str(len(context.read(source.row("text")))))


def write(context, text):
    COMPUTED.append(context.stage)
    context.put(text.encode(), path="text.txt", row=ManifestRow(item_id="text"))


STAGES = {
    "word": Stage(params_class=WordParams, function=word),
    "upper": Stage(params_class=UpperParams, function=upper),
    "length": Stage(params_class=LengthParams, function=length),
}


def climb(run, *, text="tea", exclamations=0):
    """word → upper → length with any runner; returns the text of the last."""
    first = run.stage("word", WordParams(text=text))
    second = run.stage("upper", UpperParams(exclamations=exclamations), source=first)
    third = run.stage("length", LengthParams(), source=second)
    return run.store.read(third.row("text")).decode()
