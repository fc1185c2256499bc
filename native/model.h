// What Python hands over: the model, the KV cache, one step. model/kernels/structures.py has the same layouts.
#pragma once
#include <stdint.h>

enum Precision { INT8 = 0, BF16 = 1, F32 = 2 };
enum Activation { GELU_TANH = 0, GELU_ERF = 1, RELU = 2, SILU = 3, TANH = 4 };

constexpr int PANEL = 32;          // columns (output channels) of a weight panel
constexpr int BLOCK_TOKENS = 32;   // tokens of a KV-cache block
constexpr int GROUP = 64;          // activations of a row that share a scale
constexpr int MAX_HEAD_SIZE = 512; // as architectures/gpt2/config.py has it

// A matrix (out N, in K) in panels of 32 columns, zero-padded:
//   INT8: uint8 [N/32][K/4][32][4], int8 weight + 128; scale[N]
//   BF16: uint16 [N/32][K][32]      F32: float [N/32][K][32]; no scale
struct Matrix {
    const void *panels;
    const float *scale; // (N), INT8 only
    const float *bias;  // (N), or null
    int32_t num_columns;
    int32_t depth; // K
};

struct Norm {
    const float *weight; // (C)
    const float *bias;   // (C)
};

struct Layer {
    Norm norm_1;
    Matrix qkv;
    Matrix projection;
    Norm norm_2;
    Matrix up;
    Matrix down;
    float attention_scale;
    int32_t unused;
};

struct Model {
    int32_t precision, activation;
    int32_t num_layers, num_heads, head_size, width, inner_width, vocab_size;
    float layer_norm_epsilon;
    int32_t num_blocks;
    const Layer *layers;
    Norm final_norm;
    Matrix embedding;       // (V, C)
    Matrix head;            // (V, C); the embedding again if they are tied
    const float *positions; // (P, C)
    uint8_t *cache;         // num_layers × num_blocks × block_bytes(model)
};

// How the token behind a computed one is drawn, or scored if it is given. Parameters apply in this order.
struct Draw {
    double top_n_sigma;       // 0 or less: off
    double temperature;       // 0: the likeliest token, whatever the others are
    double dynatemp_range;    // 0: off; else the temperature is within this of `temperature`
    double dynatemp_exponent; // of the share of the greatest entropy
    double typical_p;         // 1: off
    int32_t top_k;            // 0: off
    int32_t num_top;          // likeliest tokens to list with log-probabilities; -1: no log-probabilities at all
    double top_p;             // 1: off
    double min_p;             // 0: off
    double xtc_probability;   // 0: off
    double xtc_threshold;     // above 0.5: off
    double largest_surprisal; // of a token, in bits: mirostat's; infinity: off
    uint64_t seed;            // with `position`, the key of its random numbers
    int32_t position;         // of the drawn token in its sequence; a step knows it itself
    int32_t given;            // a token to score; -1: draw one
    int32_t sequence;         // of the step: the draw is behind its last token
    int32_t token;            // or behind the step's token of this index, unless it is -1
};

// N draws. A step computes only logits for the first `num_edited`: the caller edits them, then engine_draw() draws.
struct Draws {
    int32_t num_draws, num_edited, max_top, unused;
    const Draw *draws;    // (N)
    int32_t *token_ids;   // (N): -1 if the largest logit isn't finite, so that no token can be drawn
    float *largest;       // (N): logits
    double *surprisals;   // (N): in bits, among the tokens that it was drawn from; of draws with `largest_surprisal`
    double *logprobs;     // (N): the model's own, without the parameters
    int32_t *top_ids;     // (N, max_top), the likeliest first
    double *top_logprobs; // (N, max_top)
};

// T tokens of R sequences, those of a sequence side by side.
struct Step {
    int32_t num_tokens, num_sequences;
    // One array of several, each behind the one before: token ids (T), positions (T), where each sequence's tokens begin
    // in T (R + 1), where each sequence's block table begins (R + 1), all block tables.
    const int32_t *inputs;
    const Draws *draws;
    float *logits; // result: (num_edited, logits_stride(V)), until the next step
};
