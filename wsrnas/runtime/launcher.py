"""Start several processes: torchrun that hands on signals and ends with the exit codes of its processes.

``python -m wsrnas.runtime.launcher --standalone --nproc_per_node=8 -m retrain.train_cifar ...``
"""

import signal
import sys

from wsrnas.runtime.errors import BAD_INPUT, STOPPED
from wsrnas.runtime.preemption import SIGNALS


def torchrun(argv: list[str]) -> None:
    """``torch.distributed.run``, which ends like its workers: with 75 when asked to stop, with 2 for bad input.

    By itself it dies of SIGUSR1, and ends with a traceback and code 1 otherwise. Other failures are reported as ever.
    """
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        run.main(["--signals_to_handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1", *argv])
    except SignalException as stop:
        if stop.sigval not in SIGNALS:
            raise
        sys.exit(STOPPED)
    except ChildFailedError as error:
        # torchrun sends SIGTERM to those that leave last.
        codes = {failure.exitcode for failure in error.failures.values()} - {-signal.SIGTERM}
        if STOPPED in codes:  # one is enough: all have saved
            sys.exit(STOPPED)
        if codes == {BAD_INPUT}:
            sys.exit(BAD_INPUT)
        raise


if __name__ == "__main__":
    torchrun(sys.argv[1:])
