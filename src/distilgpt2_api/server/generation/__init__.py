"""Engine work that all protocols share: prompts, parameters, plans, answers."""
