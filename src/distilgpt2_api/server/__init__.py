"""HTTP in front of the engine: routes, their schemas, streams, errors."""
