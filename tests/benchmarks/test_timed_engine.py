"""The engine with timers runs as without them."""

from __future__ import annotations

from pathlib import Path

from benchmarks.timed_engine import PARTS, Load, TimedEngine
from tests.e2e.conftest import write_model

from distilgpt2_api.core.config import Precision


def test_every_part_of_a_step_is_timed(tmp_path: Path) -> None:
    """With more sequences than the sampler handles at once."""
    folder = write_model(tmp_path, num_positions=64)
    engine = TimedEngine(folder, precision=Precision.F32, num_threads=1, cache_folder=tmp_path / "cache")
    try:
        run = engine.run(Load(num_sequences=64, num_prompt_tokens=5, num_new_tokens=4, top_k=10))
    finally:
        engine.close()

    assert run.step_parts_ms.keys() == set(PARTS)
    assert min(run.step_parts_ms.values()) > 0
    assert run.share_of_forward > 0
