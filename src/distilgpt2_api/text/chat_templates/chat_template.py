"""Renders a chat's messages to the text that the model continues, as `apply_chat_template` of `transformers` does."""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from distilgpt2_api.core.errors import InvalidRequestError, ModelFormatError, OverloadedError
from distilgpt2_api.text.limited_process import LimitedProcess

MAX_TEMPLATE_CHARACTERS = 1 << 16
BASE_CPU_S = 0.1
CPU_S_PER_CHARACTER = 2e-6
"""CPU time of one rendering: hundreds of times what usual chats need, and more for a longer context."""

OWN_VARIABLES = frozenset(["messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token"])
"""Variables that every template gets; `tools` and `documents` are None."""

Message = Mapping[str, str]
"""`role`, `content`, and optionally `name`."""


class ChatTemplate:
    """A chat template. Any thread may call it."""

    def __init__(
        self,
        source: str,
        *,
        origin: str,
        special_tokens: Mapping[str, str] | None = None,
        now: Callable[[], datetime] = datetime.now,
        process: LimitedProcess | None = None,
    ) -> None:
        """Raises ModelFormatError, which names `origin`, where the template comes from.

        `special_tokens`: `bos_token`, `eos_token` and so on, as the tokenizer's files define them. `process` runs
        `renderer`, and the template closes it; without one the template is trusted and rendered here.
        """
        if len(source) > MAX_TEMPLATE_CHARACTERS:
            raise ModelFormatError(f"{origin}: the chat template has more than {MAX_TEMPLATE_CHARACTERS} characters")
        self.source = source
        self.special_tokens = dict(special_tokens or {})
        self._now = now
        self._process = process
        # A service without a template need not wait for Jinja at its start.
        from distilgpt2_api.text.chat_templates import renderer  # noqa: PLC0415 - the reason stands above

        self._render = renderer.render
        try:
            self._variables = renderer.find_variables(source)
            renderer.compile_template(source)
        except Exception as error:  # noqa: BLE001 - parser and compiler can raise any of Python's errors
            raise ModelFormatError(f"{origin}: not a chat template: {renderer.describe_error(error)}") from None

    def uses(self, word: str) -> bool:
        """Whether the template contains `word`."""
        return re.search(rf"\b{re.escape(word)}\b", self.source) is not None

    def check_variables(self, names: Sequence[str], *, param: str) -> None:
        """Raises InvalidRequestError for a name that requests may not set, or that the template does not read."""
        for name in names:
            if name in OWN_VARIABLES or name in self.special_tokens or name not in self._variables:
                raise InvalidRequestError(
                    f"{param}: this model's chat template takes no {name[:100]!r} from requests", param=param
                )

    def render(
        self,
        messages: Sequence[Message],
        *,
        max_characters: int,
        has_generation_prompt: bool = True,
        is_continued: bool = False,
        variables: Mapping[str, object] | None = None,
    ) -> str:
        """The prompt. If `is_continued`, it ends with the last message's content, which the model continues.

        `max_characters` is the longest text that can fit the model's context; it sets the limits on CPU time and
        length. Raises InvalidRequestError with the template's own message or what it took too much of. Takes tenths
        of a second at worst, so an event loop calls it on a thread.
        """
        values = {**(variables or {}), **self.special_tokens, "messages": [dict(message) for message in messages]}
        values |= {"tools": None, "documents": None, "add_generation_prompt": has_generation_prompt}
        now = self._now().isoformat()
        rendering = self._run(source=self.source, values=values, now=now, max_characters=max_characters)
        if "error" in rendering:
            raise InvalidRequestError(f"messages: {rendering['error']}", param="messages")
        text = rendering["text"]
        return _cut_after(messages[-1]["content"], text) if is_continued else text

    def close(self) -> None:
        """End the limited process. Idempotent."""
        if self._process is not None:
            self._process.close()

    def _run(self, *, max_characters: int, **task: Any) -> dict[str, str]:
        """`renderer.render`, in the limited process if there is one."""
        if self._process is None:
            return self._render(max_characters=max_characters, **task)
        max_cpu_s = BASE_CPU_S + CPU_S_PER_CHARACTER * max_characters
        try:
            rendering = self._process.run({**task, "max_characters": max_characters}, max_cpu_s=max_cpu_s)
        except OSError as error:
            raise OverloadedError("the service is overloaded: it can't render a chat template now") from error
        return rendering or {"error": "the chat template takes too much time or memory for these messages"}


def _cut_after(content: str, text: str) -> str:
    """`text` up to the end of `content` in it. Templates may have stripped white space from `content`."""
    start = text.rfind(content.strip())
    if start < 0:
        raise InvalidRequestError(
            "continue_final_message: the chat template changes the last message's content, so it can't be continued",
            param="continue_final_message",
        )
    rest = content.lstrip()
    is_whole = text.startswith(rest, start)
    return text[: start + len(rest if is_whole else content.strip())]
