"""A fair race between architectures: its settings, its entrants, its jobs and what comes out."""
