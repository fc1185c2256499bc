"""Converts text to token ids, and token ids to bytes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Self

import tokenizers

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.core.errors import InvalidRequestError, ModelFormatError
from distilgpt2_api.core.model_files import safe_repr
from distilgpt2_api.text.tokenization.byte_level import is_byte_level, to_bytes
from distilgpt2_api.text.tokenization.text_slices import is_divisible, slice_text
from distilgpt2_api.text.tokenization.tokenizer_files import END_OF_TEXT, TokenizerFiles, read_tokenizer
from distilgpt2_api.text.tokenization.vocabulary_bytes import VocabularyBytes

GROUP_CHARACTERS = 1 << 17
"""Characters tokenized at once; the library takes 180 bytes for each of their bytes."""
SLICE_CHARACTERS = 1 << 15
"""Characters of a slice. A group has several slices, which are tokenized in parallel."""


class Tokenizer:
    """GPT-2's byte-level BPE over one vocabulary. Stateless: any thread may call it."""

    def __init__(
        self,
        tokenizer: tokenizers.Tokenizer,
        *,
        files: TokenizerFiles | None = None,
        vocabulary: Mapping[str, int] | None = None,
    ) -> None:
        """`files`: the settings in the model's folder. `vocabulary`: the tokenizer's, added tokens included; by default
        it is asked, which takes some milliseconds. ModelFormatError if it is not a byte-level BPE's.
        """
        self._tokenizer = tokenizer
        self.files = files or TokenizerFiles(library=tokenizer)
        added = tokenizer.get_added_tokens_decoder()
        texts = tokenizer.get_vocab(with_added_tokens=True) if vocabulary is None else vocabulary
        table = _token_table(texts, {token.content: token_id for token_id, token in added.items()})
        self.token_bytes = tuple(table)
        """By token id: the token's bytes; for a special token its text in UTF-8; b"" for an unused id."""
        self.max_token_bytes = max(map(len, self.token_bytes))
        """Length of the longest token. A text with more than n times this many bytes has more than n tokens."""
        self.special_token_ids = frozenset(token_id for token_id, token in added.items() if token.special)
        self._missing_bytes = frozenset(range(256)) - {token[0] for token in table if len(token) == 1}
        for token_id in self.special_token_ids:
            table[token_id] = b""
        self.plain_token_bytes = tuple(table)
        """The same, but b"" for special tokens."""
        self.is_divisible = is_divisible(tokenizer)
        """Whether the tokens of `slice_text`'s slices are those of the whole text."""

    @classmethod
    def from_folder(cls, folder: Path, *, num_rows: int | None = None) -> Self:
        """Read a model folder's tokenizer.json, or else its vocab.json and merges.txt, and the files of special tokens.

        `num_rows`: the size of the model's vocabulary; added tokens beyond it are `left_out`.

        ModelFormatError names the malformed file; UnsupportedModelError says why the tokenizer is not supported.
        """
        files, vocabulary = read_tokenizer(folder, num_rows)
        try:
            return cls(files.library, files=files, vocabulary=vocabulary)
        except ModelFormatError as error:
            raise ModelFormatError(f"{folder}: {error}") from error

    @cached_property
    def vocabulary_bytes(self) -> VocabularyBytes:
        """For searches. It takes 5 ms to build, so only what needs it builds it."""
        return VocabularyBytes(self.token_bytes)

    @property
    def vocab_size(self) -> int:
        """The largest token id plus one. (The model's may be larger, padded to a round number.)"""
        return len(self.token_bytes)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text. Special tokens written in it become their ids; nothing is added.

        InvalidRequestError for lone surrogates, and for bytes that the vocabulary has no token for.
        """
        return self.encode_batch([text])[0]  # two to three times faster than the library's encode(): no offsets

    def encode_batch(self, texts: Sequence[str], *, max_unbroken_bytes: int | None = None) -> list[list[int]]:
        """`encode` for many texts, on all cores. Beside the result it takes the memory that 128 KiB of text need.

        A text that can't be cut needs more; it is refused if it has more than `max_unbroken_bytes`.
        """
        for text in texts:
            self._check_text(text)
        if sum(map(len, texts)) <= GROUP_CHARACTERS:
            return self._encode_group(texts)
        encoded: list[list[int]] = [[] for _ in texts]
        ids: dict[int, int] = {}  # one int object for each id: the library creates one for each token
        for group in self._group_slices(texts, max_unbroken_bytes):
            for index, token_ids in zip(
                (index for index, _ in group), self._encode_group([text for _, text in group]), strict=True
            ):
                encoded[index] += [ids.setdefault(token_id, token_id) for token_id in token_ids]
        return encoded

    def _encode_group(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []  # the library would release the GIL, and wait for it afterwards
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def with_special_tokens(self, token_ids: Sequence[int]) -> list[int]:
        """`token_ids` with the tokens around them that the tokenizer's files require, such as a BOS token."""
        return [*self.files.frame.before, *token_ids, *self.files.frame.after]

    def _group_slices(self, texts: Sequence[str], max_unbroken_bytes: int | None) -> Iterator[list[tuple[int, str]]]:
        """Slices of texts, each with its text's index, in groups of `GROUP_CHARACTERS`, or of one long slice."""
        group: list[tuple[int, str]] = []
        num_characters = 0
        for index, text in enumerate(texts):
            for part in slice_text(text, SLICE_CHARACTERS) if self.is_divisible else (text,):
                num_bytes = len(part.encode())
                if max_unbroken_bytes is not None and num_bytes > max_unbroken_bytes:
                    raise InvalidRequestError(
                        f"prompt has {num_bytes} bytes without a position to cut, such as most spaces and line breaks; "
                        f"at most {max_unbroken_bytes} are tokenized at once",
                        param="prompt",
                    )
                if group and num_characters + len(part) > GROUP_CHARACTERS:
                    yield group
                    group, num_characters = [], 0
                group.append((index, part))
                num_characters += len(part)
        yield group

    def decode(self, token_ids: Iterable[int]) -> str:
        """The tokens' text, special tokens included; U+FFFD for bytes that are not UTF-8.

        A padded model has tokens beyond the vocabulary: they have no text.
        """
        table = self.token_bytes
        return b"".join([table[token_id] for token_id in token_ids if token_id < len(table)]).decode(errors="replace")

    def token_text(self, token_id: int) -> str:
        r"""One token as log-probabilities list it: `bytes:\xe2\x80` if it is only a part of a character.

        A padded model has tokens beyond the vocabulary: they have no text.
        """
        if token_id >= len(self.token_bytes):
            return ""
        token = self.token_bytes[token_id]
        try:
            return token.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)

    def token_id(self, text: str) -> int | None:
        """The id of a vocabulary entry: a special token's text, or another token in the byte alphabet."""
        return self._tokenizer.token_to_id(text)

    @property
    def eos_token_id(self) -> int | None:
        """The `eos_token` of the tokenizer's own files; None if they name none, or one that the vocabulary lacks."""
        return self.role_id("eos_token")

    def role_id(self, role: str) -> int | None:
        """The id of a role such as `bos_token`; None if no file names it, or the vocabulary lacks it."""
        text = self.files.roles.get(role)
        return None if text is None else self.token_id(text)

    def end_of_text_id(self, config: ModelConfig) -> int | None:
        """The token that an empty prompt begins with: the model's own end of text, else `<|endoftext|>`."""
        return self.token_id(END_OF_TEXT) if config.eos_token_id is None else config.eos_token_id

    def _check_text(self, text: str) -> None:
        try:
            encoded = text.encode()
        except UnicodeEncodeError as error:
            surrogate = f"U+{ord(text[error.start]):04X}"
            raise InvalidRequestError(
                f"prompt is not Unicode text: lone surrogate {surrogate} at character {error.start}", param="prompt"
            ) from error
        if self._missing_bytes and not self._missing_bytes.isdisjoint(encoded):
            missing = min(self._missing_bytes.intersection(encoded))
            raise InvalidRequestError(f"the model's vocabulary has no token for byte 0x{missing:02x}", param="prompt")


def _token_table(texts: Mapping[str, int], added: Mapping[str, int]) -> list[bytes]:
    """The tokens' bytes by token id, b"" for an unused id. Raises ModelFormatError.

    The vocabulary is converted as one text: a call for each token would take twice as long.
    """
    if not texts or max(texts.values()) > 2 * len(texts) + 1024:
        raise ModelFormatError("tokenizer: it has no tokens, or ids far larger than the number of tokens")
    if len(set(texts.values())) < len(texts):
        raise ModelFormatError("tokenizer: two tokens have the same id")
    table = [b""] * (max(texts.values()) + 1)
    plain = dict(texts)
    for text, token_id in added.items():
        del plain[text]
        table[token_id] = text.encode()
    try:
        joined = to_bytes("".join(plain))
    except ValueError as error:
        wrong = next(text for text in plain if not is_byte_level(text))
        raise ModelFormatError(
            f"tokenizer: token {safe_repr(wrong)} has a character that is not in the byte-level alphabet"
        ) from error
    ends = [*accumulate(map(len, plain))]  # the last one begins nothing
    for token_id, begin, end in zip(plain.values(), [0, *ends], ends, strict=False):
        table[token_id] = joined[begin:end]
    return table
