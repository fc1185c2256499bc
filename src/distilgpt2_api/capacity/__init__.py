"""How many nodes a load takes: what one node can do, how it queues, and what a fleet of them costs. Pure arithmetic."""
