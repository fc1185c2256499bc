"""The kernels that compute a step: the native library, its layouts of weights and KV cache, and how Python calls it."""
