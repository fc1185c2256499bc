"""JSON Schema as the grammar library expects it."""
