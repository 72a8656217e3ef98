"""Draw the figures of pages, each together with the numbers in it."""
