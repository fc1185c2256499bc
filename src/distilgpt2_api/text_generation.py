"""The entry point for Python programs: generates text without a server."""

import random
import threading
from numbers import Integral
from pathlib import Path
from typing import Self

from distilgpt2_api.core.errors import InvalidRequestError
from distilgpt2_api.core.events import SilentObserver
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.core.seeds import NO_SEED
from distilgpt2_api.engine.engine import Engine
from distilgpt2_api.engine.factory import load_engine
from distilgpt2_api.engine.sync import complete, encode_prompt
from distilgpt2_api.engine.validation import check_context_length, check_plain_params
from distilgpt2_api.settings import Settings


class TextGenerator:
    """Completes prompts with `model` (a pulled model's name, or a folder), else with the model of the settings.

    With a `seed`, the same calls in the same order return the same texts on any machine that computes the same logits.
    -1 means no seed. Threads can share a generator; their calls run one at a time. Raises ModelError if the model
    can't be loaded.
    """

    def __init__(self, model: str | Path | None = None, *, seed: int | None = None) -> None:
        settings = Settings() if model is None else Settings(model=str(model))
        self._random = random.Random(None if seed == NO_SEED else seed)  # noqa: S311 - samples text, no secrets
        self._engine: Engine = load_engine(
            settings.locate_model().folder,
            settings.engine_config(),
            cache_folder=settings.cache_home,
            observer=SilentObserver(),
            report=lambda _note: None,  # a library call prints nothing
        )
        self._lock = threading.Lock()

    def generate(
        self,
        prompt: str,
        max_new_tokens: int = 50,
        num_return_sequences: int = 1,
        *,
        top_k: int = 50,
        **sampling: float,
    ) -> list[str]:
        """Returns `num_return_sequences` texts: the prompt, followed by at most `max_new_tokens` sampled tokens.

        `sampling` takes `temperature`, `top_p` and every other plain parameter of `core/params.py`. An empty prompt
        starts from the model's end-of-text token. Raises InvalidRequestError, with the parameter's name.
        """
        _check_at_least("max_new_tokens", max_new_tokens, 0)
        _check_at_least("num_return_sequences", num_return_sequences, 1)
        params = check_plain_params({"top_k": top_k, **sampling})
        with self._lock:
            token_ids = encode_prompt(self._engine, prompt)
            check_context_length(len(token_ids), max_new_tokens, self._engine.config, param="max_new_tokens")
            request = GenerationRequest(
                request_id="text-generator",
                prompt_token_ids=token_ids,
                params=SamplingParams(
                    **params,
                    max_tokens=max_new_tokens,
                    seed=self._random.getrandbits(63),
                ),
                num_sequences=num_return_sequences,
                is_streamed=False,
            )
            return complete(self._engine, request, prompt)

    def close(self) -> None:
        """Free the model's memory. The generator can't be used afterwards."""
        with self._lock:
            self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def _check_at_least(param: str, value: int, least: int) -> None:
    if not isinstance(value, Integral) or value < least:
        raise InvalidRequestError(f"{param} is {value!r}; it must be a whole number, at least {least}", param=param)
