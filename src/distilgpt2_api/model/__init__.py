"""From a model folder to logits and tokens: files, weights, the kernels, the KV cache, the runner, the sampler."""
