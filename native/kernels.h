// The table of one target's kernels. All that is here computes; what is handed out to which thread is step.cpp's.
#pragma once
#include "model.h"
#include "sampling.h"

// Activations as the matmuls take them. INT8: signed bytes, in one of two ways.
//
// ONE_BYTE: in groups of GROUP. Each group has a scale, and what its sums of products start from, which takes off again
// what they get from the kernels' way of storing weights. R rows are side by side, R of the kernels (1 or 2): eight bytes of
// the first, eight of the second, and so on.
//
// TWO_BYTES: 16 bits, high · 256 + low, of a scale for each row. High bytes of a row, then the low ones, from half of
// stride_bytes on; each half is one group, with a start of its own.
struct Activations {
    float *values;   // (T, stride_floats)
    int8_t *bytes;   // (T/R, stride_bytes/8, R, 8), INT8 only
    float *scales;   // (T/R, num_groups, R)
    int32_t *starts; // (T/R, num_groups, R)
    int32_t stride_floats, stride_bytes, num_groups, num_rows;
};

enum ActivationBytes { ONE_BYTE, TWO_BYTES };
enum Epilogue { STORE, ACTIVATE, ADD };

struct Kernels {
    const char *name;
    ActivationBytes activation_bytes;
    int rows_together; // R of Activations
    // Columns of panels [first, end) of all rows: to output (T, stride), plus bias; ACTIVATE: the model's activation; ADD: added
    // there. `fetch`: the panels that this thread takes next, of which about as many bytes come into the cache as it multiplies
    // by meanwhile; or null.
    void (*matmul)(const Model &, const Matrix &, const Activations &, int first, int end, Epilogue, float *output,
                   int stride, const uint8_t *fetch);
    void (*embed)(const Model &, int64_t token, int64_t position, float *output);
    void (*layer_norm)(const Model &, const Norm &, const float *input, float *output);
    // `depth` floats of a row to signed bytes, zero-padded to a multiple of four, from their place among R rows on.
    // `half`: where the low bytes are behind the high ones, TWO_BYTES only; then it is the whole row.
    void (*quantize)(const float *input, int depth, int8_t *bytes, int half, float *scales, int32_t *starts);
    // Keys and values (num_tokens, stride) of one head, from `position` on.
    void (*write_cache)(const Model &, int layer, int head, const int32_t *blocks, int position, int num_tokens,
                        const float *keys, const float *values, int stride);
    // `num_queries` that follow each other (query, query_stride): the first one against `num_tokens` keys before and at it,
    // each further one against one more. `scratch`: attention_scratch_floats(keys of the last one).
    void (*attend)(const Model &, int layer, int head, const int32_t *blocks, int num_tokens, int num_queries,
                   const float *query, int query_stride, float *output, int output_stride, float *scratch);
    const Sampling *sampling;
};

constexpr int round_up(int n, int to) { return (n + to - 1) / to * to; }

// A block has all layers, one behind the other, so that the pages in use, which may be huge, grow with the blocks in use.
// The part of one head of one layer:
//   F32: keys float [D][32], values float [32][D']        D' = D up to a multiple of 16
//   else bytes s + 128 of which a number is scale · s + offset, a scale and an offset for each token, in bfloat16:
//     keys uint8 [D/4][32][4], scales [32], offsets [32], values uint8 [32/4][D'][4], scales [32], offsets [32]
struct CacheLayout {
    int64_t key_scales, values, value_scales, head_bytes;
    int padded_head;
};
inline CacheLayout cache_layout(const Model &m) {
    CacheLayout c;
    c.padded_head = round_up(m.head_size, 16);
    if (m.precision == F32) {
        c.key_scales = c.value_scales = 0;
        c.values = (int64_t)m.head_size * BLOCK_TOKENS * 4;
        c.head_bytes = c.values + (int64_t)c.padded_head * BLOCK_TOKENS * 4;
    } else {
        c.key_scales = (int64_t)round_up(m.head_size, 4) * BLOCK_TOKENS;
        c.values = c.key_scales + 2 * BLOCK_TOKENS * 2;
        c.value_scales = c.values + (int64_t)c.padded_head * BLOCK_TOKENS;
        c.head_bytes = c.value_scales + 2 * BLOCK_TOKENS * 2;
    }
    return c;
}
inline uint8_t *cache_head(const Model &m, const CacheLayout &c, int layer, int block, int head) {
    return m.cache + (((int64_t)block * m.num_layers + layer) * m.num_heads + head) * c.head_bytes;
}
constexpr int MOST_QUERIES = 8; // that share each reading of keys and values
// Tokens whose weighted values one int32 sum takes: 127 · 255 · 2048 is far below its end.
constexpr int SUM_TOKENS = 2048;
// Bytes between rows of weights: a cache line more, so that rows don't fall into the same sets.
constexpr int WEIGHTS_STRIDE = SUM_TOKENS + 64;
inline int attention_scratch_floats(int num_tokens) { // scores of the queries, and two bytes for each weight of a sum
    return MOST_QUERIES * (round_up(num_tokens, BLOCK_TOKENS) + WEIGHTS_STRIDE * 2 / 4);
}
