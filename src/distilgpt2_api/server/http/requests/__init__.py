"""Requests as they arrive: head, body, uploaded files, and each one's record."""
