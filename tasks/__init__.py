"""How one stage works: one file a stage, pure functions first, the stage function last."""
