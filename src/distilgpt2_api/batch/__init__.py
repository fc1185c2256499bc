"""Requests that come as a file: lines in, an answer or an error out for each, exactly once. No HTTP here."""
