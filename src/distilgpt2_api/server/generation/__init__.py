"""Work for the engine, in no protocol's terms."""
