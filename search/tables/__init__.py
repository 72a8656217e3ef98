"""Tables of measured architectures, in which a search can be judged without training anything."""
