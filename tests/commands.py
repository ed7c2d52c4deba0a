"""The `tally` command as a user runs it: another process in a folder of its own."""

import os
import subprocess
import sys


def tally(*arguments, folder):
    environment = {**os.environ, "PREFECT_HOME": str(folder / "prefect")}
    command = [sys.executable, "-m", "flows.cli", *map(str, arguments)]
    # Python puts the working directory on the path for -m: the packages come from the installation.
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
