"""Evaluation: which images a network gets right under attack, and whether the numbers can be believed.

``protocols`` says what to attack with, ``measurement`` does it and stores it in a ``journal``, ``autoattack`` and
``official`` are two special ways, ``honesty`` doubts the numbers, ``results`` makes them a table.
"""

from wsrnas.evaluation.accuracy import robust_accuracy

__all__ = ["robust_accuracy"]
