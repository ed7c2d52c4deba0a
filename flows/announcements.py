"""What Tally tells a Prefect server: that a catalog has a new version. Automations start runs on it.

The payload is small however many products changed: it names the version, and who needs the products reads them there.
"""

from __future__ import annotations

import os

from storage.catalogs import CatalogVersion
from storage.digest import JSON
from storage.store import Store

CATALOG_UPDATED = "tally.catalog.updated"
_SKUS_SENT = 200


def catalog_payload(version: CatalogVersion, *, store: Store) -> dict[str, JSON]:
    """The event's payload: what a retraining needs to start, and the first changed products for who reads it."""
    return {
        "catalog": version.catalog,
        "version": version.number,
        "action": version.action,
        "skus": list(version.skus[:_SKUS_SENT]),
        "changed": len(version.skus),
        "products": version.products,
        "dataset": version.dataset,
        "store": store.url,
    }


def announce_version(version: CatalogVersion, *, store: Store) -> str:
    """Send the event where a Prefect server is configured; returns what to tell the user."""
    if not _server_configured():
        return "no Prefect server is configured (PREFECT_API_URL): `tally retrain` learns the change here"
    from flows.prefect_events import send_event

    resource = {"prefect.resource.id": f"tally.catalog.{version.catalog}", "prefect.resource.name": version.catalog}
    payload = catalog_payload(version, store=store)
    send_event(CATALOG_UPDATED, resource=resource, payload=payload)
    return f"event {CATALOG_UPDATED} sent to Prefect"


def _server_configured() -> bool:
    """Whether there is a server, without importing Prefect where the environment says it already."""
    if "PREFECT_API_URL" in os.environ:
        return True
    from flows.environment import set_prefect_defaults

    set_prefect_defaults()
    from prefect.settings import get_current_settings

    return get_current_settings().api.url is not None
