"""The driver process of `distilgpt2-api batch --ray`: answers a batch on a Ray cluster with Ray Data.

It is a separate process because Ray ends a process whose cluster has lost its head node.
"""
