"""Constrains completions to grammars: keeps compiled grammars, and tracks a sequence in its grammar."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol, Self, cast

from distilgpt2_api.core.errors import GenerationError, InvalidRequestError, OverloadedError
from distilgpt2_api.core.grammar import Grammar, GrammarKind
from distilgpt2_api.text.structured_output.compile_queue import CompileQueue
from distilgpt2_api.text.structured_output.grammar_reasons import describe
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer

MAX_CACHED = 32
"""Compiled grammars in the cache; the least recently used one is evicted first."""
MAX_WAIT_S = 10.0
"""Time to wait while other grammars compile, one after another."""
MAX_WAITING = 16
"""Different grammars that may wait. Any number of requests may wait for the same one."""
TOO_MANY = "the service is overloaded: too many grammars are being compiled; try again later"
NAMES = {
    GrammarKind.JSON_SCHEMA: "JSON schema",
    GrammarKind.REGEX: "regular expression",
    GrammarKind.LARK: "Lark grammar",
    GrammarKind.GBNF: "GBNF grammar",
}


class Matcher(Protocol):
    """The part of the library's matcher that is used here: a compiled grammar, and a position in it."""

    def deep_copy(self) -> Self: ...
    def compute_bitmask(self) -> bytes: ...
    def consume_token(self, token: int, /) -> bool: ...
    def is_stopped(self) -> bool: ...
    def is_error(self) -> bool: ...
    def get_error(self) -> str: ...


class LibraryCompiler(Protocol):
    """The part of `grammar_library` that is used here."""

    def compile(self, grammar: Grammar) -> Matcher:
        """ValueError gives the reason against it."""

    def close(self) -> None: ...


class Guide:
    """Mutable: the position of one sequence in its grammar. One thread at a time may use it."""

    def __init__(self, start: Callable[[], Matcher], *, num_mask_bytes: int) -> None:
        """`start` creates the sequence's matcher. It is called at the first use, since sequences may wait long."""
        self._start = start
        self._num_mask_bytes = num_mask_bytes
        self._matcher: Matcher | None = None

    @property
    def is_finished(self) -> bool:
        """Whether the grammar is complete and nothing may follow."""
        return self._matcher is not None and self._matcher.is_stopped()

    def compute_mask(self) -> bytes:
        """The tokens that may come next; see `TokenMask.wait`. Raises GenerationError if that is too much work.

        The end of text is included if the text may end. Releases the GIL while it computes.
        """
        matcher = self._started()
        mask = matcher.compute_bitmask()
        _check(matcher)
        return mask[: self._num_mask_bytes]

    def accept(self, token_id: int) -> None:
        """Advance by a sampled token. Raises GenerationError if the grammar does not allow it."""
        matcher = self._started()
        matcher.consume_token(token_id)
        _check(matcher)

    def _started(self) -> Matcher:
        if self._matcher is None:
            self._matcher = self._start()
        return self._matcher


class GrammarCompiler:
    """Compiles grammars for one vocabulary and caches the last ones. Any thread may call it; close it at the end.

    The library's own form of the vocabulary (15 MB for GPT-2's) and the grammar sandbox (22 MB) are created with the
    first grammar: a service without grammars pays nothing.
    """

    def __init__(self, tokenizer: Tokenizer, *, vocab_size: int, eos_token_ids: Sequence[int]) -> None:
        """`vocab_size` and `eos_token_ids` are the model's; its vocabulary may be larger than the tokenizer's."""
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._eos_token_ids = eos_token_ids
        self._num_mask_bytes = (vocab_size + 31) // 32 * 4
        self._cache: OrderedDict[Grammar, Matcher | str] = OrderedDict()
        """The compiled grammar, or the reason why it can't be compiled."""
        self._lock = threading.Lock()
        """Guards the cache; never held for long."""
        self._queue = CompileQueue(self._compiled, max_pending=MAX_WAITING, too_many=TOO_MANY)
        self._library: LibraryCompiler | None = None
        self._compiling = threading.Lock()
        """Guards it. One grammar at a time: the cores are for running sequences."""

    def check(self, grammar: Grammar, *, param: str) -> Grammar:
        """The grammar with its compiled form. Raises InvalidRequestError, with `param`, if it is invalid, not supported
        or too complex, and OverloadedError if too many others are being compiled.

        Compiling may take a tenth of a second, or some seconds at worst; `open` is quick afterwards.
        """
        return _checked(grammar, self._compiled(grammar), param=param)

    async def check_soon(self, grammar: Grammar, *, param: str) -> Grammar:
        """`check` for an event loop. A new grammar is compiled on a thread, once for all requests that wait for it.
        Raises OverloadedError at once if too many other grammars wait.
        """
        compiled = self._find(grammar)
        if compiled is None:
            compiled = await self._queue.get(grammar)
        return _checked(grammar, compiled, param=param)

    def open(self, grammar: Grammar) -> Guide:
        """A guide for one sequence. For a grammar that `check` has returned its first step never waits for other
        grammars to compile. The guide of an invalid grammar fails.
        """
        compiled = self._find(grammar) if grammar.compiled is None else cast(Matcher, grammar.compiled)
        return Guide(lambda: self._copy(grammar, compiled), num_mask_bytes=self._num_mask_bytes)

    def close(self) -> None:
        """End the thread that checks grammars and the grammar sandbox. Idempotent."""
        self._queue.close()
        with self._compiling:
            if self._library is not None:
                self._library.close()

    def _copy(self, grammar: Grammar, compiled: Matcher | str | None) -> Matcher:
        """A matcher for one sequence. A grammar that was not checked is compiled now."""
        if compiled is None:
            compiled = self._compiled(grammar)
        if isinstance(compiled, str):
            raise GenerationError(f"the completion can't follow its grammar: {compiled}")
        return compiled.deep_copy()

    def _compiled(self, grammar: Grammar) -> Matcher | str:
        if (found := self._find(grammar)) is not None:
            return found
        if not self._compiling.acquire(timeout=MAX_WAIT_S):
            raise OverloadedError(TOO_MANY)
        try:
            if (found := self._find(grammar)) is not None:  # compiled while this thread waited
                return found
            compiled: Matcher | str
            try:
                compiled = self._opened_library().compile(grammar)
            except ValueError as error:
                compiled = describe(str(error))
            self._store(grammar, compiled)
            return compiled
        finally:
            self._compiling.release()

    def _opened_library(self) -> LibraryCompiler:
        if self._library is None:
            from distilgpt2_api.text.structured_output.grammar_library import GrammarLibrary  # noqa: PLC0415 - its docstring says why

            self._library = GrammarLibrary(
                self._tokenizer, vocab_size=self._vocab_size, eos_token_ids=self._eos_token_ids
            )
        return self._library

    def _find(self, grammar: Grammar) -> Matcher | str | None:
        with self._lock:
            if grammar in self._cache:
                self._cache.move_to_end(grammar)
            return self._cache.get(grammar)

    def _store(self, grammar: Grammar, compiled: Matcher | str) -> None:
        with self._lock:
            self._cache[grammar] = compiled
            if len(self._cache) > MAX_CACHED:
                self._cache.popitem(last=False)


def _checked(grammar: Grammar, compiled: Matcher | str, *, param: str) -> Grammar:
    if isinstance(compiled, str):
        raise InvalidRequestError(
            f"{param} is not a {NAMES[grammar.kind]} that can be followed: {compiled}", param=param
        )
    return replace(grammar, compiled=compiled)


def _check(matcher: Matcher) -> None:
    if matcher.is_error():
        raise GenerationError(f"the completion can't follow its grammar: {describe(matcher.get_error())}")
