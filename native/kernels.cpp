// The kernels, written once against simd.h and compiled for each target (-DTARGET=name).
//
// Batch-invariant: what a row gives depends on its own numbers alone. Sums of integers are exact; sums of floats
// run over k, over groups, or over the lanes of the tokens, always in the same order, however many rows share a tile.
#include "kernels.h"
#include "simd.h"
#include "tiles.h"

namespace {

// ------------------------------------------------------------------------------------------------ matrix products

// Where byte i of a row is, from its first one on, if ROWS_TOGETHER rows are side by side.
[[maybe_unused]] INLINE int place(int i) { return i + (i & ~7) * (ROWS_TOGETHER - 1); }

// Beside four weights of each column: FETCH cache lines (0, 1, 2 or 4) for each eight of them come into the cache.
template <int FETCH> INLINE void fetch_lines(const uint8_t *fetch, int quad) {
    if (FETCH == 1 && quad % 2 == 0) return;
    for (int i = 0; i < (FETCH + 1) / 2; i++) __builtin_prefetch(fetch + ((int64_t)quad * FETCH / 2 + i) * 64, 0, 2);
}

// One tile: ROWS rows × VECTORS vectors of columns; one row, if several are side by side. `weights` points at the tile's
// first column in its panel.
template <int ROWS, int VECTORS, int FETCH>
INLINE void dot_int8(const uint8_t *weights, int depth, const int8_t *bytes, int stride, const float *scales,
                     const int32_t *starts, int num_groups, const uint8_t *fetch, Floats (&total)[ROWS][VECTORS]) {
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) total[r][v] = splat(0);
    const int num_quads = (depth + 3) / 4;
    for (int group = 0, quad = 0; group < num_groups; group++) {
        const int end = quad + GROUP / 4 < num_quads ? quad + GROUP / 4 : num_quads;
        Ints sum[ROWS][VECTORS];
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) sum[r][v] = splat_int(starts[r * num_groups + group * ROWS_TOGETHER]);
        for (; quad < end; quad++) {
            const uint8_t *line = weights + (int64_t)quad * PANEL * 4;
            fetch_lines<FETCH>(fetch, quad);
            Ints w[VECTORS];
            for (int v = 0; v < VECTORS; v++) w[v] = load_ints(line + v * LANES * 4);
#pragma GCC unroll 16
            for (int r = 0; r < ROWS; r++) {
                int32_t a;
                memcpy(&a, bytes + (int64_t)r * stride + place(quad * 4), 4);
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; v++) sum[r][v] = dot(sum[r][v], w[v], a);
            }
        }
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++)
                total[r][v] =
                    fma(to_floats(sum[r][v]), splat(scales[r * num_groups + group * ROWS_TOGETHER]), total[r][v]);
    }
}

#if defined(DOTS_PAIRS)
template <class Vector, class Number> INLINE Vector twice(const Number *pair) {
    return Vector{pair[0], pair[1], pair[0], pair[1]};
}
// The same sums, of two rows and eight activations at a time: two neighbouring fours of each column's weights become one
// operand. The row behind an odd number of rows may be of any bytes: nothing is kept of it.
template <int ROWS, int VECTORS, int FETCH>
INLINE void dot_int8_pairs(const uint8_t *weights, int depth, const int8_t *bytes, int stride, const float *scales,
                           const int32_t *starts, int num_groups, const uint8_t *fetch,
                           Floats (&total)[ROWS][VECTORS]) {
    constexpr int PAIRS = (ROWS + 1) / 2;
    const int num_quads = (depth + 3) / 4;
    Floats totals[PAIRS][VECTORS][2];
    for (int p = 0; p < PAIRS; p++)
        for (int v = 0; v < VECTORS; v++) totals[p][v][0] = totals[p][v][1] = splat(0);
    for (int group = 0, quad = 0; group < num_groups; group++) {
        const int end = quad + GROUP / 4 < num_quads ? quad + GROUP / 4 : num_quads;
        Ints sum[PAIRS][VECTORS][2];
#pragma GCC unroll 16
        for (int p = 0; p < PAIRS; p++) {
            const Ints start = twice<Ints>(starts + 2 * (p * num_groups + group));
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) sum[p][v][0] = sum[p][v][1] = start;
        }
        // `has_second`: a matrix may end with the first four weights of eight.
        const auto turn = [&](bool has_second) __attribute__((always_inline)) {
            const uint8_t *line = weights + (int64_t)quad * PANEL * 4;
            fetch_lines<FETCH>(fetch, quad);
            if (has_second) fetch_lines<FETCH>(fetch, quad + 1);
            Ints w[VECTORS][2];
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) {
                const Ints first = load_ints(line + v * LANES * 4);
                const Ints second = has_second ? load_ints(line + (PANEL + v * LANES) * 4) : splat_int(0);
                w[v][0] = __builtin_shufflevector(first, second, 0, 4, 1, 5);
                w[v][1] = __builtin_shufflevector(first, second, 2, 6, 3, 7);
            }
#pragma GCC unroll 16
            for (int p = 0; p < PAIRS; p++) {
                const Ints a = load_ints(bytes + (int64_t)2 * p * stride + quad * 8);
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; v++)
                    for (int i = 0; i < 2; i++) sum[p][v][i] = dot_pairs(sum[p][v][i], w[v][i], a);
            }
        };
        for (; quad + 1 < end; quad += 2) turn(true);
        if (quad < end) {
            turn(false);
            quad++;
        }
#pragma GCC unroll 16
        for (int p = 0; p < PAIRS; p++) {
            const Floats scale = twice<Floats>(scales + 2 * (p * num_groups + group));
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++)
                for (int i = 0; i < 2; i++) totals[p][v][i] = fma(to_floats(sum[p][v][i]), scale, totals[p][v][i]);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) {
            const Floats a = totals[r / 2][v][0], b = totals[r / 2][v][1];
            total[r][v] = r % 2 ? __builtin_shufflevector(a, b, 1, 3, 5, 7) : __builtin_shufflevector(a, b, 0, 2, 4, 6);
        }
}
#endif

struct F32Weights {
    typedef float Number;
    static INLINE Floats get(const float *from) { return load(from); }
};
struct Bf16Weights {
    typedef uint16_t Number;
    static INLINE Floats get(const uint16_t *from) { return bits_to_floats(loads_bf16(from)); }
};

template <class Weights, int ROWS, int VECTORS>
INLINE void dot_floats(const typename Weights::Number *weights, int depth, const float *values, int stride,
                       Floats (&total)[ROWS][VECTORS]) {
    Floats sum[ROWS][VECTORS]; // not `total`, which might alias `values` and would be stored at each turn
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) sum[r][v] = splat(0);
    for (int k = 0; k < depth; k++) {
        Floats w[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) w[v] = Weights::get(weights + (int64_t)k * PANEL + v * LANES);
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++) {
            const Floats a = splat(values[(int64_t)r * stride + k]);
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) sum[r][v] = fma(a, w[v], sum[r][v]);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) total[r][v] = sum[r][v];
}

INLINE Floats activate(int activation, Floats x) {
    switch (activation) {
    case GELU_TANH: {
        // 0.5 · (1 + tanh u) = sigmoid(2u), which takes one exponential
        return x * sigmoid(1.5957691216f * fma(0.044715f * x * x, x, x));
    }
    case GELU_ERF: return 0.5f * x * (1.0f + error_function(x * 0.7071067812f));
    case RELU: return max(x, splat(0));
    case SILU: return x * sigmoid(x);
    default: return hyperbolic_tangent(x);
    }
}

// LANES numbers, of which the array has `count`; zeros for the others.
INLINE Floats load_some(const float *from, int count) {
    if (count >= LANES) return load(from);
    float part[LANES] = {};
    for (int i = 0; i < count; i++) part[i] = from[i];
    return load(part);
}

INLINE void store_some(float *to, const Floats &value, int count) {
    if (count >= LANES) return store(to, value);
    for (int i = 0; i < count; i++) to[i] = value[i];
}

// Scale, bias and epilogue of a tile whose first column is `column`.
template <int ROWS, int VECTORS>
INLINE void finish(const Model &model, const Matrix &matrix, Epilogue epilogue, const Floats (&total)[ROWS][VECTORS],
                   int column, float *output, int stride) {
    if (epilogue != ACTIVATE && column + VECTORS * LANES <= matrix.num_columns) { // the usual case, from the registers
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) {
            float *to = output + column + v * LANES;
            const Floats scale = matrix.scale ? load(matrix.scale + column + v * LANES) : splat(1);
            const Floats bias = matrix.bias ? load(matrix.bias + column + v * LANES) : splat(0);
#pragma GCC unroll 16
            for (int r = 0; r < ROWS; r++, to += stride) {
                const Floats x = fma(total[r][v], scale, bias);
                store(to, epilogue == ADD ? x + load(to) : x);
            }
        }
        return;
    }
    Floats stored[ROWS][VECTORS]; // so that only this path has its sums in memory
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) stored[r][v] = total[r][v];
    for (int v = 0; v < VECTORS; v++) {
        const int first = column + v * LANES, count = matrix.num_columns - first;
        if (count <= 0) return;
        const Floats scale = matrix.scale ? load_some(matrix.scale + first, count) : splat(1);
        const Floats bias = matrix.bias ? load_some(matrix.bias + first, count) : splat(0);
        for (int r = 0; r < ROWS; r++) {
            Floats x = fma(stored[r][v], scale, bias);
            if (epilogue == ACTIVATE) x = activate(model.activation, x);
            float *to = output + (int64_t)r * stride + first;
            if (epilogue == ADD) x = x + load_some(to, count);
            store_some(to, x, count);
        }
    }
}

typedef void (*Tile)(const Model &, const Matrix &, const Activations &, int row, int panel, int first,
                     const uint8_t *fetch, Epilogue, float *, int);

template <int ROWS, int FETCH>
void int8_tile(const Model &model, const Matrix &matrix, const Activations &rows, int row, int panel, int first,
               const uint8_t *fetch, Epilogue epilogue, float *output, int stride) {
    constexpr int VECTORS = int8_vectors(ROWS);
    Floats total[ROWS][VECTORS];
    const uint8_t *weights =
        (const uint8_t *)matrix.panels + (int64_t)panel * round_up(matrix.depth, 4) * PANEL + first * 4;
    const int8_t *bytes = rows.bytes + (int64_t)row * rows.stride_bytes;
    const int64_t group = (int64_t)row * rows.num_groups;
#if defined(DOTS_PAIRS)
    if constexpr (ROWS > 1)
        dot_int8_pairs<ROWS, VECTORS, FETCH>(weights, matrix.depth, bytes, rows.stride_bytes, rows.scales + group,
                                             rows.starts + group, rows.num_groups, fetch, total);
    else
#endif
        dot_int8<ROWS, VECTORS, FETCH>(weights, matrix.depth, bytes, rows.stride_bytes, rows.scales + group,
                                       rows.starts + group, rows.num_groups, fetch, total);
    finish<ROWS, VECTORS>(model, matrix, epilogue, total, panel * PANEL + first, output + (int64_t)row * stride,
                          stride);
}

template <class Weights, int ROWS>
void float_tile(const Model &model, const Matrix &matrix, const Activations &rows, int row, int panel, int first,
                const uint8_t *, Epilogue epilogue, float *output, int stride) {
    typedef typename Weights::Number Number;
    Floats total[ROWS][TILE_VECTORS];
    const Number *weights = (const Number *)matrix.panels + (int64_t)panel * matrix.depth * PANEL + first;
    dot_floats<Weights, ROWS, TILE_VECTORS>(weights, matrix.depth, rows.values + (int64_t)row * rows.stride_floats,
                                            rows.stride_floats, total);
    finish<ROWS, TILE_VECTORS>(model, matrix, epilogue, total, panel * PANEL + first, output + (int64_t)row * stride,
                               stride);
}

// The tile of each number of rows up to `most`.
template <template <int> class Of, int most, int... ROWS> struct TilesUpTo : TilesUpTo<Of, most - 1, most, ROWS...> {};
template <template <int> class Of, int... ROWS> struct TilesUpTo<Of, 0, ROWS...> {
    static constexpr Tile TILES[][4] = {{},
                                        {Of<ROWS>::template TILE<0>, Of<ROWS>::template TILE<1>,
                                         Of<ROWS>::template TILE<2>, Of<ROWS>::template TILE<4>}...};
};
template <int ROWS> struct Int8Tile {
    template <int FETCH> static constexpr Tile TILE = int8_tile<ROWS, FETCH>;
};
template <int ROWS> struct Bf16Tile {
    template <int> static constexpr Tile TILE = float_tile<Bf16Weights, ROWS>;
};
template <int ROWS> struct F32Tile {
    template <int> static constexpr Tile TILE = float_tile<F32Weights, ROWS>;
};

// Tiles of `vectors` of columns and `usual_rows` at most, unless one of `most_rows` takes all rows.
template <template <int> class Of, int usual_rows, int most_rows>
void multiply(const Model &model, const Matrix &matrix, const Activations &rows, int panel, int vectors,
              Epilogue epilogue, float *output, int stride, const uint8_t *fetch) {
    const int num_tiles = rows.num_rows <= most_rows ? 1 : (rows.num_rows + usual_rows - 1) / usual_rows;
    for (int first = 0; first < PANEL; first += vectors * LANES)
        for (int i = 0, row = 0; i < num_tiles; i++) { // rows split evenly: 32 = 7 + 7 + 6 + 6 + 6
            const int left = num_tiles - i, rest = rows.num_rows - row;
            const int even = round_up((rest + left - 1) / left, ROWS_TOGETHER), num = even < rest ? even : rest;
            // A panel has four lines for each eight weights. One, two or four tiles fetch the next one in equal parts: the
            // last ones, because the first one waits for its own panel.
            const int num_fetching = num_tiles > 3 ? 4 : num_tiles > 1 ? 2 : 1;
            const int lines = !fetch || first || left > num_fetching ? 0 : 4 / num_fetching;
            TilesUpTo<Of, most_rows>::TILES[num][lines == 4 ? 3 : lines](model, matrix, rows, row, panel, first, fetch,
                                                                         epilogue, output, stride);
            if (lines) fetch += (int64_t)round_up(matrix.depth, 4) / 4 * 64 * lines / 2;
            row += num;
        }
}

#if defined(HAS_TILES)
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
#endif

template <template <int> class Of, int usual_rows, int most_rows>
void multiply_panels(const Model &model, const Matrix &matrix, const Activations &rows, int first, int end, int vectors,
                     int panel_bytes, Epilogue epilogue, float *output, int stride, const uint8_t *fetch) {
    for (int panel = first; panel < end; panel++) {
        const uint8_t *next = (const uint8_t *)matrix.panels + (int64_t)(panel + 1) * panel_bytes;
        multiply<Of, usual_rows, most_rows>(model, matrix, rows, panel, vectors, epilogue, output, stride,
                                            panel + 1 < end ? next : fetch);
    }
}

void matmul(const Model &model, const Matrix &matrix, const Activations &rows, int first, int end, Epilogue epilogue,
            float *output, int stride, const uint8_t *fetch) {
    if (model.precision == INT8)
#if defined(HAS_TILES)
        multiply_in_tiles(model, matrix, rows, first, end, epilogue, output, stride, fetch);
#else
        multiply_panels<Int8Tile, INT8_TILE_ROWS, INT8_MOST_ROWS>(
            model, matrix, rows, first, end, int8_vectors(rows.num_rows), round_up(matrix.depth, 4) * PANEL, epilogue,
            output, stride, fetch);
#endif
    else if (model.precision == BF16)
        multiply_panels<Bf16Tile, FLOAT_TILE_ROWS, FLOAT_TILE_ROWS>(
            model, matrix, rows, first, end, TILE_VECTORS, matrix.depth * PANEL * 2, epilogue, output, stride, fetch);
    else
        multiply_panels<F32Tile, FLOAT_TILE_ROWS, FLOAT_TILE_ROWS>(
            model, matrix, rows, first, end, TILE_VECTORS, matrix.depth * PANEL * 4, epilogue, output, stride, fetch);
}

// ------------------------------------------------------------------------------------------------------ row kernels

void embed(const Model &model, int64_t token, int64_t position, float *output) {
    const Matrix &matrix = model.embedding;
    const float *positions = model.positions + position * model.width;
    const int64_t panel = token / PANEL, column = token % PANEL;
    if (model.precision == INT8) {
        const uint8_t *weights =
            (const uint8_t *)matrix.panels + panel * round_up(matrix.depth, 4) * PANEL + column * 4;
        const float scale = matrix.scale[token];
        for (int k = 0; k < model.width; k++)
            output[k] = ((int)weights[k / 4 * PANEL * 4 + k % 4] - 128) * scale + positions[k];
    } else if (model.precision == BF16) {
        const uint16_t *weights = (const uint16_t *)matrix.panels + panel * matrix.depth * PANEL + column;
        for (int k = 0; k < model.width; k++) {
            const uint32_t bits = (uint32_t)weights[(int64_t)k * PANEL] << 16;
            float value;
            memcpy(&value, &bits, 4);
            output[k] = value + positions[k];
        }
    } else {
        const float *weights = (const float *)matrix.panels + panel * matrix.depth * PANEL + column;
        for (int k = 0; k < model.width; k++) output[k] = weights[(int64_t)k * PANEL] + positions[k];
    }
}

void layer_norm(const Model &model, const Norm &norm, const float *input, float *output) {
    const int width = model.width, whole = width / LANES * LANES;
    Floats sum = splat(0);
    for (int i = 0; i < whole; i += LANES) sum = sum + load(input + i);
    float total = sum_lanes(sum);
    for (int i = whole; i < width; i++) total += input[i];
    const float mean = total / width;
    Floats squares = splat(0);
    for (int i = 0; i < whole; i += LANES) {
        const Floats d = load(input + i) - mean;
        squares = fma(d, d, squares);
    }
    float variance = sum_lanes(squares);
    for (int i = whole; i < width; i++) variance += (input[i] - mean) * (input[i] - mean);
    const float inverse = 1.0f / __builtin_sqrtf(variance / width + model.layer_norm_epsilon);
    for (int i = 0; i < whole; i += LANES)
        store(output + i, fma((load(input + i) - mean) * inverse, load(norm.weight + i), load(norm.bias + i)));
    for (int i = whole; i < width; i++) output[i] = (input[i] - mean) * inverse * norm.weight[i] + norm.bias[i];
}

[[maybe_unused]] INLINE int32_t round_to_int(float x) { return round_to_ints(splat(x))[0]; }

// The largest magnitude.
INLINE float largest_of(const float *input, int count) {
    const int whole = count / LANES * LANES;
    Floats largest = splat(0);
    for (int i = 0; i < whole; i += LANES) largest = max(largest, abs(load(input + i)));
    float most = max_lanes(largest);
    for (int i = whole; i < count; i++) most = __builtin_fabsf(input[i]) > most ? __builtin_fabsf(input[i]) : most;
    return most;
}

constexpr float LARGEST_16_BITS = 127 * 256; // as two signed bytes, high · 256 + low

// `count` floats (a multiple of LANES) to 16 bits each, high and low bytes apart. Their sums go to `sums` (high, low).
INLINE void split_bytes(const float *input, int count, float factor, int8_t *high, int8_t *low, int32_t (&sums)[2]) {
    typedef int8_t Bytes __attribute__((vector_size(LANES)));
    Ints high_sum = splat_int(0), low_sum = splat_int(0);
    for (int i = 0; i < count; i += LANES) {
        const Ints q = round_to_ints(load(input + i) * factor);
        const Ints l = ((q + 128) & 255) - 128, h = (q - l) >> 8;
        high_sum = high_sum + h;
        low_sum = low_sum + l;
        const Bytes hb = __builtin_convertvector(h, Bytes), lb = __builtin_convertvector(l, Bytes);
        memcpy(high + i, &hb, LANES);
        memcpy(low + i, &lb, LANES);
    }
    sums[0] = sum_lanes(high_sum);
    sums[1] = sum_lanes(low_sum);
}

#if defined(HAS_TILES)
void quantize(const float *input, int depth, int8_t *bytes, int half, float *scales, int32_t *starts) {
    float most = largest_of(input, depth);
    const float factor = most > 1e-30f ? LARGEST_16_BITS / most : 0;
    const int whole = depth / LANES * LANES, rest = round_up(depth, 4) - whole;
    int32_t sums[2], last_sums[2];
    split_bytes(input, whole, factor, bytes, bytes + half, sums);
    if (rest) {
        alignas(64) float last[LANES] = {};
        int8_t high[LANES], low[LANES];
        memcpy(last, input + whole, (size_t)(depth - whole) * sizeof(float));
        split_bytes(last, LANES, factor, high, low, last_sums);
        memcpy(bytes + whole, high, (size_t)rest);
        memcpy(bytes + half + whole, low, (size_t)rest);
        for (int i = 0; i < 2; i++) sums[i] += last_sums[i];
    }
    scales[0] = scales[1] = most > 1e-30f ? most / LARGEST_16_BITS : 0;
    for (int i = 0; i < 2; i++) starts[i] = -WEIGHT_OFFSET * sums[i];
}
#else
// `count` floats to signed bytes of scale largest/127; 0 for all of them if they are zero. Returns the scale.
INLINE float quantize_bytes(const float *input, int count, int8_t *bytes, int32_t *sum) {
    const int whole = count / LANES * LANES;
    const float most = largest_of(input, count);
    const float factor = most > 1e-30f ? 127.0f / most : 0;
    Ints sums = splat_int(0);
    for (int i = 0; i < whole; i += LANES) {
        const Ints q = round_to_ints(load(input + i) * factor);
        sums = sums + q;
        typedef int8_t Bytes __attribute__((vector_size(LANES)));
        const Bytes b = __builtin_convertvector(q, Bytes);
        memcpy(bytes + place(i), &b, LANES);
    }
    int32_t total = sum_lanes(sums);
    for (int i = whole; i < count; i++) {
        const int32_t q = round_to_int(input[i] * factor);
        bytes[place(i)] = (int8_t)q;
        total += q;
    }
    *sum = total;
    return most > 1e-30f ? most / 127.0f : 0;
}

void quantize(const float *input, int depth, int8_t *bytes, int, float *scales, int32_t *starts) {
    for (int group = 0; group * GROUP < depth; group++) {
        const int first = group * GROUP, count = depth - first < GROUP ? depth - first : GROUP;
        int32_t sum;
        scales[group * ROWS_TOGETHER] = quantize_bytes(input + first, count, bytes + place(first), &sum);
        starts[group * ROWS_TOGETHER] = -WEIGHT_OFFSET * sum;
    }
    for (int i = depth; i < round_up(depth, 4); i++) bytes[place(i)] = 0;
}
#endif

// -------------------------------------------------------------------------------------------------------- attention

// Floats from least to most as bytes -127 … 127: input ≈ scale · byte + offset. Behind `count` up to a multiple of
// LANES the bytes are of no meaning.
INLINE void spread_bytes(const float *input, int count, int8_t *bytes, float *scale, float *offset) {
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
    const float smallest = -max_lanes(-least), range = max_lanes(most) - smallest;
    *scale = range / 254;
    *offset = smallest + range / 2;
    const float factor = *scale > 1e-30f ? 1 / *scale : 0;
    typedef int8_t Bytes __attribute__((vector_size(LANES)));
    for (int i = 0; i < count; i += LANES) {
        const Bytes b =
            __builtin_convertvector(round_to_ints((load_some(input + i, count - i) - *offset) * factor), Bytes);
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

void write_cache(const Model &model, int layer, int head, const int32_t *blocks, int position, int num_tokens,
                 const float *key, const float *value, int stride) {
    const CacheLayout c = cache_layout(model);
    const int size = model.head_size;
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
            float *scales = (float *)(memory + c.key_scales) + offset + i;
            spread_bytes(key, size, bytes[0], scales, scales + BLOCK_TOKENS);
            for (int d = 0; d < size; d += 4) {
                uint32_t quad;
                memcpy(&quad, bytes[0] + d, 4);
                quad ^= 0x80808080u;
                memcpy(memory + d * BLOCK_TOKENS + (offset + i) * 4, &quad, 4);
            }
        }
        for (int i = 0; i < num; i++, value += stride) {
            float *scales = (float *)(memory + c.value_scales) + offset + i;
            spread_bytes(value, size, bytes[i], scales, scales + BLOCK_TOKENS);
        }
        uint8_t *values = memory + c.values + (int64_t)(offset / 4) * c.padded_head * 4;
        if (num == 1)
            for (int d = 0; d < size; d++) values[d * 4 + offset % 4] = (uint8_t)(bytes[0][d] ^ 0x80);
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

INLINE int32_t load_int(const int8_t *from) {
    int32_t v;
    memcpy(&v, from, 4);
    return v;
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

// Scores of a vector of tokens, from `token` on, by sums of products with both bytes. `scales`: of their keys.
INLINE void store_scores(const Query &query, const float *scales, int token, Ints high, Ints low) {
    const Floats product = fma(to_floats(high), splat(256), to_floats(low));
    const Floats shift = load(scales + BLOCK_TOKENS) * query.shift;
    store(query.scores + token, fma(product, load(scales) * query.scale, shift));
}

// Scores of NUM queries, each of which has its bytes in `high` and `low`.
template <int NUM>
INLINE void score_bytes(const Model &model, const CacheLayout &c, int layer, int head, const int32_t *blocks,
                        int num_tokens, const Query (&queries)[NUM]) {
    const int num_quads = (model.head_size + 3) / 4;
    for (int begin = 0; begin < num_tokens; begin += BLOCK_TOKENS) {
        const uint8_t *memory = cache_head(model, c, layer, blocks[begin / BLOCK_TOKENS], head);
        const float *scales = (const float *)(memory + c.key_scales);
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
                    __builtin_prefetch(values);
                    __builtin_prefetch(values + 64);
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
            for (int q = 0; q < NUM; q++)
                for (int v = 0; v < TOGETHER; v++)
                    store_scores(queries[q], scales + (first + v) * LANES, begin + (first + v) * LANES, high[q][v],
                                 low[q][v]);
        }
    }
}

// A vector of a head's elements, from `first` on, of which there are `count`, by sums of products with both bytes.
INLINE void store_weighed(const Query &query, int first, int count, Ints high, Ints low, bool is_first) {
    const Floats whole = fma(to_floats(high), splat(256), to_floats(low));
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
                    for (int line = 0; line < VECTORS * LANES / 16; line++) __builtin_prefetch(next + line * 64);
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

#if defined(HAS_TILES)
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
        const float *scales = (const float *)(memory + c.key_scales);
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
        for (int half = 0; half < 2; half++)
            each_query(queries, sums[half],
                       [&](const Query &query, Ints high, Ints low) __attribute__((always_inline)) {
                           store_scores(query, scales + half * LANES, begin + half * LANES, high, low);
                       });
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
#else
constexpr int QUERIES = 4;
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
        const float *scales = (const float *)(memory + c.value_scales);
        float last[2 * BLOCK_TOKENS] = {};
        if (num_tokens - begin < BLOCK_TOKENS) {
            for (int i = 0; i < num_tokens - begin; i++) {
                last[i] = scales[i];
                last[BLOCK_TOKENS + i] = scales[BLOCK_TOKENS + i];
            }
            scales = last;
        }
        for (int i = 0; i < BLOCK_TOKENS; i += LANES) {
            const Floats weight = load(query.scores + begin + i), scaled = weight * load(scales + i);
            shifts = fma(weight, load(scales + BLOCK_TOKENS + i), shifts);
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

#define QUOTE_(x) #x
#define QUOTE(x) QUOTE_(x)
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
extern const Sampling JOIN(TARGET, _sampling); // sampling.cpp
extern const Kernels TARGET;
#if defined(HAS_TILES)
constexpr ActivationBytes ACTIVATION_BYTES = TWO_BYTES;
#else
constexpr ActivationBytes ACTIVATION_BYTES = ONE_BYTE;
#endif
const Kernels TARGET = {QUOTE(TARGET), ACTIVATION_BYTES, ROWS_TOGETHER, matmul, embed,
                        layer_norm,    quantize,         write_cache,   attend, &JOIN(TARGET, _sampling)};
