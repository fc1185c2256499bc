"""Compiles grammars with llguidance, tried in the sandbox first.

Imported with the first grammar: a service without grammars need not wait for the library at its start.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, cast

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from distilgpt2_api.core.errors import OverloadedError
from distilgpt2_api.core.grammar import Grammar, GrammarKind
from distilgpt2_api.text.structured_output.finite_rules import find_endless_rule
from distilgpt2_api.text.structured_output.gbnf import to_lark
from distilgpt2_api.text.structured_output.grammar_sandbox import LIMITS, GrammarSandbox
from distilgpt2_api.text.structured_output.json_schema.rewriting import close
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer

MAX_SOURCE_BYTES = 64 * 1024
"""Size of a grammar as the caller wrote it."""
NUM_TRIED_TOKENS = 2
"""Tokens that a new grammar is tried on; one that exceeds the limits usually does so immediately."""
JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""The format of Python's `json.dumps`. Where any white space is allowed, a small model writes nothing else."""
NOWHERE = r"(?!)"


class GrammarLibrary:
    """Owns the grammar sandbox, and the library's form of one vocabulary. One thread at a time may use it."""

    def __init__(self, tokenizer: Tokenizer, *, vocab_size: int, eos_token_ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._eos_token_ids = eos_token_ids
        self._vocabulary: LLTokenizer | None = None
        self._sandbox = GrammarSandbox()

    def compile(self, grammar: Grammar) -> LLMatcher:
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

    def close(self) -> None:
        """End the sandbox. Idempotent."""
        self._sandbox.close()

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
