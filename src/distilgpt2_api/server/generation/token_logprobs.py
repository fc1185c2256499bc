"""Log-probabilities of tokens as OpenAI's chat lists them. Ollama and llama.cpp have the same fields."""

from distilgpt2_api.core.plan import TokenLogprobs
from distilgpt2_api.engine.scoring import MIN_LOGPROB
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer


def token_with_top(token: TokenLogprobs, tokenizer: Tokenizer, *, num_top: int) -> dict[str, object]:
    """A sampled token, and the `num_top` likeliest ones at its position."""
    top = [token_body(token_id, logprob, tokenizer) for token_id, logprob in token.top[:num_top]]
    return token_body(token.token_id, token.logprob, tokenizer) | {"top_logprobs": top}


def token_body(token_id: int, logprob: float, tokenizer: Tokenizer) -> dict[str, object]:
    # A padded model has tokens beyond its tokenizer's.
    token = tokenizer.token_bytes[token_id] if token_id < tokenizer.vocab_size else b""
    return {"token": tokenizer.token_text(token_id), "logprob": max(logprob, MIN_LOGPROB), "bytes": list(token)}
