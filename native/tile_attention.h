// Attention of several queries of a prompt on the bytes of the KV cache, in tiles. Part of kernels.cpp.
#pragma once
#include "attention_products.h"
#include "tiles.h"

#if defined(HAS_TILES)
namespace {

// Tiles of attention: sums of one or several products, then bytes of rows (high and low ones of a query, one below the
// other) and of the cache, then the same for the last elements of a head.
enum { FIRST_SUMS, QUERY_ROWS = 4, CACHE_ROWS, LAST_QUERY_ROWS, LAST_CACHE_ROWS };
constexpr int QUERIES = TILE_ROWS / 2;

TileShapes attention_shapes(int row_bytes, int last_bytes) {
    TileShapes shapes = {};
    for (int sum = FIRST_SUMS; sum < QUERY_ROWS; sum++) shapes.set(sum, TILE_ROWS, TILE_BYTES);
    shapes.set(QUERY_ROWS, TILE_ROWS, row_bytes);
    shapes.set(CACHE_ROWS, row_bytes / 4, TILE_BYTES);
    shapes.set(LAST_QUERY_ROWS, last_bytes ? TILE_ROWS : 0, last_bytes);
    shapes.set(LAST_CACHE_ROWS, last_bytes / 4, TILE_BYTES);
    return shapes;
}

// The sums of a vector of columns, with what each query's start from.
template <class Store>
INLINE void each_query(const Query (&queries)[QUERIES], const int32_t (&sums)[TILE_ROWS][LANES],
                       const Store &store_sums) {
#pragma GCC unroll 8
    for (int q = 0; q < QUERIES; q++)
        store_sums(queries[q], load_ints(sums[2 * q]) + splat_int(-WEIGHT_OFFSET * queries[q].sums[0]),
                   load_ints(sums[2 * q + 1]) + splat_int(-WEIGHT_OFFSET * queries[q].sums[1]));
}

template <>
INLINE void score_bytes<QUERIES>(const Model &model, const CacheLayout &c, int layer, int head, const int32_t *blocks,
                                 int num_tokens, const Query (&queries)[QUERIES]) {
    const int size = round_up(model.head_size, 4), whole = size / TILE_BYTES * TILE_BYTES;
    const int64_t stride = queries[0].low - queries[0].high;
    shape_tiles(attention_shapes(TILE_BYTES, size - whole));
    for (int begin = 0; begin < num_tokens; begin += BLOCK_TOKENS) {
        const uint8_t *memory = cache_head(model, c, layer, blocks[begin / BLOCK_TOKENS], head);
        const uint16_t *scales = (const uint16_t *)(memory + c.key_scales);
        alignas(64) int32_t sums[2][TILE_ROWS][LANES];
        clear_tile<FIRST_SUMS>(), clear_tile<FIRST_SUMS + 1>();
        for (int d = 0; d < whole; d += TILE_BYTES) {
            load_tile<QUERY_ROWS>(queries[0].high + d, stride);
            load_tile<CACHE_ROWS>(memory + d * BLOCK_TOKENS, BLOCK_TOKENS * 4);
            multiply_tiles<FIRST_SUMS, QUERY_ROWS, CACHE_ROWS>();
            load_tile<CACHE_ROWS>(memory + d * BLOCK_TOKENS + TILE_BYTES, BLOCK_TOKENS * 4);
            multiply_tiles<FIRST_SUMS + 1, QUERY_ROWS, CACHE_ROWS>();
        }
        if (whole < size) {
            load_tile<LAST_QUERY_ROWS>(queries[0].high + whole, stride);
            load_tile<LAST_CACHE_ROWS>(memory + whole * BLOCK_TOKENS, BLOCK_TOKENS * 4);
            multiply_tiles<FIRST_SUMS, LAST_QUERY_ROWS, LAST_CACHE_ROWS>();
            load_tile<LAST_CACHE_ROWS>(memory + whole * BLOCK_TOKENS + TILE_BYTES, BLOCK_TOKENS * 4);
            multiply_tiles<FIRST_SUMS + 1, LAST_QUERY_ROWS, LAST_CACHE_ROWS>();
        }
        store_tile<FIRST_SUMS>(sums[0], TILE_BYTES), store_tile<FIRST_SUMS + 1>(sums[1], TILE_BYTES);
        for (int half = 0; half < 2; half++) {
            const Floats scale = load_bf16(scales + half * LANES);
            const Floats offset = load_bf16(scales + BLOCK_TOKENS + half * LANES);
            each_query(queries, sums[half],
                       [&](const Query &query, Ints high, Ints low) __attribute__((always_inline)) {
                           store_scores(query, scale, offset, begin + half * LANES, high, low);
                       });
        }
    }
}

template <>
INLINE void weigh_bytes<QUERIES>(const Model &model, const CacheLayout &c, int layer, int head, const int32_t *blocks,
                                 int num_tokens, const Query (&queries)[QUERIES], bool is_first) {
    const int64_t stride = queries[0].low - queries[0].high;
    shape_tiles(attention_shapes(BLOCK_TOKENS, 0));
    for (int d = 0; d < model.head_size; d += 4 * LANES) {
        const int num_sums = model.head_size - d < 4 * LANES ? (model.head_size - d + LANES - 1) / LANES : 4;
        clear_tile<FIRST_SUMS>(), clear_tile<FIRST_SUMS + 1>(), clear_tile<FIRST_SUMS + 2>(),
            clear_tile<FIRST_SUMS + 3>();
        for (int begin = 0; begin < num_tokens; begin += BLOCK_TOKENS) {
            const uint8_t *values = cache_head(model, c, layer, blocks[begin / BLOCK_TOKENS], head) + c.values + d * 4;
            const int64_t value_stride = c.padded_head * 4;
            load_tile<QUERY_ROWS>(queries[0].high + begin, stride);
            load_tile<CACHE_ROWS>(values, value_stride);
            multiply_tiles<FIRST_SUMS, QUERY_ROWS, CACHE_ROWS>();
            if (num_sums < 2) continue;
            load_tile<CACHE_ROWS>(values + TILE_BYTES, value_stride);
            multiply_tiles<FIRST_SUMS + 1, QUERY_ROWS, CACHE_ROWS>();
            if (num_sums < 3) continue;
            load_tile<CACHE_ROWS>(values + 2 * TILE_BYTES, value_stride);
            multiply_tiles<FIRST_SUMS + 2, QUERY_ROWS, CACHE_ROWS>();
            if (num_sums < 4) continue;
            load_tile<CACHE_ROWS>(values + 3 * TILE_BYTES, value_stride);
            multiply_tiles<FIRST_SUMS + 3, QUERY_ROWS, CACHE_ROWS>();
        }
        alignas(64) int32_t sums[4][TILE_ROWS][LANES];
        store_tile<FIRST_SUMS>(sums[0], TILE_BYTES), store_tile<FIRST_SUMS + 1>(sums[1], TILE_BYTES);
        store_tile<FIRST_SUMS + 2>(sums[2], TILE_BYTES), store_tile<FIRST_SUMS + 3>(sums[3], TILE_BYTES);
        for (int i = 0; i < num_sums; i++)
            each_query(queries, sums[i], [&](const Query &query, Ints high, Ints low) __attribute__((always_inline)) {
                store_weighed(query, d + i * LANES, model.head_size - d - i * LANES, high, low, is_first);
            });
    }
    release_tiles();
}

} // namespace
#endif
