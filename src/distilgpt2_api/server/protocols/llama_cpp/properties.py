"""`GET /props` and `GET /slots`, as in llama.cpp's `tools/server`."""

from typing import Annotated, Literal

from fastapi import Query

from distilgpt2_api.core.errors import UnavailableError
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.server.protocols.llama_cpp.errors import LLAMA_CPP_ERRORS
from distilgpt2_api.server.protocols.llama_cpp.schema import DEFAULTS, LlamaProps, LlamaSlot, LlamaSlotSettings
from distilgpt2_api.server.protocols.llama_cpp.writer import completion_settings
from distilgpt2_api.server.schema.query import checked_router
from distilgpt2_api.server.service import ServiceDep

router = checked_router("llama.cpp")


@router.get("/props", summary="Describe the service", responses=LLAMA_CPP_ERRORS.responses(404, 503))
async def read_props(
    service: ServiceDep,
    model: Annotated[str | None, Query(description="A name of the served model.")] = None,
    autoload: Annotated[  # noqa: ARG001 - llama.cpp's web client sends it
        Literal["true", "false"] | None, Query(description="No effect: the model is loaded.")
    ] = None,
) -> LlamaProps:
    """The model, its context, and the defaults of `/completion`."""
    service.model.check_name(model)
    engine = service.engine
    config, tokenizer = engine.model_config, engine.tokenizer
    defaults = service.sampling_defaults.over(DEFAULTS)
    params = SamplingParams(**defaults.params)
    settings = completion_settings(params, n_predict=defaults.max_tokens or -1, n_ctx=config.num_positions)
    end_of_text = tokenizer.end_of_text_id(config)
    return LlamaProps(
        default_generation_settings=LlamaSlotSettings(n_ctx=config.num_positions, params=settings | {"seed": -1}),
        total_slots=engine.max_num_sequences,
        model_alias=service.model.shown_name,
        model_path=service.model.name,
        chat_template="" if service.chat_template is None else service.chat_template.source,
        bos_token="" if config.bos_token_id is None else tokenizer.token_text(config.bos_token_id),
        eos_token="" if end_of_text is None else tokenizer.token_text(end_of_text),
        build_info=f"distilgpt2-api {service.version}",
    )


@router.get("/slots", summary="List the slots of the batch", responses=LLAMA_CPP_ERRORS.responses(503))
async def list_slots(
    service: ServiceDep,
    fail_on_no_slot: Annotated[int, Query(ge=0, le=1, description="1: 503 if no slot is free.")] = 0,
) -> list[LlamaSlot]:
    """As many as sequences can run at the same time. Sequences that wait for memory count as running."""
    engine = service.engine
    num_slots, num_positions = engine.max_num_sequences, engine.model_config.num_positions
    num_busy = min(engine.num_sequences, num_slots)
    if fail_on_no_slot and num_busy == num_slots:
        raise UnavailableError("no slot is available")
    return [LlamaSlot(id=index, n_ctx=num_positions, is_processing=index < num_busy) for index in range(num_slots)]
