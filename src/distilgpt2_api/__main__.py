"""`distilgpt2-api` and `python -m distilgpt2_api`."""

from distilgpt2_api.core.interrupts import end_on_interrupt


def main() -> None:
    """Runs the command line."""
    end_on_interrupt()
    # Takes a tenth of a second, in which users who mistyped a command press Ctrl-C.
    from distilgpt2_api.cli import main as run_command  # noqa: PLC0415 - the reason stands above

    run_command(prog_name="distilgpt2-api")


if __name__ == "__main__":
    main()
