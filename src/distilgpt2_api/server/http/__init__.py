"""HTTP itself: heads, bodies, answers, errors, connections. Knows neither the engine nor any protocol."""
