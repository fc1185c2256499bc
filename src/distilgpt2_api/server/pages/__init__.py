"""The HTML pages: playground and API documentation."""
