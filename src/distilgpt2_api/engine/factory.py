"""Builds an engine from a model folder. Only this module constructs all of its parts."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from distilgpt2_api.core.config import EngineConfig
from distilgpt2_api.core.errors import ModelFormatError
from distilgpt2_api.core.events import EngineObserver
from distilgpt2_api.core.model_files import safe_repr
from distilgpt2_api.engine.engine import Engine
from distilgpt2_api.model.architectures.registry import read_model_config
from distilgpt2_api.model.kernels.kv_cache import kv_block_bytes
from distilgpt2_api.model.kernels.library import choose_target
from distilgpt2_api.model.memory_check import check_memory
from distilgpt2_api.model.runner import Runner
from distilgpt2_api.scheduling.blocks import num_blocks_for
from distilgpt2_api.scheduling.scheduler import Scheduler
from distilgpt2_api.text.structured_output.grammars import GrammarCompiler
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer


def load_engine(
    folder: Path,
    config: EngineConfig,
    *,
    cache_folder: Path | None,
    observer: EngineObserver,
    report: Callable[[str], None],
) -> Engine:
    """Loads the model in `folder`. Raises ModelError. `report` is called with each line for the log.

    `cache_folder` keeps the compiled model for the next start. Without one, or if it isn't writable, loading takes
    longer.
    """
    choose_target(config.kernels)  # first: without kernels no model can be served
    model_config = read_model_config(folder)
    block_bytes = kv_block_bytes(model_config, config.precision)
    tokenizer = Tokenizer.from_folder(folder, num_rows=model_config.vocab_size)
    if tokenizer.files.left_out:
        report(
            f"the model has {model_config.vocab_size} tokens, so these tokens of its tokenizer are ignored: "
            f"{safe_repr(', '.join(tokenizer.files.left_out))}"
        )
    if tokenizer.vocab_size > model_config.vocab_size:
        raise ModelFormatError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, but the model only {model_config.vocab_size}"
        )
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in model_config.eos_token_ids:
        # It ends a text, too, as in vLLM.
        model_config = replace(model_config, eos_token_ids=(*model_config.eos_token_ids, tokenizer.eos_token_id))
    blocks_per_context = num_blocks_for(model_config.num_positions)
    # At most what the batch can use, and at least one context.
    max_blocks = min(config.kv_cache_bytes // block_bytes, config.max_num_sequences * blocks_per_context)
    num_blocks = max(blocks_per_context, max_blocks)
    check_memory(
        folder,
        model_config,
        config.precision,
        num_blocks=num_blocks,
        min_blocks=blocks_per_context,
        limit_bytes=config.memory_limit_bytes,
    )
    runner = Runner.load(
        folder,
        config,
        model_config=model_config,
        num_blocks=num_blocks,
        cache_folder=cache_folder,
        report=report,
    )
    scheduler = Scheduler(config, num_blocks=num_blocks, num_eager_blocks=config.prefix_cache_bytes // block_bytes)
    grammars = GrammarCompiler(tokenizer, vocab_size=model_config.vocab_size, eos_token_ids=model_config.eos_token_ids)
    return Engine(runner=runner, scheduler=scheduler, tokenizer=tokenizer, grammars=grammars, observer=observer)
