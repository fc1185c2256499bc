// The KV cache, and products of queries and weights with its bytes, in vectors. Part of kernels.cpp.
#pragma once
#include "rows.h"

namespace {

// The nearest bfloat16, and the least one that is not below a positive number.
INLINE uint16_t nearest_bf16(float x) { return (uint16_t)((bits_of(x) + 0x8000) >> 16); }
INLINE uint16_t bf16_above(float x) { return (uint16_t)((bits_of(x) + 0xffff) >> 16); }

// Floats as bytes -127 … 127: input ≈ scale · byte + offset. The offset is about in their middle, the scale is what the one
// farthest from it needs, and the bytes are those of the rounded two. Behind `count` up to a multiple of LANES the bytes are
// of no meaning.
INLINE void spread_bytes(const float *input, int count, int8_t *bytes, uint16_t *scale, uint16_t *offset) {
    Floats least = splat(input[0]), most = splat(input[0]);
    const int whole = count / LANES * LANES;
    for (int i = 0; i < whole; i += LANES) {
        least = min(least, load(input + i));
        most = max(most, load(input + i));
    }
    for (int i = whole; i < count; i++) {
        least = min(least, splat(input[i]));
        most = max(most, splat(input[i]));
    }
    const float smallest = -max_lanes(-least), largest = max_lanes(most);
    *offset = nearest_bf16(smallest + (largest - smallest) / 2);
    const float middle = bf16_to_float(*offset), below = middle - smallest, above = largest - middle;
    *scale = bf16_above((above > below ? above : below) / 127);
    const float step = bf16_to_float(*scale), factor = step > 1e-30f ? 1 / step : 0;
    typedef int8_t Bytes __attribute__((vector_size(LANES)));
    for (int i = 0; i < count; i += LANES) {
        const Bytes b =
            __builtin_convertvector(round_to_ints((load_some(input + i, count - i) - middle) * factor), Bytes);
        memcpy(bytes + i, &b, LANES);
    }
}

// A head's part of a row comes into the cache: the rows of a prompt are too far apart for the processor to do so itself.
INLINE void fetch_row(const float *from, int count) {
    for (int i = 0; i < count; i += 16) __builtin_prefetch(from + i);
}

void write_floats(const Model &model, const CacheLayout &c, uint8_t *memory, int offset, const float *key,
                  const float *value) {
    float *keys = (float *)memory, *values = (float *)(memory + c.values);
    for (int d = 0; d < model.head_size; d++) {
        keys[d * BLOCK_TOKENS + offset] = key[d];
        values[offset * c.padded_head + d] = value[d];
    }
    for (int d = model.head_size; d < c.padded_head; d++) values[offset * c.padded_head + d] = 0;
}

// A token's values among those of four, which lie together: one byte of each number. The three others stay.
INLINE void write_among_four(const int8_t *bytes, int size, int token, uint8_t *fours) {
    typedef uint8_t Bytes __attribute__((vector_size(LANES)));
    const int shift = token % 4 * 8;
    for (int d = 0; d < size; d += LANES) {
        Bytes part;
        memcpy(&part, bytes + d, LANES);
        const Ints one = __builtin_convertvector(part ^ (uint8_t)0x80, Ints) << shift;
        const Ints four = (load_ints(fours + d * 4) & ~(0xff << shift)) | one;
        memcpy(fours + d * 4, &four, sizeof four);
    }
}

void write_cache(const Model &model, int layer, int head, const int32_t *blocks, int position, int num_tokens,
                 const float *key, const float *value, int stride) {
    const CacheLayout c = cache_layout(model);
    const int size = model.head_size;
    if (num_tokens == 1) { // the next head needs its own soon
        fetch_row(key + size, size);
        fetch_row(value + size, size);
    }
    for (int token = 0; token < num_tokens;) {
        const int offset = (position + token) % BLOCK_TOKENS;
        uint8_t *memory = cache_head(model, c, layer, blocks[(position + token) / BLOCK_TOKENS], head);
        if (model.precision == F32) {
            write_floats(model, c, memory, offset, key, value);
            token++, key += stride, value += stride;
            continue;
        }
        // Values lie in fours of tokens, which are written as one number where all four are here.
        const int num = offset % 4 == 0 && num_tokens - token >= 4 ? 4 : 1;
        alignas(64) int8_t bytes[4][MAX_HEAD_SIZE];
        for (int i = 8; i < 8 + num && token + i < num_tokens; i++) {
            fetch_row(key + (int64_t)i * stride, size);
            fetch_row(value + (int64_t)i * stride, size);
        }
        for (int i = 0; i < num; i++, key += stride) {
            uint16_t *scales = (uint16_t *)(memory + c.key_scales) + offset + i;
            spread_bytes(key, size, bytes[0], scales, scales + BLOCK_TOKENS);
            for (int d = 0; d < size; d += 4) {
                uint32_t quad;
                memcpy(&quad, bytes[0] + d, 4);
                quad ^= 0x80808080u;
                memcpy(memory + d * BLOCK_TOKENS + (offset + i) * 4, &quad, 4);
            }
        }
        for (int i = 0; i < num; i++, value += stride) {
            uint16_t *scales = (uint16_t *)(memory + c.value_scales) + offset + i;
            spread_bytes(value, size, bytes[i], scales, scales + BLOCK_TOKENS);
        }
        uint8_t *values = memory + c.values + (int64_t)(offset / 4) * c.padded_head * 4;
        if (num == 1) write_among_four(bytes[0], size, offset, values);
        else
            for (int d = 0; d < size; d++) {
                const uint32_t quad = (uint32_t)(uint8_t)bytes[0][d] | (uint32_t)(uint8_t)bytes[1][d] << 8 |
                                      (uint32_t)(uint8_t)bytes[2][d] << 16 | (uint32_t)(uint8_t)bytes[3][d] << 24;
                const uint32_t offset_quad = quad ^ 0x80808080u;
                memcpy(values + d * 4, &offset_quad, 4);
            }
        token += num;
    }
}

// Softmax of scores[0 … num_tokens), in place and not yet divided; behind them zeros. Returns the sum.
INLINE float softmax(float *scores, int num_tokens, int padded) {
    for (int i = num_tokens; i < padded; i++) scores[i] = -__builtin_inff();
    Floats largest = splat(-__builtin_inff());
    for (int i = 0; i < padded; i += LANES) largest = max(largest, load(scores + i));
    const Floats most = splat(max_lanes(largest));
    Floats sum = splat(0);
    for (int i = 0; i < padded; i += LANES) {
        const Floats e = exponential(load(scores + i) - most);
        store(scores + i, e);
        sum = sum + e;
    }
    return sum_lanes(sum);
}

// One or several queries of a sequence that follow each other, against the same keys: what each of them needs. Behind a
// query's own last token its weights are zero, so that the tokens of the others don't count.
struct Query {
    const float *vector; // (D)
    float *output;       // (D)
    int num_tokens;      // it sees these many
    float *scores;       // (padded tokens)
    int8_t *high, *low;  // first the query's, then the weights', 16 bits as two bytes
    int32_t sums[2];
    float scale, shift; // of the products
};

// Scores of a vector of tokens, from `token` on, by sums of products with both bytes, and their keys' scales and offsets.
INLINE void store_scores(const Query &query, Floats scale, Floats offset, int token, Ints high, Ints low) {
    const Floats product = join_bytes(high, low);
    store(query.scores + token, fma(product, scale * query.scale, offset * query.shift));
}

// Scores of NUM queries, each of which has its bytes in `high` and `low`.
template <int NUM>
INLINE void score_bytes(const Model &model, const CacheLayout &c, int layer, int head, const int32_t *blocks,
                        int num_tokens, const Query (&queries)[NUM]) {
    const int num_quads = (model.head_size + 3) / 4;
    for (int begin = 0; begin < num_tokens; begin += BLOCK_TOKENS) {
        const uint8_t *memory = cache_head(model, c, layer, blocks[begin / BLOCK_TOKENS], head);
        const uint16_t *scales = (const uint16_t *)(memory + c.key_scales);
        constexpr int VECTORS = BLOCK_TOKENS / LANES, TOGETHER = NUM > 1 && VECTORS > 2 ? 2 : VECTORS;
        for (int first = 0; first < VECTORS; first += TOGETHER) {
            Ints high[NUM][TOGETHER], low[NUM][TOGETHER];
            for (int q = 0; q < NUM; q++)
                for (int v = 0; v < TOGETHER; v++) {
                    high[q][v] = splat_int(-WEIGHT_OFFSET * queries[q].sums[0]);
                    low[q][v] = splat_int(-WEIGHT_OFFSET * queries[q].sums[1]);
                }
            for (int quad = 0; quad < num_quads; quad++) {
                if (NUM == 1) { // the values lie behind the keys, two cache lines for each quad: they arrive meanwhile
                    const uint8_t *values = memory + c.values + (int64_t)quad * BLOCK_TOKENS * 4;
                    __builtin_prefetch(values, 0, 2);
                    __builtin_prefetch(values + 64, 0, 2);
                }
                Ints keys[TOGETHER];
                for (int v = 0; v < TOGETHER; v++)
                    keys[v] = load_ints(memory + (int64_t)quad * BLOCK_TOKENS * 4 + (first + v) * LANES * 4);
#pragma GCC unroll 16
                for (int q = 0; q < NUM; q++) {
                    const int32_t h = load_int(queries[q].high + quad * 4), l = load_int(queries[q].low + quad * 4);
                    for (int v = 0; v < TOGETHER; v++) {
                        high[q][v] = dot(high[q][v], keys[v], h);
                        low[q][v] = dot(low[q][v], keys[v], l);
                    }
                }
            }
            for (int v = 0; v < TOGETHER; v++) {
                const int token = (first + v) * LANES;
                const Floats scale = load_bf16(scales + token), offset = load_bf16(scales + BLOCK_TOKENS + token);
                for (int q = 0; q < NUM; q++)
                    store_scores(queries[q], scale, offset, begin + token, high[q][v], low[q][v]);
            }
        }
    }
}

// A vector of a head's elements, from `first` on, of which there are `count`, by sums of products with both bytes.
INLINE void store_weighed(const Query &query, int first, int count, Ints high, Ints low, bool is_first) {
    const Floats whole = join_bytes(high, low);
    const Floats before = is_first ? splat(query.shift) : load_some(query.output + first, count);
    store_some(query.output + first, fma(whole, splat(query.scale), before), count);
}

// The sum of values by the weights of NUM queries, of up to 64 elements of a head at a time.
template <int NUM> struct WeighBytes {
    const Model &model;
    const CacheLayout &c;
    int layer, head;
    const int32_t *blocks;
    int num_tokens;
    const Query (&queries)[NUM];
    bool is_first; // otherwise the result is added to what earlier tokens gave

    template <int VECTORS> INLINE void run(int first, int count) const {
        Ints high[NUM][VECTORS], low[NUM][VECTORS];
        for (int q = 0; q < NUM; q++)
            for (int v = 0; v < VECTORS; v++) {
                high[q][v] = splat_int(-WEIGHT_OFFSET * queries[q].sums[0]);
                low[q][v] = splat_int(-WEIGHT_OFFSET * queries[q].sums[1]);
            }
        for (int begin = 0; begin < num_tokens; begin += BLOCK_TOKENS) {
            const uint8_t *values =
                cache_head(model, c, layer, blocks[begin / BLOCK_TOKENS], head) + c.values + first * 4;
            for (int i = 0; i < BLOCK_TOKENS; i += 4) {
                if (NUM == 1) { // the next head's keys, which lie behind this one's values
                    const uint8_t *next = values + c.head_bytes - c.values + (int64_t)i * c.padded_head;
                    for (int line = 0; line < VECTORS * LANES / 16; line++) __builtin_prefetch(next + line * 64, 0, 2);
                }
                Ints value[VECTORS];
#pragma GCC unroll 16
                for (int v = 0; v < VECTORS; v++)
                    value[v] = load_ints(values + (int64_t)i * c.padded_head + v * LANES * 4);
#pragma GCC unroll 16
                for (int q = 0; q < NUM; q++) {
                    const int32_t h = load_int(queries[q].high + begin + i), l = load_int(queries[q].low + begin + i);
#pragma GCC unroll 16
                    for (int v = 0; v < VECTORS; v++) {
                        high[q][v] = dot(high[q][v], value[v], h);
                        low[q][v] = dot(low[q][v], value[v], l);
                    }
                }
            }
        }
        for (int q = 0; q < NUM; q++)
            for (int v = 0; v < VECTORS; v++)
                if (v * LANES < count)
                    store_weighed(queries[q], first + v * LANES, count - v * LANES, high[q][v], low[q][v], is_first);
    }
};

// Values by weights in tiles of as many queries and vectors as the registers hold.
template <int NUM>
INLINE void weigh_bytes(const Model &model, const CacheLayout &c, int layer, int head, const int32_t *blocks,
                        int num_tokens, const Query (&queries)[NUM], bool is_first) {
    const WeighBytes<NUM> weigh = {model, c, layer, head, blocks, num_tokens, queries, is_first};
    constexpr int WIDTH = NUM == 1 ? 64 : 32; // one query: several chains of additions, each of which has to wait
    for (int d = 0; d < model.head_size; d += WIDTH) {
        const int count = model.head_size - d < WIDTH ? model.head_size - d : WIDTH;
        if (WIDTH > 32 && count > 48) weigh.template run<(WIDTH > 32 ? 64 : 16) / LANES>(d, count);
        else if (WIDTH > 32 && count > 32) weigh.template run<(WIDTH > 32 ? 48 : 16) / LANES>(d, count);
        else if (count > 16) weigh.template run<32 / LANES>(d, count);
        else weigh.template run<16 / LANES>(d, count);
    }
}

} // namespace
