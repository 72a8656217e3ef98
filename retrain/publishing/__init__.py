"""What a published network consists of: its file, its weights, its card, and what RobustBench asks for."""
