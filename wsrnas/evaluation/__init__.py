"""Evaluation of networks under attack, and checks that the numbers can be trusted.

``attack_table`` holds every attack and ``protocols`` every list of attacks. ``measurement`` runs them and stores the
outcome in a ``journal``, ``honesty`` checks for masked gradients, and ``results`` computes accuracies and tables.
"""

from wsrnas.evaluation.accuracy import robust_accuracy

__all__ = ["robust_accuracy"]
