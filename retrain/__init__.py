"""Programs that train a network adversarially, evaluate it, compare several and publish one."""
