// The library's functions, called from Python through ctypes. Nothing here throws; pointers and shapes have been checked.
#pragma once
#include "kernels.h"

// Changes whenever a structure, a function or a layout of weights does: the Python code refuses another number.
constexpr int INTERFACE = 1;

extern "C" {
struct Engine;
#pragma GCC visibility push(default)

// Kernels of that name, or the best that this processor runs if it is "". Null if there are none of that name, or the
// processor lacks what they need; `engine_targets` names those that it runs, separated by spaces, the best first.
Engine *engine_open(const Model *, const char *target, int num_threads);
void engine_close(Engine *);
int engine_interface(void);
const char *engine_target(const Engine *);
const char *engine_targets(void);
int64_t engine_block_bytes(const Model *); // of the KV cache, all layers together
// Computes the tokens and writes their keys and values. 0; -1 if there is no memory.
int engine_step(Engine *, const Step *);
// hidden (N, C) → logits (N, V). 0; -1 if there is no memory.
int engine_logits(Engine *, const float *hidden, int num_rows, float *logits);
#pragma GCC visibility pop
}
