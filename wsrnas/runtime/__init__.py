"""Run programs: configuration, run directories, checkpoints, processes and signals."""
