// What is done to one row: embedding, layer norm, rounding to bytes. Part of kernels.cpp.
#pragma once
#include "products.h"

namespace {

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
        for (int k = 0; k < model.width; k++) output[k] = bf16_to_float(weights[(int64_t)k * PANEL]) + positions[k];
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
    Ints sum = splat_int(0), high_sum = splat_int(0);
    for (int i = 0; i < count; i += LANES) {
        const Ints q = round_to_ints(load(input + i) * factor), h = (q + 128) >> 8;
        sum = sum + q;
        high_sum = high_sum + h;
        // The low byte, with its sign, is q - 256 · h.
        const Bytes hb = __builtin_convertvector(h, Bytes), lb = __builtin_convertvector(q, Bytes);
        memcpy(high + i, &hb, LANES);
        memcpy(low + i, &lb, LANES);
    }
    sums[0] = sum_lanes(high_sum);
    sums[1] = sum_lanes(sum - high_sum * 256);
}

// What sums of products with both bytes are together.
INLINE Floats join_bytes(Ints high, Ints low) { return fma(to_floats(high), splat(256), to_floats(low)); }

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

} // namespace
