// The table of one target's samplers: from a row of logits to a token, and to log-probabilities.
#pragma once
#include "model.h"

constexpr int SPAN = 256;       // columns of a row of logits that are read together, or not at all
constexpr int SPAN_MAXIMA = 16; // largest logits of a span: of columns 0, 16, 32 … of it, of 1, 17, 33 …, and so on

inline int num_spans(int num_columns) { return (num_columns + SPAN - 1) / SPAN; }
inline int num_maxima(int num_columns) { return num_spans(num_columns) * SPAN_MAXIMA; }

// Memory of one thread that samples, for rows of `num_columns`; nothing in it outlives a call. Most pages of it are only
// touched by parameters that keep thousands of tokens.
struct SamplingScratch {
    uint64_t *keys, *sorted; // (V) each
    double *masses;          // (V)
    float *values;           // (V): a row with fewer tokens,
    int32_t *token_ids;      // (V): which these are,
    float *maxima;           // (num_maxima(V)): and its maxima
    double *cumulated;       // (num_spans(V))
    float *row_maxima;       // (num_maxima(V)): of an edited row,
    float *raw_maxima;       // (num_maxima(V)): and of that row before
};

struct Sampling {
    // The maxima of one span, (SPAN_MAXIMA), of which the row has `num_columns`; NaN if any column is, -inf for no column.
    void (*write_maxima)(const float *columns, int num_columns, float *maxima);
    // The token that is drawn from a row (V) with all maxima; -1 if the largest logit is not finite. `surprisal`: as in
    // Draws.
    int (*draw)(const Draw &, int position, const float *logits, const float *maxima, int num_columns,
                const SamplingScratch &, float *largest, double *surprisal);
    // Log-probability of a token, and the likeliest tokens with theirs, from the model's own logits.
    double (*score)(const Draw &, int token_id, const float *logits, const float *maxima, int num_columns,
                    const SamplingScratch &, int32_t *top_ids, double *top_logprobs);
};
