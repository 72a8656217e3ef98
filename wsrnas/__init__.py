"""Search for neural architectures that are robust to adversarial noise: what all programs share."""

from wsrnas.runtime.interrupts import hear_during_imports

__version__ = "0.1.0"

hear_during_imports()
