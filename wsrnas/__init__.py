"""Robust neural architecture search: the library shared by search, retraining and evaluation."""
