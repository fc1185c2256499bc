"""What can go wrong, said once. No HTTP here: `server/http/errors.py` has the one table of status codes.

Distilgpt2ApiError
├── InvalidRequestError            the caller asked for something that can't be
│   ├── ContextLengthError         prompt (and completion) over the model's positions
│   ├── UnsupportedParameterError  a parameter that exists, but not here
│   ├── NotFoundError              no file or batch of that id
│   ├── ConflictError              not in the state that a file or batch is in
│   └── QuotaError                 more than a caller may have stored
├── UnavailableError               not now
│   ├── OverloadedError            the queue is full; says when to come back
│   │   └── RateLimitError         this caller has all that it may have
│   ├── DrainingError              shutting down
│   ├── NotReadyError              the model is still loading
│   ├── EngineFailedError          the engine thread stopped
│   │   └── EngineHungError        or hangs in a step
│   ├── StoreError                 the store of files and batches can't be used
│   │   └── StoreFullError         for its disk is full
│   └── ReplicaLostError           of many processes, the one that had the request is gone
├── GenerationError                one request failed while it ran
├── DeadlineExceededError          one request took longer than it may
├── ModelError                     a model folder that can't be served
│   ├── ModelNotFoundError
│   ├── ModelFormatError           a file is missing, truncated, mis-shaped, hostile
│   ├── UnsupportedModelError      well-formed, but an option that we don't implement
│   ├── UnsupportedProcessorError  no model at all runs on this machine
│   └── ModelMemoryError           more memory than there is
└── SettingsError                  a setting with a bad value, or an unknown name
"""

from __future__ import annotations

from typing import Self


class Distilgpt2ApiError(Exception):
    """Root of every error that this package raises on purpose. Its message is fit for the caller's eyes."""


class InvalidRequestError(Distilgpt2ApiError):
    """The request can't be carried out as asked.

    `param` is the parameter's name as the caller spelled it, or None where no single one is at fault.
    """

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ContextLengthError(InvalidRequestError):
    """Prompt, or prompt and completion, need more positions than the model has."""

    @classmethod
    def exceeding(cls, num_positions: int, requested: str, *, shorten: str, param: str) -> Self:
        """In OpenAI's sentence, by which clients know it: some then cut the prompt, or take another model."""
        return cls(
            f"This model's maximum context length is {num_positions} tokens. However, you requested {requested}. Please"
            f" reduce the length of {shorten}.",
            param=param,
        )


class UnsupportedParameterError(InvalidRequestError):
    """A parameter that is known, but not supported."""


class NotFoundError(InvalidRequestError):
    """There is no file or batch of that id, or it is somebody else's."""


class ConflictError(InvalidRequestError):
    """What is asked can't be done in the state that a file or batch is in."""


class QuotaError(InvalidRequestError):
    """The caller has as much in the store as it may."""


class UnavailableError(Distilgpt2ApiError):
    """The service can't take the request now. `retry_after_s` is an honest guess, in seconds."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class OverloadedError(UnavailableError):
    """The queue is full, in requests or in tokens."""


class RateLimitError(OverloadedError):
    """The caller has as many requests in flight, or has used as many tokens, as it may."""


class DrainingError(UnavailableError):
    """The service is shutting down."""


class NotReadyError(UnavailableError):
    """The model is not loaded yet."""


class EngineFailedError(UnavailableError):
    """The engine stopped after an error of its own."""


class EngineHungError(EngineFailedError):
    """A step of the engine does not end."""


class StoreError(UnavailableError):
    """The store of files and batches can't be used, for reasons that may pass."""


class StoreFullError(StoreError):
    """Its disk is full."""


class ReplicaLostError(UnavailableError):
    """The process that had the request has ended, with its machine perhaps, before the answer was whole."""


class GenerationError(Distilgpt2ApiError):
    """One request failed while it ran; others go on."""


class DeadlineExceededError(Distilgpt2ApiError):
    """One request was not done within the time it had, queue included."""


class ModelError(Distilgpt2ApiError):
    """A model can't be served. The message is one line and names the file."""


class ModelNotFoundError(ModelError):
    """No model of that name or at that path."""


class ModelFormatError(ModelError):
    """A file of the model is missing, truncated, of the wrong shape or hostile."""


class UnsupportedModelError(ModelError):
    """A well-formed model with an option that changes the arithmetic and is not implemented."""


class UnsupportedProcessorError(ModelError):
    """The kernels have no code for this machine's processor."""


class ModelMemoryError(ModelError):
    """The model, or the KV cache that the settings give it, does not fit the memory that this process may use."""


class SettingsError(Distilgpt2ApiError):
    """A setting has a value that it can't have, or a name that doesn't exist."""
