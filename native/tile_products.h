// Matrix products of int8 in tiles. Part of kernels.cpp.
#pragma once
#include "rows.h"
#include "tiles.h"

#if defined(HAS_TILES)
namespace {

// The tiles: sums of the first and of the second part of a block's rows by each half of a panel; both parts' bytes, high and
// low bytes of a row one below the other; the halves' weights. The last depths of a matrix may be fewer.
enum { SUMS_00, SUMS_01, SUMS_10, SUMS_11, ROWS_0, ROWS_1, WEIGHTS_0, WEIGHTS_1 };
constexpr int PART_ROWS = TILE_ROWS / 2, BLOCK_ROWS = 2 * PART_ROWS, TILE_DEPTHS = TILE_BYTES;

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

// Products of up to TILE_DEPTHS depths, added to the sums of one or two parts. Weights are not kept in the first cache, so that
// rows stay there.
template <int PARTS>
INLINE void multiply_depths(const uint8_t *weights, const int8_t *rows_0, const int8_t *rows_1, int stride) {
    load_tile_once<WEIGHTS_0>(weights, PANEL * 4);
    load_tile<ROWS_0>(rows_0, stride);
    multiply_tiles<SUMS_00, ROWS_0, WEIGHTS_0>();
    load_tile_once<WEIGHTS_1>(weights + TILE_BYTES, PANEL * 4);
    multiply_tiles<SUMS_01, ROWS_0, WEIGHTS_1>();
    if (PARTS == 1) return;
    load_tile<ROWS_1>(rows_1, stride);
    multiply_tiles<SUMS_10, ROWS_1, WEIGHTS_0>();
    multiply_tiles<SUMS_11, ROWS_1, WEIGHTS_1>();
}

typedef int32_t TileSums[2 * BLOCK_ROWS][PANEL]; // of the high bytes of a row, of the low ones, of the next row

template <int PARTS> INLINE void clear_sums() {
    clear_tile<SUMS_00>(), clear_tile<SUMS_01>();
    if (PARTS == 2) clear_tile<SUMS_10>(), clear_tile<SUMS_11>();
}
template <int PARTS> INLINE void store_sums(TileSums &sums, int num_0) {
    constexpr int STRIDE = PANEL * 4;
    store_tile<SUMS_00>(sums[0], STRIDE), store_tile<SUMS_01>(sums[0] + LANES, STRIDE);
    if (PARTS == 1) return;
    store_tile<SUMS_10>(sums[2 * num_0], STRIDE), store_tile<SUMS_11>(sums[2 * num_0] + LANES, STRIDE);
}

// One panel's columns of a block of rows from `row` on. `next`: the first one among them whose sums are not output yet.
struct Block {
    int panel, row, next;
};

// Lines of memory that come into the second cache, as many beside each product of TILE_DEPTHS. The processor itself fetches
// ahead of them, but only within a page of 4 KiB: the first lines of the next page, early, make it begin there.
struct Fetch {
    const uint8_t *at;
    int num_lines;

    INLINE void advance() {
        if (!num_lines) return;
        __builtin_prefetch(at + 4096, 0, 2);
        __builtin_prefetch(at + 4096 + 64, 0, 2);
        for (int i = 0; i < num_lines; i++) __builtin_prefetch(at + i * 64, 0, 2);
        at += num_lines * 64;
    }
};

struct TileProduct {
    const Model &model;
    const Matrix &matrix;
    const Activations &rows;
    Epilogue epilogue;
    float *output;
    int stride;
    int num_0, num_1; // rows of a block's parts
    TileSums &sums;   // of one block at a time, so that they stay in the first cache

    template <int ROWS> INLINE void finish_rows(Block &block) const {
        static_assert(PANEL == 2 * LANES, "two vectors are a panel");
        const int row = block.row + block.next;
        Floats total[ROWS][2];
#pragma GCC unroll 2
        for (int r = 0; r < ROWS; r++, block.next++)
#pragma GCC unroll 2
            for (int v = 0; v < 2; v++) {
                const auto sum_of = [&](int part) __attribute__((always_inline)) {
                    return load_ints(sums[2 * block.next + part] + v * LANES) +
                           splat_int(rows.starts[2 * (row + r) + part]);
                };
                total[r][v] = join_bytes(sum_of(0), sum_of(1)) * splat(rows.scales[2 * (row + r)]);
            }
        finish<ROWS, 2, true>(model, matrix, epilogue, total, block.panel * PANEL, output + (int64_t)row * stride,
                              stride);
    }

    INLINE void finish_block(Block &block) const {
        while (block.next + 1 < num_0 + num_1) finish_rows<2>(block);
        if (block.next < num_0 + num_1) finish_rows<1>(block);
    }

    // The sums of a block, for which the tiles have their shapes. Beside its products the rows of the block before become
    // output, two at a time: the processor's vectors have nothing else to do, and memory keeps coming.
    template <int PARTS> INLINE void sum(const Block &block, Block &before, Fetch &fetch) const {
        const int depth = round_up(matrix.depth, 4), num_steps = depth / TILE_DEPTHS, whole = num_steps * TILE_DEPTHS;
        const int half = rows.stride_bytes / 2;
        const uint8_t *weights = (const uint8_t *)matrix.panels + (int64_t)block.panel * depth * PANEL;
        const int8_t *rows_0 = rows.bytes + (int64_t)block.row * rows.stride_bytes;
        const int8_t *rows_1 = rows_0 + num_0 * rows.stride_bytes;
        alignas(64) uint8_t unused[TILE_ROWS][TILE_BYTES];
        clear_sums<PARTS>();
        for (int step = 0; step < num_steps; step++) {
            const int k = step * TILE_DEPTHS;
            multiply_depths<PARTS>(weights + (int64_t)k * PANEL, rows_0 + k, rows_1 + k, half);
            // A tile that is stored 0.65 microseconds or more after the last one takes another quarter of a microsecond. So
            // one is stored now and then, into memory that nothing reads.
            if (step % 4 == 2) store_tile<WEIGHTS_0>(unused, TILE_BYTES);
            fetch.advance();
            if (before.next + 1 < num_0 + num_1) finish_rows<2>(before);
        }
        finish_block(before);
        store_sums<PARTS>(sums, num_0);
        if (whole == depth) return;
        alignas(64) TileSums last; // the last depths, apart
        shape_tiles(product_shapes(num_0, num_1, depth - whole));
        multiply_depths<PARTS>(weights + (int64_t)whole * PANEL, rows_0 + whole, rows_1 + whole, half);
        store_sums<PARTS>(last, num_0);
        shape_tiles(product_shapes(num_0, num_1, TILE_DEPTHS));
        for (int r = 0; r < 2 * (num_0 + num_1); r++)
            for (int column = 0; column < PANEL; column += LANES) {
                int32_t *to = sums[r] + column;
                store((float *)to, bits_to_floats(load_ints(to) + load_ints(last[r] + column)));
            }
    }
};

constexpr int FEW_ROWS = 4; // up to these the processor fetches what vectors read further ahead than what tiles read

// A few rows by a panel, in vectors: the sums are those of tiles.
template <int ROWS, int FETCH>
void few_rows_tile(const Model &model, const Matrix &matrix, const Activations &rows, int row, int panel, int,
                   const uint8_t *fetch, Epilogue epilogue, float *output, int stride) {
    const int num_quads = (matrix.depth + 3) / 4, half = rows.stride_bytes / 2;
    const uint8_t *weights = (const uint8_t *)matrix.panels + (int64_t)panel * num_quads * 4 * PANEL;
    const int8_t *bytes = rows.bytes + (int64_t)row * rows.stride_bytes;
    Ints sums[ROWS][2][2];
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) sums[r][i / 2][i % 2] = splat_int(rows.starts[2 * (row + r) + i / 2]);
    for (int quad = 0; quad < num_quads; quad++) {
        const uint8_t *line = weights + quad * PANEL * 4;
        fetch_lines<FETCH>(fetch, quad);
        const Ints w[2] = {load_ints(line), load_ints(line + TILE_BYTES)};
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
            for (int part = 0; part < 2; part++) {
                const int32_t a = load_int(bytes + (int64_t)(2 * r + part) * half + quad * 4);
                sums[r][part][0] = dot(sums[r][part][0], w[0], a);
                sums[r][part][1] = dot(sums[r][part][1], w[1], a);
            }
    }
    Floats total[ROWS][2];
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
        for (int v = 0; v < 2; v++)
            total[r][v] = join_bytes(sums[r][0][v], sums[r][1][v]) * splat(rows.scales[2 * (row + r)]);
    finish<ROWS, 2>(model, matrix, epilogue, total, panel * PANEL, output + (int64_t)row * stride, stride);
}
template <int ROWS> struct FewRowsTile {
    template <int FETCH> static constexpr Tile TILE = few_rows_tile<ROWS, FETCH>;
};

void multiply_in_tiles(const Model &model, const Matrix &matrix, const Activations &rows, int first, int end,
                       Epilogue epilogue, float *output, int stride, const uint8_t *fetch) {
    const int64_t panel_bytes = (int64_t)round_up(matrix.depth, 4) * PANEL;
    // Blocks are equal, so that the tiles keep their shapes: 35 rows are 12, 12, and 12 of which the block before had one.
    const int num_blocks = (rows.num_rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
    const int num = (rows.num_rows + num_blocks - 1) / num_blocks, num_1 = num > PART_ROWS ? num / 2 : 0;
    // All blocks together fetch what comes next, in equal parts.
    const int lines_each = (TILE_DEPTHS * PANEL / 64 + num_blocks - 1) / num_blocks;
    alignas(64) TileSums sums;
    const TileProduct product = {model, matrix, rows, epilogue, output, stride, num - num_1, num_1, sums};
    Block before = {0, 0, num}; // nothing to finish: no block is before the first one
    shape_tiles(product_shapes(num - num_1, num_1, TILE_DEPTHS));
    // Several blocks: all panels for one of them, then for the next one, so that its rows stay in the first cache where they
    // fit. The panels have to be in the second cache by then.
    const int panels_together = num_blocks == 1 ? 1 : end - first;
    for (int begin = first; begin < end; begin += panels_together) {
        const int stop = begin + panels_together;
        const uint8_t *next = stop < end ? (const uint8_t *)matrix.panels + stop * panel_bytes : fetch;
        Fetch fetching = {next, next ? lines_each : 0};
        for (int i = 0; i < num_blocks; i++)
            for (int panel = begin; panel < stop; panel++) {
                const int row = i + 1 < num_blocks ? i * num : rows.num_rows - num;
                const Block block = {panel, row, i * num - row};
                if (num_1) product.sum<2>(block, before, fetching);
                else product.sum<1>(block, before, fetching);
                before = block;
            }
    }
    product.finish_block(before);
    release_tiles();
}

} // namespace
#endif
