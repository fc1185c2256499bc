"""Routes for operators: probes, metrics, version."""
