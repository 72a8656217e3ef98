"""Decide how a Wsr-NAS search moves: its strengths, its objective, the step of A, and what it remembers."""
