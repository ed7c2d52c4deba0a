"""The part of a run that renders: with the renderer that is named, or with the one that teaches a detector best.

With `auto` every candidate translates the same synthetic photos, the same small training learns from each, and val
decides. All of it are stages of the run: cached, run again one by one, looked at in the inspector.
"""

from __future__ import annotations

from flows.presets import Preset
from flows.runner import Runner
from storage.manifest import Manifest
from tasks.choose import TABLE_ROW
from tasks.params import ChooseParams, RenderParams


def rendered_photos(run: Runner, *, synthetic: Manifest, pool: Manifest, val: Manifest, preset: Preset) -> Manifest:
    """The stage `render` of a run: synthetic photos in the look of the pool."""
    if preset.render.renderer != "auto":
        return run.stage("render", preset.render, synthetic=synthetic, pool=pool)
    rendered = [
        run.stage(f"render.{name}", _with(preset.render, name=name), synthetic=synthetic, pool=pool)
        for name in preset.renderers
    ]
    reports = [
        _trial(run, name, number=number, photos=photos, val=val, preset=preset)
        for name, photos in zip(preset.renderers, rendered, strict=True)
        for number in range(preset.trials)
    ]
    choice = ChooseParams(renderers=preset.renderers, seed=preset.render.seed)
    return run.stage("render", choice, rendered=rendered, reports=reports)


def render_stage_names(preset: Preset) -> list[str]:
    """The names of the stages that `rendered_photos` asks for, in their order."""
    if preset.render.renderer != "auto":
        return ["render"]
    trials = [
        f"{stage}.trial.{name}.{number}{place}"
        for name in preset.renderers
        for number in range(preset.trials)
        for stage, place in (("train", ""), ("predict", ".val"), ("evaluate", ""))
    ]
    return [*(f"render.{name}" for name in preset.renderers), *trials, "render"]


def chosen_renderer(params: RenderParams, *, rendered: Manifest) -> RenderParams:
    """The parameters of the renderer that made these photos: with `auto` the one that was chosen for them."""
    if params.renderer != "auto":
        return params
    return same_renderer(params, rendered=rendered)


def same_renderer(params: RenderParams, *, rendered: Manifest) -> RenderParams:
    """The parameters with the renderer that made these photos, whatever a run asked for."""
    if TABLE_ROW in rendered.by_id:
        return _with(params, name=str(rendered.row(TABLE_ROW).attributes["chosen"]))
    return _with(params, name=rendered.metadata["parameters"]["renderer"])


def _with(params: RenderParams, *, name: str) -> RenderParams:
    return params.model_copy(update={"renderer": name})


def _trial(run: Runner, name: str, *, number: int, photos: Manifest, val: Manifest, preset: Preset) -> Manifest:
    """The evaluation on val, and on val alone, of a detector that learnt from one renderer's photos."""
    title, params = f"trial.{name}.{number}", preset.trial.model_copy(update={"seed": preset.trial.seed + number})
    checkpoint = run.stage(f"train.{title}", params, photos=[photos], val=val, init=None, synthesis=None)
    seen = run.stage(f"predict.{title}.val", preset.predict, checkpoint=checkpoint, photos=val)
    return run.stage(
        f"evaluate.{title}", preset.evaluate, val=val, val_predictions=seen, test=val, test_predictions=seen
    )
