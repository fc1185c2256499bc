"""From text to token ids and back: whole characters only, and nothing after a stop sequence."""
