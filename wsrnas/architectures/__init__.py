"""Name every architecture: published cells, hand-designed networks, RobNets, and where each comes from."""
