"""Search for neural architectures that are robust to adversarial noise: what all programs share."""

__version__ = "0.1.0"
