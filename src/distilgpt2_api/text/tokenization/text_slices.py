"""Cuts long texts into slices that are tokenized one by one: the library takes 180 bytes for each byte of a text.

The slices' tokens, joined, are the tokens of the whole text. GPT-2's pre-tokenizer splits a text by a regular
expression of which each match ends before white space, or is white space. So a match begins wherever white space
follows another character, and the matches from there on do not depend on the text before. No token crosses the border
of a match.
"""

import re
from collections import deque
from collections.abc import Iterator

import orjson
import tokenizers

BREAK = re.compile(r"(?<=\S)[ \n]")
"""A text may be cut before it. (Python's white space includes all of the library's.)"""


def is_divisible(tokenizer: tokenizers.Tokenizer) -> bool:
    """Whether the tokens of `slice_text(text)` are the tokens of the text: true only for GPT-2's own steps."""
    added = tokenizer.get_added_tokens_decoder().values()
    return (
        tokenizer.normalizer is None
        and tokenizer.post_processor is None
        and _is_plain_byte_level(tokenizer)
        and not any(
            token.lstrip or token.rstrip or token.single_word or re.search(r"\s", token.content) for token in added
        )
    )


def slice_text(text: str, max_characters: int) -> Iterator[str]:
    """Slices of at most `max_characters`; longer ones where the text has no position to cut."""
    begin = 0
    while len(text) - begin > max_characters:
        breaks = deque(BREAK.finditer(text, begin + 1, begin + max_characters + 1), maxlen=1)
        last = breaks[0] if breaks else BREAK.search(text, begin + max_characters)
        if last is None:
            break
        yield text[begin : last.start()]
        begin = last.start()
    yield text[begin:]


def _is_plain_byte_level(tokenizer: tokenizers.Tokenizer) -> bool:
    if tokenizer.pre_tokenizer is None:
        return False
    state = orjson.loads(tokenizer.pre_tokenizer.__getstate__())
    steps = state["pretokenizers"] if state["type"] == "Sequence" else [state]
    return [(step["type"], step.get("add_prefix_space"), step.get("use_regex")) for step in steps] == [
        ("ByteLevel", False, True)
    ]
