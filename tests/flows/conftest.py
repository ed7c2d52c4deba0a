"""An empty store for the small pipeline of three stages."""

import pytest

from storage.store import Store
from tasks import stage as stage_module
from tests.flows import small_pipeline


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty store for the small pipeline."""
    small_pipeline.COMPUTED.clear()
    monkeypatch.setattr(stage_module, "load_stage", small_pipeline.STAGES.__getitem__)
    return Store.open(str(tmp_path / "store"))
