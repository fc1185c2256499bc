"""A batch on a Ray cluster, by Ray Data: the process that `distilgpt2-api batch --ray` starts beside itself.

Apart from the command, for where a cluster's head is gone Ray ends the process that speaks with it.
"""
