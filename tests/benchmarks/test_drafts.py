"""The prompts of `make bench-drafts`."""

from pathlib import Path

from benchmarks.drafts import read_beginnings

from distilgpt2_api.model.hub.store import BUNDLED_FOLDER
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer


def test_prompts_are_the_beginnings_of_documents_that_are_long_enough(tmp_path: Path) -> None:
    path = tmp_path / "stories.txt"
    path.write_text(
        "Too short.<|endoftext|>\nOnce upon a time there was a fox.\n<|endoftext|>The crow sat on a branch."
    )

    prompts = read_beginnings(path, BUNDLED_FOLDER, 5, 2)

    encode = Tokenizer.from_folder(BUNDLED_FOLDER).encode
    assert prompts == [encode("Once upon a time there was a fox.")[:5], encode("The crow sat on a branch.")[:5]]
