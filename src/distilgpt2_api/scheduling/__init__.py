"""Who computes what in the next step: decisions in plain Python, with no model in sight."""
