"""Load, split and batch labelled images."""
