"""Search for robust cells: Wsr-NAS over many noise strengths, RNAS under a bound on vulnerability."""

from wsrnas.runtime import interrupts

interrupts.hear_during_imports()
