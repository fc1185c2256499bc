"""Messages of a chat to the one text that a model was trained to continue (`apply_chat_template` of `transformers`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import jinja2
from jinja2 import meta

from distilgpt2_api.core.errors import InvalidRequestError, ModelFormatError
from distilgpt2_api.text.template_meter import METER, Meter, TemplateLimitError
from distilgpt2_api.text.template_sandbox import TemplateEnvironment

MAX_TEMPLATE_CHARACTERS = 1 << 16
MAX_MESSAGE_CHARACTERS = 500
"""Of an error that a template raises."""
BASE_WORK = 1_000_000
WORK_PER_CHARACTER = 16
"""What a rendering may cost: about a tenth of a second, and more where the context is longer."""

OWN_VARIABLES = frozenset(["messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token"])
"""What a template gets in any case; `tools` and `documents` are none."""

Message = Mapping[str, str]
"""`role`, `content`, and `name` where there is one."""

TEMPLATE_ERRORS = (
    jinja2.TemplateError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""What a template can make Jinja and Python raise."""


class ChatTemplate:
    """A compiled template. Holds no state between renderings: any thread may call it."""

    def __init__(
        self,
        source: str,
        *,
        origin: str,
        special_tokens: Mapping[str, str] | None = None,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        """Raises ModelFormatError, which names `origin`, where the template comes from.

        `special_tokens`: what the tokenizer's files call `bos_token`, `eos_token` and so on.
        """
        if len(source) > MAX_TEMPLATE_CHARACTERS:
            raise ModelFormatError(f"{origin}: the chat template has more than {MAX_TEMPLATE_CHARACTERS} characters")
        self.source = source
        self.special_tokens = dict(special_tokens or {})
        environment = TemplateEnvironment()
        environment.globals["strftime_now"] = lambda form: now().strftime(form)
        try:
            self._variables = meta.find_undeclared_variables(environment.parse(source))
            self._template = environment.from_string(source)
        except TEMPLATE_ERRORS as error:
            raise ModelFormatError(f"{origin}: not a chat template: {_reason(error)}") from None

    def uses(self, word: str) -> bool:
        """Whether the template has the word at all."""
        return re.search(rf"\b{re.escape(word)}\b", self.source) is not None

    def check_variables(self, names: Sequence[str], *, param: str) -> None:
        """Raises InvalidRequestError for what is the template's own to set, or what it does not read."""
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
        """The prompt. `is_continued`: it ends with the last message's own words, which the model goes on with.

        Raises InvalidRequestError with what the template says of these messages. `max_characters`, of a text that the
        model can use, bounds work and memory. Takes some tenths of a second at worst, so callers on an event loop use a
        thread.
        """
        values = {**(variables or {}), **self.special_tokens, "messages": [dict(message) for message in messages]}
        values |= {"tools": None, "documents": None, "add_generation_prompt": has_generation_prompt}
        meter = METER.set(Meter(BASE_WORK + WORK_PER_CHARACTER * max_characters))
        try:
            text = "".join(self._template.generate(values))
        except (*TEMPLATE_ERRORS, TemplateLimitError) as error:
            raise InvalidRequestError(f"messages: {_reason(error)}", param="messages") from None
        finally:
            METER.reset(meter)
        if is_continued:
            text = _cut_after(messages[-1]["content"], text)
        return text


def _cut_after(content: str, text: str) -> str:
    """`text` up to where `content` ends in it; templates may have taken space from its sides."""
    start = text.rfind(content.strip())
    if start < 0:
        raise InvalidRequestError(
            "continue_final_message: the chat template does not show the last message as it is",
            param="continue_final_message",
        )
    rest = content.lstrip()
    is_whole = text.startswith(rest, start)
    return text[: start + len(rest if is_whole else content.strip())]


def _reason(error: Exception) -> str:
    """In one line. Some errors could repeat what the messages say: of them only the kind is told."""
    match error:
        case jinja2.TemplateSyntaxError():
            return f"{error.message} (line {error.lineno})"
        case jinja2.UndefinedError():
            return "the chat template reads what is not there"
        case jinja2.TemplateError() | TemplateLimitError():
            message = " ".join(str(error).split())
            return message[:MAX_MESSAGE_CHARACTERS] or "the chat template refuses them"
        case RecursionError() | MemoryError():
            return "the chat template is nested too deeply"
        case _:
            return f"the chat template fails with a {type(error).__name__}"
