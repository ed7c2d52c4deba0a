"""What runs, and in which order: flows, presets and the `tally` command line."""
