"""HTTP itself: heads, bodies, responses, errors, connections. Knows neither the engine nor any single protocol."""
