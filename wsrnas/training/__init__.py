"""Adversarial training: losses, schedules, the trainer and its epochs, BatchNorm, weight perturbation."""
