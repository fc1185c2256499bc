"""The commands, one module each: it reads options, calls down and prints. `group.py` imports the one that runs."""
