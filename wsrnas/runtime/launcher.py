"""Start several processes: torchrun that passes on signals and exits with the code of its processes.

``python -m wsrnas.runtime.launcher --standalone --nproc_per_node=8 -m retrain.train_cifar ...``
"""

import signal
import sys

from wsrnas.runtime.errors import BAD_INPUT, INTERRUPTED, LOST, STOPPED, one_line
from wsrnas.runtime.preemption import SIGNALS


def torchrun(argv: list[str]) -> None:
    """Run ``torch.distributed.run`` with our programs' exit codes: 2, 71, 75, 130 (``errors`` says what they mean).

    Without this, SIGUSR1 kills torchrun, and all failures end with a traceback and code 1. Other failures still do.
    """
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        run.main(["--signals_to_handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1", *argv])
    except SignalException as stop:
        number = int(stop.sigval)
        sys.exit(STOPPED if number in SIGNALS else INTERRUPTED if number == signal.SIGINT else 128 + number)
    except ValueError as error:  # of its own arguments
        print(f"error: {one_line(str(error))}", file=sys.stderr, flush=True)
        sys.exit(BAD_INPUT)
    except ChildFailedError as error:
        # torchrun sends SIGTERM to the processes that leave last, and they may end as after a request to stop.
        codes = {failure.exitcode for failure in error.failures.values()} - {-signal.SIGTERM}
        if BAD_INPUT in codes and codes <= {BAD_INPUT, STOPPED}:
            sys.exit(BAD_INPUT)
        killed = {rank: -failure.exitcode for rank, failure in error.failures.items()
                  if failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM}
        if STOPPED in codes and not killed:  # one such process is enough: all have saved
            sys.exit(STOPPED)
        if killed and codes <= {LOST, STOPPED, *(-number for number in killed.values())}:
            rank, number = next(iter(killed.items()))
            hint = " (the system does so when memory is short)" if number == signal.SIGKILL else ""
            print(f"error: process {rank} was ended by {signal.Signals(number).name}{hint}, and the others with it; "
                  "the same command resumes from what is saved", file=sys.stderr, flush=True)
            sys.exit(LOST)
        raise


if __name__ == "__main__":
    torchrun(sys.argv[1:])
