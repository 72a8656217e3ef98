"""Strategies to compare with; they know A neither, and most of them learn nothing."""
