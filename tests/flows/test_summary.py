import pytest

from flows.runs import RunRecord
from flows.summary import summary_lines

FIGURES = {"averaged": {"cAcc": 0.5}}


@pytest.mark.parametrize(
    ("action", "model"), [("promoted", "runs/new/champion"), ("rejected", "champion"), (None, "runs/new/champion")]
)
def test_summary_lines__a_model_that_is_not_the_better_one_is_not_recommended(tmp_path, monkeypatch, action, model):
    monkeypatch.chdir(tmp_path)
    decision = {"action": action, "number": 2, "champion": 1, "reasons": ["no gain on val"]}
    record = RunRecord(
        name="new",
        dataset=str(tmp_path),
        preset="micro",
        store="store",
        parameters={},
        champion="source",
        ladder={"source": FIGURES},
        decision=decision if action else None,
    )
    lines = summary_lines(record, folder=tmp_path.relative_to(tmp_path) / "runs/new")
    assert any(f"tally predict PHOTOS --model {model} --out" in line for line in lines)
    assert any("no gain on val" in line for line in lines) == (action is not None)
