"""Chat templates: from a chat's messages to one prompt."""
