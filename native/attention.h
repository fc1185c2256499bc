// Attention of the queries of one head. Part of kernels.cpp.
#pragma once
#include "attention_products.h"
#include "tile_attention.h"

namespace {

#if !defined(HAS_TILES)
constexpr int QUERIES = 4; // that share each reading of keys and values
#endif

// The query's 16 bits, in bytes; scale and shift of its scores.
INLINE void split_query(const Model &model, int layer, Query &query) {
    const int size = model.head_size;
    alignas(64) float padded[MAX_HEAD_SIZE];
    Floats largest = splat(0);
    for (int d = 0; d < size; d += LANES) {
        const Floats part = load_some(query.vector + d, size - d);
        store(padded + d, part);
        largest = max(largest, abs(part));
    }
    const float most = max_lanes(largest);
    split_bytes(padded, round_up(size, LANES), most > 1e-30f ? LARGEST_16_BITS / most : 0, query.high, query.low,
                query.sums);
    query.scale = most / LARGEST_16_BITS * model.layers[layer].attention_scale;
    query.shift = (256.0f * query.sums[0] + query.sums[1]) * query.scale;
}

// Weights from scores: softmax, each times the scale of its token's values. Returns the largest and the sum of weights;
// `shift` takes what the offsets of all values add up to. Behind the last token the scales are numbers of any kind, which
// must not count.
INLINE float weigh_scores(const Model &model, const CacheLayout &c, int layer, int head, const int32_t *blocks,
                          int num_tokens, int padded, Query &query) {
    const float sum = softmax(query.scores, query.num_tokens, padded);
    Floats largest = splat(0), shifts = splat(0);
    for (int begin = 0; begin < query.num_tokens; begin += BLOCK_TOKENS) {
        const uint8_t *memory = cache_head(model, c, layer, blocks[begin / BLOCK_TOKENS], head);
        const uint16_t *scales = (const uint16_t *)(memory + c.value_scales);
        uint16_t last[2 * BLOCK_TOKENS] = {};
        if (num_tokens - begin < BLOCK_TOKENS) {
            for (int i = 0; i < num_tokens - begin; i++) {
                last[i] = scales[i];
                last[BLOCK_TOKENS + i] = scales[BLOCK_TOKENS + i];
            }
            scales = last;
        }
        for (int i = 0; i < BLOCK_TOKENS; i += LANES) {
            const Floats weight = load(query.scores + begin + i), scaled = weight * load_bf16(scales + i);
            shifts = fma(weight, load_bf16(scales + BLOCK_TOKENS + i), shifts);
            store(query.scores + begin + i, scaled);
            largest = max(largest, scaled);
        }
    }
    const float most = max_lanes(largest);
    query.scale = most / LARGEST_16_BITS / sum;
    query.shift = sum_lanes(shifts) / sum;
    return most;
}

template <int NUM>
INLINE void attend_bytes(const Model &model, int layer, int head, const int32_t *blocks, Query (&queries)[NUM],
                         float *scratch) {
    const CacheLayout c = cache_layout(model);
    const int num_tokens = queries[NUM - 1].num_tokens, padded = round_up(num_tokens, BLOCK_TOKENS);
    alignas(64) int8_t bytes[NUM][2][MAX_HEAD_SIZE];
    for (int q = 0; q < NUM; q++) {
        queries[q].scores = scratch + (int64_t)q * padded;
        queries[q].high = bytes[q][0];
        queries[q].low = bytes[q][1];
        split_query(model, layer, queries[q]);
    }
    score_bytes<NUM>(model, c, layer, head, blocks, num_tokens, queries);
    float most[NUM];
    for (int q = 0; q < NUM; q++) {
        most[q] = weigh_scores(model, c, layer, head, blocks, num_tokens, padded, queries[q]);
        queries[q].high = (int8_t *)(scratch + (int64_t)NUM * padded) + (int64_t)q * 2 * WEIGHTS_STRIDE;
        queries[q].low = queries[q].high + WEIGHTS_STRIDE;
    }
    for (int begin = 0; begin < num_tokens; begin += SUM_TOKENS) {
        const int left = num_tokens - begin, num = left < SUM_TOKENS ? left : SUM_TOKENS;
        for (int q = 0; q < NUM; q++)
            split_bytes(queries[q].scores + begin, round_up(num, BLOCK_TOKENS),
                        most[q] > 1e-30f ? LARGEST_16_BITS / most[q] : 0, queries[q].high, queries[q].low,
                        queries[q].sums);
        weigh_bytes<NUM>(model, c, layer, head, blocks + begin / BLOCK_TOKENS, num, queries, begin == 0);
    }
}

struct WeighFloats {
    const Model &model;
    const CacheLayout &c;
    int layer, head;
    const int32_t *blocks;
    int num_tokens;
    const float *weights;
    float scale;

    template <int VECTORS> INLINE void run(int first, int count, float *output) const {
        Floats sum[VECTORS];
        for (int v = 0; v < VECTORS; v++) sum[v] = splat(0);
        for (int begin = 0; begin < num_tokens; begin += BLOCK_TOKENS) {
            const float *values =
                (const float *)(cache_head(model, c, layer, blocks[begin / BLOCK_TOKENS], head) + c.values) + first;
            const int end = num_tokens - begin < BLOCK_TOKENS ? num_tokens - begin : BLOCK_TOKENS;
            for (int i = 0; i < end; i++)
#pragma GCC unroll 16
                for (int v = 0; v < VECTORS; v++)
                    sum[v] =
                        fma(splat(weights[begin + i]), load(values + (int64_t)i * c.padded_head + v * LANES), sum[v]);
        }
        for (int v = 0; v < VECTORS; v++)
            if (v * LANES < count) store_some(output + first + v * LANES, sum[v] * scale, count - v * LANES);
    }
};

void attend_floats(const Model &model, int layer, int head, const int32_t *blocks, const Query &query, float *scratch) {
    const CacheLayout c = cache_layout(model);
    const int size = model.head_size, num_tokens = query.num_tokens, padded = round_up(num_tokens, BLOCK_TOKENS);
    const float scale = model.layers[layer].attention_scale;
    float *scores = scratch;
    for (int begin = 0; begin < num_tokens; begin += BLOCK_TOKENS) {
        const float *keys = (const float *)cache_head(model, c, layer, blocks[begin / BLOCK_TOKENS], head);
        constexpr int VECTORS = BLOCK_TOKENS / LANES;
        Floats sum[VECTORS];
        for (int v = 0; v < VECTORS; v++) sum[v] = splat(0);
        for (int d = 0; d < size; d++)
            for (int v = 0; v < VECTORS; v++)
                sum[v] = fma(splat(query.vector[d]), load(keys + d * BLOCK_TOKENS + v * LANES), sum[v]);
        for (int v = 0; v < VECTORS; v++) store(scores + begin + v * LANES, sum[v] * scale);
    }
    const float inverse = 1.0f / softmax(scores, num_tokens, padded);
    for (int d = 0; d < size; d += 64) {
        const int count = size - d < 64 ? size - d : 64;
        const WeighFloats weigh = {model, c, layer, head, blocks, num_tokens, scores, inverse};
        if (count > 48) weigh.run<64 / LANES>(d, count, query.output);
        else if (count > 32) weigh.run<48 / LANES>(d, count, query.output);
        else if (count > 16) weigh.run<32 / LANES>(d, count, query.output);
        else weigh.run<16 / LANES>(d, count, query.output);
    }
}

void attend(const Model &model, int layer, int head, const int32_t *blocks, int num_tokens, int num_queries,
            const float *query, int query_stride, float *output, int output_stride, float *scratch) {
    const int most = model.precision == F32 ? 1 : QUERIES;
    if (num_queries == 1) fetch_row(query + model.head_size, model.head_size); // the next head needs it soon
    for (int i = 0; i < num_queries;) {
        // The last queries, if more than half as many as share a reading, are computed with some before them, once more.
        if (num_queries > most && num_queries - i < most && num_queries - i > most / 2) i = num_queries - most;
        const int num = num_queries - i >= most ? most : 1;
        Query queries[QUERIES] = {};
        for (int q = num; q < 2 * num && i + q < num_queries; q++)
            fetch_row(query + (int64_t)(i + q) * query_stride, model.head_size);
        for (int q = 0; q < num; q++) {
            queries[q].vector = query + (int64_t)(i + q) * query_stride;
            queries[q].output = output + (int64_t)(i + q) * output_stride;
            queries[q].num_tokens = num_tokens + i + q;
        }
        Query one[1] = {queries[0]};
        if (model.precision == F32) attend_floats(model, layer, head, blocks, queries[0], scratch);
        else if (num == 1) attend_bytes<1>(model, layer, head, blocks, one, scratch);
        else attend_bytes<QUERIES>(model, layer, head, blocks, queries, scratch);
        i += num;
    }
}

} // namespace
