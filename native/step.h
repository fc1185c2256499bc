// The library's functions, called from Python through ctypes. Nothing here throws; pointers and shapes have been checked.
#pragma once
#include "kernels.h"

// Changes whenever a structure, a function or a layout of weights does: the Python code refuses another number.
constexpr int INTERFACE = 5;

extern "C" {
struct Engine;
#pragma GCC visibility push(default)

// `target`: the name of kernels, or "" for the best that this processor runs. Null on failure, with errno: ENOTSUP (the
// processor lacks what the target needs, or there is none of that name), EAGAIN (no more threads), ENOMEM.
Engine *engine_open(const Model *, const char *target, int num_threads);
void engine_close(Engine *);
int engine_interface(void);
const char *engine_targets(void);          // names of what this processor runs, separated by spaces, the best first
int64_t engine_block_bytes(const Model *); // of the KV cache, all layers together
// Floats between rows of logits.
int engine_logits_stride(const Model *);
// Computes the tokens, writes their keys and values, and draws. 0; -1 if there is no memory.
int engine_step(Engine *, Step *);
// Draws from edited rows of logits (N, stride). Log-probabilities are of `raw` (N, raw_stride), the model's own; the same
// pointer if nothing was edited. 0; -1 if there is no memory.
int engine_draw(Engine *, const Draws *, const float *logits, int stride, const float *raw, int raw_stride);
#pragma GCC visibility pop
}
