"""Retraining on a real server: a new product's event starts it, and of several that wait only the newest is run."""

import pytest

from benchmarks.reduced_dataset import only_product, without_product
from benchmarks.services import TALLY

_SKU = "orchello_apple"


@pytest.fixture(scope="module")
def shop(stack):
    """A data set without one product, in the folder `shop` of the worker's home, and that product in `arrived`."""
    from tests.conftest import SAMPLE

    without_product(SAMPLE, sku=_SKU, out=stack.home / "shop")
    only_product(SAMPLE, sku=_SKU, out=stack.home / "arrived")
    return "shop"


def runs_of(stack, deployment, *states):
    found = stack.stack.get(f"/deployments/name/{deployment}")["id"]
    wanted = {"deployment_id": {"any_": [found]}, "state": {"type": {"any_": list(states)}}}
    return stack.stack.ask("/flow_runs/filter", flow_runs=wanted)


def test_new_product__starts_retraining_and_newer_wishes_replace_older_ones(stack, shop):
    stack.stack.run(*TALLY, "catalog", "add", "arrived", "--dataset", shop)
    stack.wait_for(lambda: bool(runs_of(stack, "retrain/cpu", "RUNNING")), "retraining after a new product")
    (first,) = runs_of(stack, "retrain/cpu", "RUNNING")
    assert first["parameters"]["catalog"] == "shop"
    assert first["parameters"]["dataset"] == str((stack.home / "shop").resolve())
    older = stack.start("retrain/cpu", dataset=shop, catalog="shop", preset="micro")
    newer = stack.start("retrain/cpu", dataset=shop, catalog="shop", preset="micro")
    stack.cancel(first["id"])
    # Which of both the server lets in first is chance: either way the older one gives way.
    name, message = stack.end(older)
    assert name == "Cancelled" and "replaced by" in message
    stack.wait_for(lambda: stack.state(newer) == "Running", "the newest of the waiting runs")
    stack.cancel(newer)
    assert stack.end(newer)[0] == "Cancelled"
