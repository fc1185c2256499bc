"""Token ids to text, while they are sampled: whole characters only, and nothing after a stop sequence."""
