"""Side-by-side measurements: `python -m benchmarks.NAME [--dataset D] [--json]`."""
