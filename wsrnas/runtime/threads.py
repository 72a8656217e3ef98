"""Let idle OpenMP threads sleep, so that processes on a busy machine do not slow one another down."""

import os
from collections.abc import MutableMapping

OWN_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # with one of them, users have chosen


def sleep_when_idle(environment: MutableMapping[str, str] = os.environ) -> None:
    """Ask OpenMP to let a thread sleep while it waits for the others; a user's own settings stay.

    By default it spins, which takes the core from the thread that it waits for once there are more threads than cores.
    OpenMP reads the variable when it is loaded, so this must come before ``import torch``.
    """
    if not any(name in environment for name in OWN_SETTINGS):
        environment["OMP_WAIT_POLICY"] = "passive"
