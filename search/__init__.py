"""Search for robust cells: Wsr-NAS over many noise strengths, RNAS under a bound on vulnerability."""
