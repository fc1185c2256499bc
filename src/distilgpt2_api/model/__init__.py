"""From a model folder to logits and tokens: files, weights, the graph, the KV cache, the runner, the sampler."""
