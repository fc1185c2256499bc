"""The words that every floor uses: frozen, and made of the standard library alone."""
