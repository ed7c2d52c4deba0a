"""The pipeline as Prefect flows: `pipeline` with the sub-flows `prepare`, `synthesize` and `distill`.

Imported only when something has to be computed. The stages inside are Prefect tasks (`tasks.stage.prefect_task`); their
results are JSON references, and the store, not Prefect, is the cache.
"""

from __future__ import annotations

from flows.environment import set_prefect_defaults

set_prefect_defaults()

from prefect import flow  # noqa: E402 - the settings above are read at import
from prefect.task_runners import ThreadPoolTaskRunner  # noqa: E402

from flows import pipeline as order  # noqa: E402
from flows.pipeline import DatasetChoice, Outcome, Prepared, Rung, Synthesized  # noqa: E402
from flows.presets import Preset  # noqa: E402
from flows.runner import PrefectRunner  # noqa: E402


def run_pipeline(run: PrefectRunner, *, choice: DatasetChoice, preset: Preset) -> Outcome:
    """Run the whole method as one Prefect flow run and return what it made."""
    stages = ThreadPoolTaskRunner(max_workers=max(1, run.workers))

    # The sub-flows close over the runner: flow parameters are recorded by the server and must stay small JSON.
    @flow(name="prepare", task_runner=stages, validate_parameters=False, persist_result=False)
    def prepare() -> Prepared:
        return order.prepare(run, choice=choice, preset=preset)

    @flow(name="synthesize", task_runner=stages, validate_parameters=False, persist_result=False)
    def synthesize() -> Synthesized:
        return order.synthesize(run, prepared=prepared[0], preset=preset)

    @flow(name="distill", task_runner=stages, validate_parameters=False, persist_result=False)
    def distill() -> dict[str, Rung]:
        return order.distill(run, prepared=prepared[0], synthesized=synthesized[0], preset=preset)

    prepared: list[Prepared] = []
    synthesized: list[Synthesized] = []

    @flow(name="pipeline", flow_run_name=f"{preset.name}", validate_parameters=False, persist_result=False)
    def whole(dataset: str, preset_name: str, pool_source: str) -> Outcome:
        prepared.append(prepare())
        synthesized.append(synthesize())
        return Outcome(prepared=prepared[0], synthesized=synthesized[0], rungs=distill())

    return whole(choice.dataset, preset.name, choice.pool_source)
