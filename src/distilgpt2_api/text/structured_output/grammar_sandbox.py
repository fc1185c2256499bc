"""Compiles grammars in a limited process first, because the library does not bound the cost of compiling one.

A grammar that takes too long, takes too much memory or overflows the stack ends that process, not the service.
"""

import threading
from functools import partial

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from distilgpt2_api.text.limited_process import LimitedProcess, serve

MAX_CPU_S = 2.0
STACK_BYTES = 2 * 1024 * 1024
"""A quarter of a thread's default: a grammar that compiles here compiles in the service."""
LIMITS = LLParserLimits(
    initial_lexer_fuel=50_000,
    step_lexer_fuel=100_000,
    step_max_items=20_000,
    max_lexer_states=10_000,
    max_grammar_size=200_000,
    verbose_errors=False,
)
"""The library's own limits: a tenth of its defaults, and ten times what the schemas of forms need."""


class GrammarSandbox(LimitedProcess):
    """Owns the process, which starts with the first grammar. Any thread may call it."""

    def __init__(self) -> None:
        super().__init__(__name__)

    def compiles(self, serialized: str) -> bool:
        """Whether compiling ends within its limits, with an error or without. OSError if no process can be started."""
        return self.run(serialized, max_cpu_s=MAX_CPU_S) is not None


def main() -> None:
    tokenizer = LLTokenizer("byte")
    threading.stack_size(STACK_BYTES)
    serve(partial(_compile, tokenizer), has_threads=True)


def _compile(tokenizer: LLTokenizer, serialized: str) -> bool:
    """Compile on a thread, whose stack is the limited one."""
    options = {"log_level": 0, "limits": LIMITS}
    thread = threading.Thread(target=LLMatcher, args=(tokenizer, serialized), kwargs=options)
    thread.start()
    thread.join()
    return True


if __name__ == "__main__":
    main()
