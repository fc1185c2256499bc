"""OpenAI's `Batch` objects: requests and answers."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from distilgpt2_api.batch.lines import BatchUrl
from distilgpt2_api.batch.store.objects import BatchStatus, StoredBatch
from distilgpt2_api.server.protocols.openai.batches.files_schema import MAX_EXPIRY_S, MIN_EXPIRY_S, ObjectList
from distilgpt2_api.server.schema.deferred_model import DeferredModel
from distilgpt2_api.server.schema.validation import Body

MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]


class OutputExpiresAfter(Body):
    anchor: Literal["created_at"]
    seconds: int = Field(ge=MIN_EXPIRY_S, le=MAX_EXPIRY_S, description="From the creation of a file.")


class BatchRequest(Body):
    """OpenAI's `CreateBatchRequest`."""

    input_file_id: str = Field(max_length=64, description="A file uploaded with the purpose `batch`.")
    endpoint: BatchUrl = Field(description="Every line's `url`.")
    completion_window: Literal["24h"]
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)] | None = None
    output_expires_after: OutputExpiresAfter | None = Field(
        None, description="How long the output files are kept. By default as long as the service keeps all files."
    )


class BatchError(DeferredModel):
    code: str
    message: str
    line: int | None = Field(description="Line number of the input, from 1.")
    param: str | None


class BatchErrors(DeferredModel):
    object: Literal["list"] = "list"
    data: list[BatchError]


class BatchRequestCounts(DeferredModel):
    total: int
    completed: int
    failed: int


class BatchInputTokensDetails(DeferredModel):
    cached_tokens: int


class BatchOutputTokensDetails(DeferredModel):
    reasoning_tokens: Literal[0] = 0


class BatchUsage(DeferredModel):
    """Token counts of all answered lines."""

    input_tokens: int
    input_tokens_details: BatchInputTokensDetails
    output_tokens: int
    output_tokens_details: BatchOutputTokensDetails = BatchOutputTokensDetails()
    total_tokens: int


class Batch(DeferredModel):
    """OpenAI's `Batch`."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str
    errors: BatchErrors | None = Field(description="Errors in the input of a failed batch.")
    input_file_id: str
    completion_window: Literal["24h"] = "24h"
    status: Literal[
        "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
    ]
    output_file_id: str | None = Field(description="The answers, by line. Null if there are none.")
    error_file_id: str | None = Field(description="The failed lines. Null if there are none.")
    created_at: int = Field(description="Unix time in seconds, like all times.")
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: BatchRequestCounts
    usage: BatchUsage
    metadata: dict[str, str] | None


class BatchList(ObjectList):
    """OpenAI's `ListBatchesResponse`."""

    data: list[Batch]


def batch_object(batch: StoredBatch) -> Batch:
    def stamp(status: BatchStatus) -> int | None:
        seconds = batch.stamps.get(status)
        return None if seconds is None else int(seconds)

    usage = batch.usage
    errors = [BatchError(code=e.code, message=e.message, line=e.line, param=e.param) for e in batch.errors]
    return Batch(
        id=batch.batch_id,
        endpoint=batch.endpoint,
        model=batch.model,
        errors=BatchErrors(data=errors) if errors else None,
        input_file_id=batch.input_file_id,
        status=batch.status.value,
        output_file_id=batch.output_file_id,
        error_file_id=batch.error_file_id,
        created_at=int(batch.created_s),
        in_progress_at=stamp(BatchStatus.IN_PROGRESS),
        expires_at=int(batch.expires_s),
        finalizing_at=stamp(BatchStatus.FINALIZING),
        completed_at=stamp(BatchStatus.COMPLETED),
        failed_at=stamp(BatchStatus.FAILED),
        expired_at=stamp(BatchStatus.EXPIRED),
        cancelling_at=stamp(BatchStatus.CANCELLING),
        cancelled_at=stamp(BatchStatus.CANCELLED),
        request_counts=BatchRequestCounts(
            total=batch.num_lines, completed=batch.num_completed, failed=batch.num_failed
        ),
        usage=BatchUsage(
            input_tokens=usage.num_prompt_tokens,
            input_tokens_details=BatchInputTokensDetails(cached_tokens=usage.num_cached_tokens),
            output_tokens=usage.num_completion_tokens,
            total_tokens=usage.num_prompt_tokens + usage.num_completion_tokens,
        ),
        metadata=None if batch.metadata is None else dict(batch.metadata),
    )
