"""ASGI middleware around every route: request ids, logs and metrics, CORS, security headers."""
