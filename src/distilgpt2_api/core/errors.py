"""The errors that this package raises. `server/http/errors.py` maps them to HTTP status codes.

Distilgpt2ApiError
├── InvalidRequestError            the request can't be served as it is
│   ├── ContextLengthError         prompt (and completion) over the model's positions
│   ├── UnsupportedParameterError  a known parameter that is not supported
│   ├── NotFoundError              no file or batch with that id, or another caller's
│   ├── ConflictError              not possible in the file's or batch's state
│   └── QuotaError                 the caller's storage quota is exceeded
├── UnavailableError               the service can't take the request now
│   ├── OverloadedError            the queue is full
│   │   └── RateLimitError         the caller is at one of its limits
│   ├── DrainingError              shutting down
│   ├── NotReadyError              the model is still loading
│   ├── EngineFailedError          the engine thread stopped
│   │   └── EngineHungError        or is stuck in a step
│   ├── StoreError                 the store of files and batches is unavailable
│   │   └── StoreFullError         because its disk is full
│   └── ReplicaLostError           the process that handled the request has ended
├── GenerationError                one request failed while it ran; others continue
├── DeadlineExceededError          one request exceeded its time limit, which includes queue time
├── ModelError                     a model folder that can't be served
│   ├── ModelNotFoundError         no model has that name or path
│   ├── ModelFormatError           a file is missing, truncated, malformed or hostile
│   ├── UnsupportedModelError      well-formed, with an option that is not implemented
│   ├── UnsupportedProcessorError  this machine can't run any model
│   └── ModelMemoryError           not enough memory
└── SettingsError                  a setting with a bad value, or an unknown name
"""

from __future__ import annotations

from typing import Self


class Distilgpt2ApiError(Exception):
    """Base class. Messages are safe to show to the client."""


class InvalidRequestError(Distilgpt2ApiError):
    """The request can't be served as it is.

    `param` is the parameter's name as the client spelled it, or None if the error is not about a single parameter.
    """

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ContextLengthError(InvalidRequestError):
    """Prompt and completion need more positions than the model has."""

    @classmethod
    def exceeding(cls, num_positions: int, requested: str, *, shorten: str, param: str) -> Self:
        """In OpenAI's wording, which clients recognise: some then shorten the prompt or switch models."""
        return cls(
            f"This model's maximum context length is {num_positions} tokens. However, you requested {requested}. Please"
            f" reduce the length of {shorten}.",
            param=param,
        )


class UnsupportedParameterError(InvalidRequestError): ...


class NotFoundError(InvalidRequestError): ...


class ConflictError(InvalidRequestError): ...


class QuotaError(InvalidRequestError): ...


class UnavailableError(Distilgpt2ApiError):
    """The service can't take the request now. `retry_after_s` estimates when it can, in seconds."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class OverloadedError(UnavailableError): ...


class RateLimitError(OverloadedError): ...


class DrainingError(UnavailableError): ...


class NotReadyError(UnavailableError): ...


class EngineFailedError(UnavailableError): ...


class EngineHungError(EngineFailedError): ...


class StoreError(UnavailableError): ...


class StoreFullError(StoreError): ...


class ReplicaLostError(UnavailableError): ...


class GenerationError(Distilgpt2ApiError): ...


class DeadlineExceededError(Distilgpt2ApiError): ...


class ModelError(Distilgpt2ApiError):
    """A model can't be served. The message is one line that names the file."""


class ModelNotFoundError(ModelError): ...


class ModelFormatError(ModelError): ...


class UnsupportedModelError(ModelError): ...


class UnsupportedProcessorError(ModelError): ...


class ModelMemoryError(ModelError): ...


class SettingsError(Distilgpt2ApiError): ...
