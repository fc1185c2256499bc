"""A folder for each protocol: its routes, schemas, and what it reads and writes."""
