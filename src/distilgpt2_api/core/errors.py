"""The errors that this package raises. `server/http/errors.py` maps them to HTTP status codes.

Distilgpt2ApiError
├── InvalidRequestError            the request can't be served as it is
│   ├── ContextLengthError         prompt (and completion) over the model's positions
│   ├── UnsupportedParameterError  a known parameter that is not supported
│   ├── NotFoundError              no file, batch or key with that id or name
│   ├── ConflictError              not possible in the file's or batch's state
│   └── QuotaError                 the caller's storage quota is exceeded
├── UnavailableError               the service can't take the request now
│   ├── OverloadedError            the queue is full
│   │   └── RateLimitError         the caller is at one of its limits
│   │       └── BudgetError        its budget of this day or month is used up
│   ├── DrainingError              shutting down
│   ├── NotReadyError              the model is still loading
│   ├── EngineFailedError          the engine thread stopped
│   │   └── EngineHungError        or is stuck in a step
│   ├── StoreError                 a store is unavailable
│   │   └── StoreFullError         because its disk is full
│   └── ReplicaLostError           the process that handled the request has ended
├── GenerationError                one request failed while it ran
├── DeadlineExceededError          one request exceeded its time limit
├── ModelError                     a model folder that can't be served
│   ├── ModelNotFoundError
│   ├── ModelFormatError           a file is missing, truncated, malformed or hostile
│   ├── UnsupportedModelError      well-formed, with an option that is not implemented
│   ├── UnsupportedProcessorError  this machine can't run any model
│   └── ModelMemoryError           not enough memory
└── SettingsError                  a setting with a bad value, or an unknown name
"""

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


class UnsupportedParameterError(InvalidRequestError):
    """A known parameter that is not supported."""


class NotFoundError(InvalidRequestError):
    """No file, batch or key has that id or name, or it belongs to another caller."""


class ConflictError(InvalidRequestError):
    """The operation is not possible in the state of the file or batch."""


class QuotaError(InvalidRequestError):
    """The caller's storage quota is exceeded."""


class UnavailableError(Distilgpt2ApiError):
    """The service can't take the request now. `retry_after_s` estimates when it can, in seconds."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class OverloadedError(UnavailableError):
    """The queue is full, in requests or in tokens."""


class RateLimitError(OverloadedError):
    """The caller has reached its limit of requests in flight or of tokens."""


class BudgetError(RateLimitError):
    """The key has used up its budget of tokens for this day or month."""


class DrainingError(UnavailableError):
    """The service is shutting down."""


class NotReadyError(UnavailableError):
    """The model is not loaded yet."""


class EngineFailedError(UnavailableError):
    """The engine stopped after an internal error."""


class EngineHungError(EngineFailedError):
    """An engine step does not end."""


class StoreError(UnavailableError):
    """A store, of files and batches or of usage, is temporarily unavailable."""


class StoreFullError(StoreError):
    """The store's disk is full."""


class ReplicaLostError(UnavailableError):
    """The process that handled the request ended before the response was complete."""


class GenerationError(Distilgpt2ApiError):
    """One request failed while it ran. Others continue."""


class DeadlineExceededError(Distilgpt2ApiError):
    """One request exceeded its time limit, which includes queue time."""


class ModelError(Distilgpt2ApiError):
    """A model can't be served. The message is one line that names the file."""


class ModelNotFoundError(ModelError):
    """No model has that name or path."""


class ModelFormatError(ModelError):
    """A file of the model is missing, truncated, malformed or hostile."""


class UnsupportedModelError(ModelError):
    """A well-formed model with an option that affects the computation and is not implemented."""


class UnsupportedProcessorError(ModelError):
    """The kernels do not support this machine's processor."""


class ModelMemoryError(ModelError):
    """The model and its KV cache do not fit the memory that this process may use."""


class SettingsError(Distilgpt2ApiError):
    """A setting has an invalid value or an unknown name."""

    @classmethod
    def missing_extra(cls, user: str, extra: str) -> Self:
        """`user` needs packages of an optional extra."""
        return cls(
            f"{user} needs the extra `{extra}`, which is not installed: run `make install EXTRAS={extra}` in the"
            f" checkout, or `python -m pip install 'distilgpt2-api[{extra}]'` beside the installed package,"
            f" or build the image with --build-arg EXTRAS={extra}"
        )
