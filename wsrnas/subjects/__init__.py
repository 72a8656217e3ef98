"""Trained networks, this project's and anyone's: opened once, named, and checked before they are evaluated."""
