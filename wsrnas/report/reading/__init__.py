"""Read what pages are made of: runs, races, evaluations, their networks and attacks."""
