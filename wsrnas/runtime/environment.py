"""Describe the machine and the code version that a run was made with."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.device import device_name
from wsrnas.runtime.distributed import World

with deferred_imports():
    import torch


def environment(world: World) -> dict[str, Any]:
    """Return what a reader needs to reproduce a run: command, code version, library versions, hardware."""
    cuda = world.device.type == "cuda"
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"), "command": sys.argv, "git": _git_version(),
        "python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda if cuda else None,
        "cudnn": torch.backends.cudnn.version() if cuda else None,
        "device": device_name(world.device),
        "threads": torch.get_num_threads(), "processes": world.size, "host": platform.node(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"), "slurm_restarts": os.environ.get("SLURM_RESTART_COUNT"),
    }


def _git_version() -> str | None:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    root = Path(__file__).parents[2]  # of a checkout; a repository above an installed package is another project's
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10, cwd=root,
                              env={**os.environ, "GIT_CEILING_DIRECTORIES": str(root.parent)}).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
