"""A process that compiles grammars first, so that one that hangs, eats memory or overflows the stack ends it, not us.

The library bounds what following a grammar costs, not what compiling it may. `main` is the process, `GrammarTrial` its
owner; it starts with the first grammar and ends with its owner.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import threading
from pathlib import Path

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

MAX_CPU_S = 2
MAX_GROWTH_BYTES = 64 * 1024 * 1024
STACK_BYTES = 2 * 1024 * 1024
"""A quarter of what a thread has by default: what fits here fits there."""
LIMITS = LLParserLimits(
    initial_lexer_fuel=50_000,
    step_lexer_fuel=100_000,
    step_max_items=20_000,
    max_lexer_states=10_000,
    max_grammar_size=200_000,
    verbose_errors=False,
)
"""What the library counts itself. Ten times less than its defaults, and ten times what schemas of forms need."""


class GrammarTrial:
    """Owns the process. One thread's at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def survives(self, serialized: str) -> bool:
        """Whether compiling ends, well or not, within time and memory. OSError if no process can be started."""
        process = self._process = self._process or _start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(serialized).encode() + b"\n")
            process.stdin.flush()
            has_survived = bool(process.stdout.readline())
        except BrokenPipeError:
            has_survived = False
        if not has_survived:
            self.close()
        return has_survived

    def close(self) -> None:
        """Idempotent; the next trial starts another process."""
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            process.communicate()


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "distilgpt2_api.text.grammar_trial"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # The last words of a process that crashed would be the caller's grammar.
        start_new_session=True,  # A Ctrl-C is for the service, which ends this process.
    )


def main() -> None:
    """A grammar a line in, as JSON; a line out when it is done with. It ends itself where that takes too much."""
    tokenizer = LLTokenizer("byte")
    threading.stack_size(STACK_BYTES)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    num_pages = int(Path("/proc/self/statm").read_bytes().split()[5])  # data and stacks
    max_bytes = num_pages * resource.getpagesize() + MAX_GROWTH_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (max_bytes, max_bytes))
    for line in sys.stdin.buffer:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        resource.setrlimit(resource.RLIMIT_CPU, (int(usage.ru_utime + usage.ru_stime) + MAX_CPU_S + 1, hard))
        thread = threading.Thread(target=_compile, args=(tokenizer, json.loads(line)))
        thread.start()
        thread.join()
        sys.stdout.write("done\n")
        sys.stdout.flush()


def _compile(tokenizer: LLTokenizer, serialized: str) -> None:
    LLMatcher(tokenizer, serialized, log_level=0, limits=LIMITS)


if __name__ == "__main__":
    main()
