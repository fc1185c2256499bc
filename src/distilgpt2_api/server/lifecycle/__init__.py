"""How the application starts, drains and stops."""
