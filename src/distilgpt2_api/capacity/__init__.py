"""The planner: one node's speed, its queueing model, and the size and cost of a fleet. Pure arithmetic."""
