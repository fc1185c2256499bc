"""Tokens with their parts of the text, for tokenizers with several special tokens."""

from __future__ import annotations

from typing import cast

import pytest

from distilgpt2_api.core.outputs import FinishReason, SequenceDelta
from distilgpt2_api.server.protocols.tgi.tokens import TgiTokens
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer

END, MARK, OTHER_END = 3, 4, 5
TEXTS = (b"a", b"\xc3", b"\xa9", b"<end>", b"<mark>", b"<done>")


class FewTokens:
    token_bytes = TEXTS
    vocab_size = len(TEXTS)
    special_token_ids = frozenset({MARK})

    def decode(self, token_ids: list[int]) -> str:
        return b"".join(TEXTS[token_id] for token_id in token_ids).decode(errors="replace")


def play(*deltas: SequenceDelta) -> tuple[list[list[tuple[str, bool]]], str]:
    """The complete tokens after each delta, and the text."""
    tokens = TgiTokens(cast("Tokenizer", FewTokens()), eos_token_ids=(END, OTHER_END))
    ready = [[(token.text, token.is_special) for token in tokens.accept(delta)] for delta in deltas]
    return ready, tokens.generated_text()


def delta(*token_ids: int, text: str, stop: str | None = None, is_last: bool = True) -> SequenceDelta:
    finish_reason = None if not is_last else FinishReason.LENGTH if stop is None else FinishReason.STOP
    return SequenceDelta(index=0, token_ids=token_ids, text=text, stop=stop, finish_reason=finish_reason)


def test_only_a_partial_character_waits_for_the_next_token() -> None:
    ready, text = play(
        delta(0, 1, text="a", is_last=False), delta(1, text="\ufffd", is_last=False), delta(2, text="é", is_last=True)
    )
    assert ready == [[("a", False)], [("", False)], [("\ufffd", False), ("é", False)]]
    assert text == "a\ufffdé"


def test_a_special_token_is_not_part_of_the_text() -> None:
    """The engine's text has it. A partial character before it ends."""
    ready, text = play(delta(0, 1, MARK, 0, text="a\ufffd<mark>a"))
    assert ready == [[("a", False), ("\ufffd", False), ("<mark>", True), ("a", False)]]
    assert text == "a\ufffda"


@pytest.mark.parametrize(("stop", "shown"), [("<mark>", "aa<mark>"), ("<m", "aa<m")])
def test_a_special_token_may_end_the_text(stop: str, shown: str) -> None:
    ready, text = play(delta(0, 0, MARK, text=shown, stop=stop))
    assert ready[0][-1] == ("<mark>", True)
    assert text == "aa"


@pytest.mark.parametrize(("end", "shown"), [(END, "<end>"), (OTHER_END, "<done>")])
def test_each_end_of_text_is_special_though_its_tokenizer_does_not_say_so(end: int, shown: str) -> None:
    last = SequenceDelta(index=0, token_ids=(0, end), text="a", finish_reason=FinishReason.STOP)
    assert play(last) == ([[("a", False), (shown, True)]], "a")


def test_the_last_token_is_text_if_a_grammar_ends_it() -> None:
    """The grammar allows nothing more, so no end-of-text token is sampled."""
    end = SequenceDelta(index=0, token_ids=(0, 0), text="aa", finish_reason=FinishReason.STOP)
    assert play(end) == ([[("a", False), ("a", False)]], "aa")
