"""Types that all layers use: mostly frozen dataclasses, with the standard library alone."""
