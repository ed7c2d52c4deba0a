"""DPSNet and the training engine, measured: speed beside torchvision, counts, loading, exactness, GPU.

    python -m benchmarks.train [speed] [density] [gpu] [exact] [counting] [loading] [ablation]
        [--dataset D] [--preset P] [--store S] [--steps N] [--json]

speed     a training step and a prediction beside torchvision's Faster R-CNN with the same backbone and heads, and
          beside fasterrcnn_mobilenet_v3_large_320_fpn at equal input size; with torchvision's pooling of regions, and
          in bfloat16; medians of alternating steps
density   the integral of target maps over random boxes
gpu       photos/s, peak memory and the ratio to torchvision's ResNet-50 detector, where there is a GPU
exact     the tests of exact resume, of two processes against one, and of the golden losses
counting  the counting view on val after the preset's training on synthetic photos (cpu: half an hour on two cores)
loading   the share of a step that waits for data, and memory over --steps steps
ablation  the weights of the counting losses, in trainings of --steps steps at 256 pixels

Without a name: the first four, which train nothing for long.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from benchmarks.stages import print_result, stage_arguments
from benchmarks.train_quality import ablation, counting, density_error, loading, training_inputs
from benchmarks.train_speed import gpu_speed, speed
from flows.endings import end_with_code
from flows.presets import PRESETS
from storage.store import Store
from tasks.ingest import dataset_root

SHORT, LONG = ("speed", "density", "gpu", "exact"), ("counting", "loading", "ablation")
_TESTS = {
    "resume, 0 and 2 loader workers, bit for bit": "tests/tasks/test_train.py -k goes_on_bit_for_bit",
    "2 gloo processes against 1, to 1e-5": "tests/models/training/test_world.py -k two_processes",
    "golden losses of 20 steps": "tests/tasks/test_golden_losses.py",
}


def exactness() -> dict[str, str]:
    """Whether the tests of exactness pass."""
    found = {}
    for name, tests in _TESTS.items():
        made = subprocess.run([sys.executable, "-m", "pytest", "-q", *tests.split()], capture_output=True, check=False)
        found[name] = "passed" if made.returncode == 0 else "FAILED"
    return found


def main() -> None:
    """Measure what the command line asks for, and print it."""
    parser = stage_arguments(__doc__)
    parser.add_argument("rows", nargs="*", choices=[*SHORT, *LONG, []], help="what is measured")
    parser.add_argument("--steps", type=int, default=0, help="timed steps (7), steps of loading (500), ablation (400)")
    options = parser.parse_args()
    preset, store, rows = PRESETS[options.preset](), Store.open(options.store), options.rows or SHORT
    dataset = dataset_root(options.dataset)
    inputs = None
    if set(rows) & set(LONG):
        inputs = training_inputs(preset, dataset=options.dataset, store=store, workers=options.workers)
    found: dict[str, Any] = {}
    for row in rows:
        match row:
            case "speed":
                found |= speed(preset, dataset=dataset, repeats=options.steps or 7)
            case "density":
                found |= density_error()
            case "gpu":
                found |= gpu_speed(PRESETS["gpu"](), dataset=dataset, repeats=options.steps or 7)
            case "exact":
                found |= exactness()
            case "counting":
                found |= counting(preset, inputs=inputs, store=store)
            case "loading":
                found |= loading(preset, inputs=inputs, store=store, steps=options.steps or 500)
            case "ablation":
                found |= ablation(preset, inputs=inputs, store=store, steps=options.steps or 400)
    print_result(found, as_json=options.json, title=f"train on {options.dataset}, preset {options.preset}")


if __name__ == "__main__":
    end_with_code(main)
