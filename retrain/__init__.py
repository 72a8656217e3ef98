"""Programs that train a network adversarially, evaluate it, compare several and publish one."""

from wsrnas.runtime import interrupts

interrupts.hear_during_imports()
