// The table of one target's samplers: from a row of logits to a token, and to log-probabilities.
#pragma once
#include "model.h"

constexpr float INFINITE = __builtin_inff(), LOWEST = -3.40282347e38f;
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

// Tokens of a row that may be among the likeliest: those of some spans, in the order of their ids. Mutable.
constexpr int MOST_DECIDING = 128; // more tokens take whole rows
struct alignas(128) Shortlist {
    float largest; // of all columns so far; NaN if any was
    float least;   // tokens below it are not among the likeliest
    int32_t count; // below 2 · MOST_DECIDING between two spans
    float values[2 * MOST_DECIDING + SPAN];
    int32_t token_ids[2 * MOST_DECIDING + SPAN];
};

inline void clear(Shortlist &list) {
    list.largest = -INFINITE;
    list.least = LOWEST;
    list.count = 0;
}

// How many of a row's likeliest tokens decide a draw, at most MOST_DECIDING; 0 if the whole row does.
inline int num_deciding(const Draw &draw) {
    if (draw.given >= 0 || draw.num_top >= 0) return 0;
    if (draw.temperature <= 0) return 1;
    if (draw.top_n_sigma > 0 || draw.dynatemp_range > 0 || draw.typical_p < 1) return 0;
    // One more: a row that has no more tokens than top-k isn't truncated.
    return draw.top_k > 0 && draw.top_k < MOST_DECIDING ? draw.top_k + 1 : 0;
}

struct Sampling {
    // The maxima of one span, (SPAN_MAXIMA), of which the row has `num_columns`; NaN if any column is, -inf for no column.
    void (*write_maxima)(const float *columns, int num_columns, float *maxima);
    // The token that is drawn from a row (V) with all maxima; -1 if the largest logit is not finite. `surprisal`: as in
    // Draws.
    int (*draw)(const Draw &, int position, const float *logits, const float *maxima, int num_columns,
                const SamplingScratch &, float *largest, double *surprisal);
    // Adds the columns of a span, of which the first is `token_id`, with the draw's num_deciding(). Spans come in order.
    void (*add_span)(Shortlist &, int num_deciding, const float *columns, int num_columns, int token_id);
    // The token that draw() gives for the row (V) of which each span is in one of the lists.
    int (*draw_from)(const Draw &, int position, const Shortlist *, int num_lists, int num_columns,
                     const SamplingScratch &, float *largest, double *surprisal);
    // Log-probability of a token, and the likeliest tokens with theirs, from the model's own logits.
    double (*score)(const Draw &, int token_id, const float *logits, const float *maxima, int num_columns,
                    const SamplingScratch &, int32_t *top_ids, double *top_logprobs);
};
