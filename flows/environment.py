"""Settings that Prefect reads from the environment, given sound defaults before Prefect is imported."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

_DEFAULTS = {
    # The embedded server takes 22-28 s to start on two cores; Prefect gives up after 20.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    # Unbatched, the server's recorder writes about 20 rows a second.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TRIGGERS_READ_BATCH_SIZE": "100",
}


def set_prefect_defaults(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set what is not set yet; a user's own settings win."""
    for name, value in _DEFAULTS.items():
        environment.setdefault(name, value)
