"""`python -m distilgpt2_api` is `distilgpt2-api`."""

from distilgpt2_api.cli import main

main(prog_name="distilgpt2-api")
