// Matrix products of rows by panels of weights, in vectors. Part of kernels.cpp.
#pragma once
#include "kernels.h"
#include "simd.h"

namespace {

// Where byte i of a row is, from its first one on, if ROWS_TOGETHER rows are side by side.
[[maybe_unused]] INLINE int place(int i) { return i + (i & ~7) * (ROWS_TOGETHER - 1); }

// Beside four weights of each column: the next cache lines come into the cache, FETCH (0, 1, 2 or 4) for each eight.
template <int FETCH> INLINE void fetch_lines(const uint8_t *&fetch, int quad) {
    for (int i = 0; i < (FETCH + quad % 2) / 2; i++, fetch += 64) __builtin_prefetch(fetch, 0, 2);
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
    // A tile that fetches much waits for memory: unrolled, its fetches would come in bursts.
    constexpr int UNROLLED = FETCH <= 1 || ROWS_TOGETHER > 1 ? UNROLLED_QUADS : 1;
    const int num_quads = (depth + 3) / 4;
    for (int group = 0, quad = 0; group < num_groups; group++) {
        const int end = quad + GROUP / 4 < num_quads ? quad + GROUP / 4 : num_quads;
        Ints sum[ROWS][VECTORS];
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) sum[r][v] = splat_int(starts[r * num_groups + group * ROWS_TOGETHER]);
        const auto multiply_quad = [&](int i) __attribute__((always_inline)) {
            Ints w[VECTORS];
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) w[v] = load_ints(weights + (i * PANEL + v * LANES) * 4);
#pragma GCC unroll 16
            for (int r = 0; r < ROWS; r++) {
                const int32_t a = load_int(bytes + (int64_t)r * stride + place(i * 4));
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; v++) sum[r][v] = dot(sum[r][v], w[v], a);
            }
        };
        for (; quad + UNROLLED <= end; quad += UNROLLED) {
#pragma GCC unroll 4
            for (int i = 0; i < UNROLLED; i++) {
                fetch_lines<FETCH>(fetch, i);
                multiply_quad(i);
            }
            weights += UNROLLED * PANEL * 4;
            bytes += place(UNROLLED * 4);
        }
        for (int i = 0; quad < end; quad++, i++) multiply_quad(i); // a matrix may end with a few
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
            fetch_lines<FETCH>(fetch, 0);
            fetch_lines<FETCH>(fetch, 1);
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
    static INLINE Floats get(const uint16_t *from) { return load_bf16(from); }
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
        return x / (1.0f + exponential(-1.5957691216f * fma(0.044715f * x * x, x, x)));
    }
    case GELU_ERF: return 0.5f * x * (1.0f + error_function(x * 0.7071067812f));
    case RELU: return max(x, splat(0));
    case SILU: return x / (1.0f + exponential(-x));
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

// Scale, bias and epilogue of a tile whose first column is `column`. ACTIVATES: an activation needs no memory for
// the sums either. With many rows the code would be longer for little.
template <int ROWS, int VECTORS, bool ACTIVATES = false>
INLINE void finish(const Model &model, const Matrix &matrix, Epilogue epilogue, const Floats (&total)[ROWS][VECTORS],
                   int column, float *output, int stride) {
    if ((epilogue != ACTIVATE || ACTIVATES) &&
        column + VECTORS * LANES <= matrix.num_columns) { // the usual case, from the registers
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) {
            float *to = output + column + v * LANES;
            const Floats scale = matrix.scale ? load(matrix.scale + column + v * LANES) : splat(1);
            const Floats bias = matrix.bias ? load(matrix.bias + column + v * LANES) : splat(0);
#pragma GCC unroll 16
            for (int r = 0; r < ROWS; r++, to += stride) {
                Floats x = fma(total[r][v], scale, bias);
                if (ACTIVATES && epilogue == ACTIVATE) x = activate(model.activation, x);
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

} // namespace
