"""Constrains completions to grammars: compiles grammars with llguidance, and tracks a sequence in its grammar."""

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from distilgpt2_api.core.errors import GenerationError, InvalidRequestError, OverloadedError
from distilgpt2_api.core.grammar import Grammar, GrammarKind
from distilgpt2_api.text.compile_queue import CompileQueue
from distilgpt2_api.text.finite_rules import find_endless_rule
from distilgpt2_api.text.gbnf import to_lark
from distilgpt2_api.text.grammar_reasons import describe
from distilgpt2_api.text.grammar_sandbox import LIMITS, GrammarSandbox
from distilgpt2_api.text.json_schemas import close
from distilgpt2_api.text.tokenizer import Tokenizer

MAX_SOURCE_BYTES = 64 * 1024
"""Size of a grammar as the caller wrote it."""
MAX_CACHED = 32
"""Compiled grammars in the cache; the least recently used one is evicted first."""
MAX_WAIT_S = 10.0
"""Time to wait while other grammars compile, one after another."""
MAX_WAITING = 16
"""Different grammars that may wait. Any number of requests may wait for the same one."""
TOO_MANY = "the service is overloaded: too many grammars are being compiled; try again later"
NUM_TRIED_TOKENS = 2
"""Tokens that a new grammar is tried on; one that exceeds the limits usually does so immediately."""
JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""The format of Python's `json.dumps`. Where any white space is allowed, a small model writes nothing else."""
NAMES = {
    GrammarKind.JSON_SCHEMA: "JSON schema",
    GrammarKind.REGEX: "regular expression",
    GrammarKind.LARK: "Lark grammar",
    GrammarKind.GBNF: "GBNF grammar",
}
NOWHERE = r"(?!)"


class Guide:
    """Mutable: the position of one sequence in its grammar. One thread at a time may use it."""

    def __init__(self, start: Callable[[], LLMatcher], *, num_mask_bytes: int) -> None:
        """`start` creates the sequence's matcher. It is called at the first use, since sequences may wait long."""
        self._start = start
        self._num_mask_bytes = num_mask_bytes
        self._matcher: LLMatcher | None = None

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

    def _started(self) -> LLMatcher:
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
        self._cache: OrderedDict[Grammar, LLMatcher | str] = OrderedDict()
        """The compiled grammar, or the reason why it can't be compiled."""
        self._lock = threading.Lock()
        """Guards the cache; never held for long."""
        self._queue = CompileQueue(self._compiled, max_pending=MAX_WAITING, too_many=TOO_MANY)
        self._vocabulary: LLTokenizer | None = None
        self._sandbox = GrammarSandbox()
        self._compiling = threading.Lock()
        """Guards the two above. One grammar at a time: the cores are for running sequences."""

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
        compiled = grammar.compiled if isinstance(grammar.compiled, LLMatcher) else self._find(grammar)
        return Guide(lambda: self._copy(grammar, compiled), num_mask_bytes=self._num_mask_bytes)

    def close(self) -> None:
        """End the thread that checks grammars and the grammar sandbox. Idempotent."""
        self._queue.close()
        with self._compiling:
            self._sandbox.close()

    def _copy(self, grammar: Grammar, compiled: LLMatcher | str | None) -> LLMatcher:
        """A matcher for one sequence. A grammar that was not checked is compiled now."""
        if compiled is None:
            compiled = self._compiled(grammar)
        if isinstance(compiled, str):
            raise GenerationError(f"the completion can't follow its grammar: {compiled}")
        return compiled.deep_copy()

    def _compiled(self, grammar: Grammar) -> LLMatcher | str:
        if (found := self._find(grammar)) is not None:
            return found
        if not self._compiling.acquire(timeout=MAX_WAIT_S):
            raise OverloadedError(TOO_MANY)
        try:
            if (found := self._find(grammar)) is not None:  # compiled while this thread waited
                return found
            compiled: LLMatcher | str
            try:
                compiled = self._compile(grammar)
            except ValueError as error:
                compiled = describe(str(error))
            self._store(grammar, compiled)
            return compiled
        finally:
            self._compiling.release()

    def _find(self, grammar: Grammar) -> LLMatcher | str | None:
        with self._lock:
            if grammar in self._cache:
                self._cache.move_to_end(grammar)
            return self._cache.get(grammar)

    def _store(self, grammar: Grammar, compiled: LLMatcher | str) -> None:
        with self._lock:
            self._cache[grammar] = compiled
            if len(self._cache) > MAX_CACHED:
                self._cache.popitem(last=False)

    def _compile(self, grammar: Grammar) -> LLMatcher:
        """Compile the grammar and try it on a few tokens. ValueError gives the reason against it."""
        serialized = _serialize(grammar)
        try:
            if not self._sandbox.compiles(serialized):
                raise ValueError("it takes too much time or memory to compile")
        except OSError as error:
            raise OverloadedError("the service is overloaded: it can't compile a grammar now") from error
        if self._vocabulary is None:
            described = VocabularyDescription(
                self._tokenizer, vocab_size=self._vocab_size, eos_token_ids=self._eos_token_ids
            )
            self._vocabulary = LLTokenizer(cast(TokenizerWrapper, described), eos_token=[*self._eos_token_ids] or None)
        matcher = LLMatcher(self._vocabulary, serialized, log_level=0, limits=LIMITS)
        token_id = self._first_allowed(matcher)
        if token_id is None:
            raise ValueError("it allows no text, or only the empty one")
        follower = matcher.deep_copy()
        for _ in range(NUM_TRIED_TOKENS):
            follower.consume_token(token_id)
            token_id = self._first_allowed(follower)
            if token_id is None:
                break
        return matcher

    def _first_allowed(self, matcher: LLMatcher) -> int | None:
        """A token that may come next, other than the end of text. ValueError if the matcher has failed."""
        mask = matcher.compute_bitmask() if not matcher.is_stopped() else b""
        if matcher.is_error():
            raise ValueError(matcher.get_error())
        assert self._vocabulary is not None
        allowed = int.from_bytes(mask, "little")
        for token_id in self._vocabulary.eos_tokens:
            allowed &= ~(1 << token_id)
        return (allowed & -allowed).bit_length() - 1 if allowed else None


class VocabularyDescription:
    """The tokenizer in the form that llguidance reads, a `TokenizerWrapper` by shape."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, *, vocab_size: int, eos_token_ids: Sequence[int]) -> None:
        token_bytes = tokenizer.token_bytes
        self.eos_token_id = eos_token_ids[0] if eos_token_ids else None
        """If None, the library adds one beyond the vocabulary."""
        self.tokens = [*token_bytes, *[b""] * (vocab_size - len(token_bytes))]
        # The end of text never counts as text, even if the tokenizer doesn't call it special.
        special = {*tokenizer.special_token_ids, *eos_token_ids}
        self.special_token_ids = sorted(special)
        self._encode = tokenizer.encode
        self._max_characters = 4 * tokenizer.max_token_bytes
        special_texts = [self.tokens[token_id].decode(errors="replace") for token_id in special]
        self._insides = re.compile(
            "|".join(f"(?<={re.escape(text[0])})(?={re.escape(text[1:])})" for text in special_texts if len(text) > 1)
            or NOWHERE
        )

    def __call__(self, text: str) -> list[int]:
        """Tokens of a text that the grammar forces. Only the first one is used, so the text's beginning is enough.

        A special token written in the text counts as plain text. `encode` would make it the token, so it is cut in two.
        """
        pieces = self._insides.split(text[: self._max_characters])
        return [token_id for piece in pieces if piece for token_id in self._encode(piece)]


def _serialize(grammar: Grammar) -> str:
    """The grammar in the library's own form. ValueError if that fails."""
    try:
        num_bytes = len(grammar.source.encode())
    except UnicodeEncodeError:
        raise ValueError("it has a lone surrogate, which is not valid Unicode") from None
    if num_bytes > MAX_SOURCE_BYTES:
        raise ValueError(f"it has {num_bytes} bytes; at most {MAX_SOURCE_BYTES} are compiled")
    match grammar.kind:
        case GrammarKind.JSON_SCHEMA:
            return LLMatcher.grammar_from_json_schema(_closed(grammar.source), cast(Any, JSON_STYLE))
        case GrammarKind.REGEX:
            return LLMatcher.grammar_from_regex(grammar.source)
        case GrammarKind.LARK:
            if (name := find_endless_rule(grammar.source)) is not None:
                raise ValueError(f"its rule {name!r} never ends: it needs itself")
            return LLMatcher.grammar_from_lark(grammar.source)
        case GrammarKind.GBNF:
            lark = to_lark(grammar.source)
            if find_endless_rule(lark) is not None:
                raise ValueError("one of its rules never ends: it needs itself")
            return LLMatcher.grammar_from_lark(lark)


def _closed(source: str) -> str:
    """The schema, rewritten for the library. ValueError if it is invalid or can't be followed."""
    try:
        schema = json.loads(source)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not valid JSON: {error}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return json.dumps(close(schema))


def _checked(grammar: Grammar, compiled: LLMatcher | str, *, param: str) -> Grammar:
    if isinstance(compiled, str):
        raise InvalidRequestError(
            f"{param} is not a {NAMES[grammar.kind]} that can be followed: {compiled}", param=param
        )
    return replace(grammar, compiled=compiled)


def _check(matcher: LLMatcher) -> None:
    if matcher.is_error():
        raise GenerationError(f"the completion can't follow its grammar: {describe(matcher.get_error())}")
