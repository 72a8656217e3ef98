"""Passes of a network in less time: with BatchNorm folded, and through the modules in use alone."""
