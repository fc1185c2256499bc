// Matrix products of int8 in tiles. Part of kernels.cpp.
#pragma once
#include "products.h"
#include "tiles.h"

#if defined(HAS_TILES)
namespace {

// The tiles: sums of the first and of the second part of the rows by each half of a panel; both parts' bytes, high and low
// bytes of a row one below the other; the halves' weights. The last depths of a matrix may be fewer.
enum { SUMS_00, SUMS_01, SUMS_10, SUMS_11, ROWS_0, ROWS_1, WEIGHTS_0, WEIGHTS_1 };
constexpr int NUM_SUMS = 4, PART_ROWS = TILE_ROWS / 2, TILE_DEPTHS = TILE_BYTES;

TileShapes product_shapes(int num_rows_0, int num_rows_1, int num_depths) {
    TileShapes shapes = {};
    for (int half = 0; half < 2; half++) {
        shapes.set(SUMS_00 + half, 2 * num_rows_0, TILE_BYTES);
        shapes.set(SUMS_10 + half, 2 * num_rows_1, TILE_BYTES);
        shapes.set(WEIGHTS_0 + half, num_depths / 4, TILE_BYTES);
    }
    shapes.set(ROWS_0, 2 * num_rows_0, num_depths);
    shapes.set(ROWS_1, 2 * num_rows_1, num_depths);
    return shapes;
}

// Products of up to TILE_DEPTHS depths, added to the sums of one or two parts. FETCH: the weights of the next ones come into
// the first cache, half by half, because a tile's lines arrive together; and every eighth line of `fetch`, if it is there,
// into the second one: the processor itself fetches the lines between, and has few buffers for those that it is told to.
template <int PARTS, bool FETCH>
INLINE void multiply_depths(const uint8_t *weights, const int8_t *rows_0, const int8_t *rows_1, int stride,
                            const uint8_t *fetch) {
    const auto fetch_half = [&](int half) __attribute__((always_inline)) {
        if (!FETCH) return;
        constexpr int BYTES = TILE_ROWS * TILE_BYTES;
#pragma GCC unroll 16
        for (int i = 0; i < BYTES; i += 64) __builtin_prefetch(weights + (2 + half) * BYTES + i, 0, 3);
        if (!fetch) return;
#pragma GCC unroll 2
        for (int i = 0; i < BYTES; i += 512) __builtin_prefetch(fetch + half * BYTES + i, 0, 2);
    };
    fetch_half(0);
    load_tile<WEIGHTS_0>(weights, PANEL * 4);
    load_tile<ROWS_0>(rows_0, stride);
    multiply_tiles<SUMS_00, ROWS_0, WEIGHTS_0>();
    fetch_half(1);
    load_tile<WEIGHTS_1>(weights + TILE_BYTES, PANEL * 4);
    multiply_tiles<SUMS_01, ROWS_0, WEIGHTS_1>();
    if (PARTS == 1) return;
    load_tile<ROWS_1>(rows_1, stride);
    multiply_tiles<SUMS_10, ROWS_1, WEIGHTS_0>();
    multiply_tiles<SUMS_11, ROWS_1, WEIGHTS_1>();
}

typedef int32_t TileSums[NUM_SUMS][TILE_ROWS][LANES];

template <int PARTS> INLINE void clear_sums() {
    clear_tile<SUMS_00>(), clear_tile<SUMS_01>();
    if (PARTS == 2) clear_tile<SUMS_10>(), clear_tile<SUMS_11>();
}
template <int PARTS> INLINE void store_sums(TileSums &sums) {
    store_tile<SUMS_00>(sums[SUMS_00], TILE_BYTES), store_tile<SUMS_01>(sums[SUMS_01], TILE_BYTES);
    if (PARTS == 1) return;
    store_tile<SUMS_10>(sums[SUMS_10], TILE_BYTES), store_tile<SUMS_11>(sums[SUMS_11], TILE_BYTES);
}

// One panel's columns of `num_0` + `num_1` rows, for which the tiles have their shapes.
template <int PARTS, bool FETCH>
INLINE void tile_product(const Model &model, const Matrix &matrix, const Activations &rows, int row, int num_0,
                         int num_1, int panel, const uint8_t *fetch, Epilogue epilogue, float *output, int stride) {
    static_assert(PANEL * 4 == 2 * TILE_BYTES && TILE_BYTES == LANES * 4,
                  "two tiles are a panel, a vector is a tile's row");
    const int depth = round_up(matrix.depth, 4), whole = depth / TILE_DEPTHS * TILE_DEPTHS;
    const int half = rows.stride_bytes / 2;
    const uint8_t *weights = (const uint8_t *)matrix.panels + (int64_t)panel * depth * PANEL;
    const int8_t *rows_0 = rows.bytes + (int64_t)row * rows.stride_bytes, *rows_1 = rows_0 + num_0 * rows.stride_bytes;
    alignas(64) TileSums sums;
    clear_sums<PARTS>();
    for (int k = 0; k < whole; k += TILE_DEPTHS)
        multiply_depths<PARTS, FETCH>(weights + (int64_t)k * PANEL, rows_0 + k, rows_1 + k, half,
                                      fetch ? fetch + (int64_t)k * PANEL : nullptr);
    store_sums<PARTS>(sums);
    if (whole < depth) { // the last depths, apart
        alignas(64) TileSums last;
        shape_tiles(product_shapes(num_0, num_1, depth - whole));
        multiply_depths<PARTS, false>(weights + (int64_t)whole * PANEL, rows_0 + whole, rows_1 + whole, half, nullptr);
        store_sums<PARTS>(last);
        shape_tiles(product_shapes(num_0, num_1, TILE_DEPTHS));
        for (int part = 0; part < PARTS; part++)
            for (int half = 0; half < 2; half++)
                for (int r = 0; r < 2 * (part ? num_1 : num_0); r++) {
                    int32_t *sum = sums[2 * part + half][r];
                    store((float *)sum, bits_to_floats(load_ints(sum) + load_ints(last[2 * part + half][r])));
                }
    }
    for (int r = 0; r < num_0 + num_1; r++) {
        const bool is_second = PARTS == 2 && r >= num_0;
        const int among = is_second ? r - num_0 : r;
        const int32_t *starts = rows.starts + 2 * (row + r);
        const Floats scale = splat(rows.scales[2 * (row + r)]);
        const auto join = [&](int half) __attribute__((always_inline)) {
            const auto &both = sums[2 * is_second + half];
            const Floats high = to_floats(load_ints(both[2 * among]) + splat_int(starts[0]));
            const Floats low = to_floats(load_ints(both[2 * among + 1]) + splat_int(starts[1]));
            return fma(high, splat(256), low) * scale;
        };
        const Floats total[1][2] = {{join(0), join(1)}};
        finish<1, 2>(model, matrix, epilogue, total, panel * PANEL, output + (int64_t)(row + r) * stride, stride);
    }
}

void multiply_in_tiles(const Model &model, const Matrix &matrix, const Activations &rows, int first, int end,
                       Epilogue epilogue, float *output, int stride, const uint8_t *fetch) {
    const int64_t panel_bytes = (int64_t)round_up(matrix.depth, 4) * PANEL;
    const int num_tiles = (rows.num_rows + 2 * PART_ROWS - 1) / (2 * PART_ROWS);
    int shaped = 0;
    for (int i = 0, row = 0; i < num_tiles; i++) { // rows split evenly: 33 = 11 + 11 + 11, and 11 = 6 + 5
        const int left = num_tiles - i, num = (rows.num_rows - row + left - 1) / left;
        const int num_1 = rows.num_rows > PART_ROWS ? num / 2 : 0, num_0 = num - num_1;
        if (num != shaped) shape_tiles(product_shapes(num_0, num_1, TILE_DEPTHS));
        shaped = num;
        for (int panel = first; panel < end; panel++) {
            const uint8_t *next = panel + 1 < end ? (const uint8_t *)matrix.panels + (panel + 1) * panel_bytes : fetch;
            if (i)
                tile_product<2, false>(model, matrix, rows, row, num_0, num_1, panel, nullptr, epilogue, output,
                                       stride);
            else if (num_1)
                tile_product<2, true>(model, matrix, rows, row, num_0, num_1, panel, next, epilogue, output, stride);
            else tile_product<1, true>(model, matrix, rows, row, num_0, num_1, panel, next, epilogue, output, stride);
        }
        row += num;
    }
    release_tiles();
}

} // namespace
#endif
