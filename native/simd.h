// The thin layer: one vector type each of float and int32, and the few operations that the kernels are written in.
// A target is chosen by the compiler's flags alone; kernels.cpp, with the headers that are part of it, is compiled once for each.
#pragma once
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define INLINE inline __attribute__((always_inline))

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4
#endif

typedef float Floats __attribute__((vector_size(LANES * 4)));
typedef int32_t Ints __attribute__((vector_size(LANES * 4)));

INLINE Floats load(const float *from) {
    Floats v;
    memcpy(&v, from, sizeof v);
    return v;
}
INLINE void store(float *to, Floats v) { memcpy(to, &v, sizeof v); }
INLINE Ints load_ints(const void *from) {
    Ints v;
    memcpy(&v, from, sizeof v);
    return v;
}
INLINE int32_t load_int(const int8_t *from) {
    int32_t v;
    memcpy(&v, from, 4);
    return v;
}
INLINE Floats bits_to_floats(Ints v) {
    Floats f;
    memcpy(&f, &v, sizeof f);
    return f;
}
INLINE Ints floats_to_bits(Floats v) {
    Ints i;
    memcpy(&i, &v, sizeof i);
    return i;
}
INLINE Floats to_floats(Ints v) { return __builtin_convertvector(v, Floats); }

// WEIGHT_OFFSET: 128 if dot() takes the bytes of a weight as unsigned (weight + 128), 0 if it takes the sign off itself.
// A sum of dot()s over activations a is then (true sum) + WEIGHT_OFFSET · Σa.
//
// ROWS_TOGETHER: rows of activations that are side by side in memory. A target with 2 has dot_pairs() beside dot().
//
// UNROLLED_QUADS: steps of four weights that an int8 tile takes at once; even, because two steps share cache lines to fetch.

#if LANES == 16 // ---------------------------------------------------------------------------------- AVX-512 VNNI

constexpr int WEIGHT_OFFSET = 128;
INLINE Floats splat(float x) { return (Floats)_mm512_set1_ps(x); }
INLINE Ints splat_int(int32_t x) { return (Ints)_mm512_set1_epi32(x); }
INLINE Floats fma(Floats a, Floats b, Floats c) { return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
INLINE Floats max(Floats a, Floats b) { return (Floats)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE Floats min(Floats a, Floats b) { return (Floats)_mm512_min_ps((__m512)a, (__m512)b); }
INLINE Ints round_to_ints(Floats a) { return (Ints)_mm512_cvtps_epi32((__m512)a); }
INLINE uint32_t bits_of_lanes(Ints mask) { return _mm512_movepi32_mask((__m512i)mask); }
INLINE Ints dot(Ints sum, Ints weights, int32_t activations) {
#if defined(__clang__)
    return (Ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)weights, _mm512_set1_epi32(activations));
#else // gcc 12 spills accumulators that an intrinsic writes
    __m512i s = (__m512i)sum;
    asm("vpdpbusd %2, %1, %0" : "+v"(s) : "v"((__m512i)weights), "v"(_mm512_set1_epi32(activations)));
    return (Ints)s;
#endif
}
// int8 keeps two accumulators for each vector, of the group and of the groups before it: 7 rows fit the registers. 8 rows
// alone are faster as one tile than as two.
constexpr int UNROLLED_QUADS = 4, TILE_VECTORS = 2, INT8_TILE_ROWS = 7, INT8_MOST_ROWS = 8, FLOAT_TILE_ROWS = 14;

#elif LANES == 8 // ------------------------------------------------------------------------------- AVX-VNNI, AVX2

INLINE Floats splat(float x) { return (Floats)_mm256_set1_ps(x); }
INLINE Ints splat_int(int32_t x) { return (Ints)_mm256_set1_epi32(x); }
INLINE Floats fma(Floats a, Floats b, Floats c) { return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
INLINE Floats max(Floats a, Floats b) { return (Floats)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE Floats min(Floats a, Floats b) { return (Floats)_mm256_min_ps((__m256)a, (__m256)b); }
INLINE Ints round_to_ints(Floats a) { return (Ints)_mm256_cvtps_epi32((__m256)a); }
INLINE uint32_t bits_of_lanes(Ints mask) { return (uint32_t)_mm256_movemask_ps((__m256)mask); }
#if defined(__AVXVNNI__)
constexpr int WEIGHT_OFFSET = 128;
INLINE Ints dot(Ints sum, Ints weights, int32_t activations) {
    return (Ints)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)weights, _mm256_set1_epi32(activations));
}
constexpr int UNROLLED_QUADS = 4;
#else
// vpmaddubsw would saturate on 8-bit weights without a sign: the sign of each activation goes to its weight instead.
constexpr int WEIGHT_OFFSET = 0;
INLINE Ints dot(Ints sum, Ints weights, int32_t activations) {
    const __m256i a = _mm256_set1_epi32(activations);
    const __m256i w = _mm256_xor_si256((__m256i)weights, _mm256_set1_epi8((char)0x80));
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(a), _mm256_sign_epi8(w, a));
    return (Ints)_mm256_add_epi32((__m256i)sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
constexpr int UNROLLED_QUADS = 2;
#endif
constexpr int TILE_VECTORS = 2, INT8_TILE_ROWS = 5, INT8_MOST_ROWS = 5, FLOAT_TILE_ROWS = 5;

#elif defined(__aarch64__) // ------------------------------------------------------ arm64 i8mm, dotprod, baseline

INLINE Floats splat(float x) { return (Floats)vdupq_n_f32(x); }
INLINE Ints splat_int(int32_t x) { return (Ints)vdupq_n_s32(x); }
INLINE Floats fma(Floats a, Floats b, Floats c) {
    return (Floats)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
INLINE Floats max(Floats a, Floats b) { return (Floats)vmaxq_f32((float32x4_t)a, (float32x4_t)b); }
INLINE Floats min(Floats a, Floats b) { return (Floats)vminq_f32((float32x4_t)a, (float32x4_t)b); }
INLINE Ints round_to_ints(Floats a) { return (Ints)vcvtnq_s32_f32((float32x4_t)a); }
INLINE uint32_t bits_of_lanes(Ints mask) {
    const uint32x4_t bits = {1, 2, 4, 8};
    return vaddvq_u32(vandq_u32((uint32x4_t)mask, bits));
}
#if defined(__ARM_FEATURE_MATMUL_INT8)
constexpr int WEIGHT_OFFSET = 128;
INLINE Ints dot(Ints sum, Ints weights, int32_t activations) {
    const int8x16_t a = vreinterpretq_s8_s32(vdupq_n_s32(activations));
    return (Ints)vusdotq_s32((int32x4_t)sum, (uint8x16_t)weights, a);
}
// 2 columns × 8 weights by 2 rows × 8 activations: sums of column 0 and row 0, 0 and 1, 1 and 0, 1 and 1.
#define DOTS_PAIRS 1
INLINE Ints dot_pairs(Ints sum, Ints weights, Ints activations) {
    return (Ints)vusmmlaq_s32((int32x4_t)sum, (uint8x16_t)weights, (int8x16_t)activations);
}
constexpr int ROWS_TOGETHER = 2, INT8_TILE_ROWS = 12, INT8_MOST_ROWS = 12;
// A tile of many rows shares the rearrangement of its weights, one of few rows what it does for each row.
constexpr int int8_vectors(int num_rows) { return num_rows <= 4 ? 4 : 2; }
#else
constexpr int WEIGHT_OFFSET = 0;
INLINE Ints dot(Ints sum, Ints weights, int32_t activations) {
    const int8x16_t w = veorq_s8((int8x16_t)weights, vdupq_n_s8((int8_t)-128));
    const int8x16_t a = vreinterpretq_s8_s32(vdupq_n_s32(activations));
#if defined(__ARM_FEATURE_DOTPROD)
    return (Ints)vdotq_s32((int32x4_t)sum, w, a);
#else
    const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(a)));
    const int32x4_t high = vpaddlq_s16(vmull_s8(vget_high_s8(w), vget_high_s8(a)));
    return (Ints)vaddq_s32((int32x4_t)sum, vpaddq_s32(low, high));
#endif
}
constexpr int INT8_TILE_ROWS = 4, INT8_MOST_ROWS = 4;
#endif
constexpr int UNROLLED_QUADS = 2, TILE_VECTORS = 4, FLOAT_TILE_ROWS = 6;

#elif defined(__x86_64__) // -------------------------------------------------------------------- baseline x86-64

constexpr int WEIGHT_OFFSET = 128;
INLINE Floats splat(float x) { return (Floats)_mm_set1_ps(x); }
INLINE Ints splat_int(int32_t x) { return (Ints)_mm_set1_epi32(x); }
INLINE Floats fma(Floats a, Floats b, Floats c) { return a * b + c; } // two roundings: SSE2 has no other
INLINE Floats max(Floats a, Floats b) { return (Floats)_mm_max_ps((__m128)a, (__m128)b); }
INLINE Floats min(Floats a, Floats b) { return (Floats)_mm_min_ps((__m128)a, (__m128)b); }
INLINE Ints round_to_ints(Floats a) { return (Ints)_mm_cvtps_epi32((__m128)a); }
INLINE uint32_t bits_of_lanes(Ints mask) { return (uint32_t)_mm_movemask_ps((__m128)mask); }
INLINE Ints dot(Ints sum, Ints weights, int32_t activations) {
    const __m128i zero = _mm_setzero_si128(), a8 = _mm_set1_epi32(activations);
    const __m128i a = _mm_srai_epi16(_mm_unpacklo_epi8(zero, a8), 8);
    const __m128 low = _mm_castsi128_ps(_mm_madd_epi16(_mm_unpacklo_epi8((__m128i)weights, zero), a));
    const __m128 high = _mm_castsi128_ps(_mm_madd_epi16(_mm_unpackhi_epi8((__m128i)weights, zero), a));
    const __m128i even = _mm_castps_si128(_mm_shuffle_ps(low, high, 0x88));
    const __m128i odd = _mm_castps_si128(_mm_shuffle_ps(low, high, 0xdd));
    return (Ints)_mm_add_epi32((__m128i)sum, _mm_add_epi32(even, odd));
}
constexpr int UNROLLED_QUADS = 2, TILE_VECTORS = 2, INT8_TILE_ROWS = 4, INT8_MOST_ROWS = 4, FLOAT_TILE_ROWS = 4;

#else
#error "no kernels for this processor"
#endif

#if !defined(DOTS_PAIRS)
constexpr int ROWS_TOGETHER = 1;
constexpr int int8_vectors(int) { return TILE_VECTORS; }
#endif

// bits_of_lanes(): a comparison's lanes as bits, the first one lowest.

// Lane i of the result is lane (i + WIDTH) % LANES.
template <int WIDTH, class Vector> INLINE Vector rotate(Vector v) {
#if LANES == 16
#define LANE(i) ((i) + WIDTH) % 16
    return __builtin_shufflevector(v, v, LANE(0), LANE(1), LANE(2), LANE(3), LANE(4), LANE(5), LANE(6), LANE(7),
                                   LANE(8), LANE(9), LANE(10), LANE(11), LANE(12), LANE(13), LANE(14), LANE(15));
#elif LANES == 8
#define LANE(i) ((i) + WIDTH) % 8
    return __builtin_shufflevector(v, v, LANE(0), LANE(1), LANE(2), LANE(3), LANE(4), LANE(5), LANE(6), LANE(7));
#else
#define LANE(i) ((i) + WIDTH) % 4
    return __builtin_shufflevector(v, v, LANE(0), LANE(1), LANE(2), LANE(3));
#endif
#undef LANE
}
// The sum of all lanes, always in the same order.
template <class Vector> INLINE Vector sum_everywhere(Vector v) {
#if LANES == 16
    v = v + rotate<8>(v);
#endif
#if LANES >= 8
    v = v + rotate<4>(v);
#endif
    v = v + rotate<2>(v);
    return v + rotate<1>(v);
}
INLINE float sum_lanes(Floats v) { return sum_everywhere(v)[0]; }
INLINE int32_t sum_lanes(Ints v) { return sum_everywhere(v)[0]; }
INLINE float max_lanes(Floats v) {
#if LANES == 16
    v = max(v, rotate<8>(v));
#endif
#if LANES >= 8
    v = max(v, rotate<4>(v));
#endif
    v = max(v, rotate<2>(v));
    return max(v, rotate<1>(v))[0];
}
INLINE Floats abs(Floats v) { return bits_to_floats(floats_to_bits(v) & 0x7fffffff); }
INLINE uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}
INLINE float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
INLINE float bf16_to_float(uint16_t bf16) { return float_of((uint32_t)bf16 << 16); }
INLINE Floats load_bf16(const uint16_t *from) { // LANES numbers
    typedef uint16_t Halves __attribute__((vector_size(LANES * 2)));
    typedef uint32_t Words __attribute__((vector_size(LANES * 4)));
    Halves h;
    memcpy(&h, from, sizeof h);
    return bits_to_floats((Ints)(__builtin_convertvector(h, Words) << 16));
}

// e^x; larger x than 88 count as 88, and below -87 it is 0. The relative error is 2e-7 near zero and 1.2e-6 near the ends
// (SSE2: 4e-6).
INLINE Floats exponential(Floats x) {
    constexpr float LOG2_E = 1.44269504f, SHIFT = 0x1.8p23f; // the nearest integer is in the lowest bits
    const Floats bounded = min(x, splat(88.0f));
    const Floats shifted = fma(bounded, splat(LOG2_E), splat(SHIFT));
    const Floats r = fma(bounded, splat(LOG2_E), splat(SHIFT) - shifted);
    Floats p = splat(1.535336188e-4f);
    p = fma(p, r, splat(1.339887440e-3f));
    p = fma(p, r, splat(9.618437358e-3f));
    p = fma(p, r, splat(5.550332471e-2f));
    p = fma(p, r, splat(2.402264791e-1f));
    p = fma(p, r, splat(6.931472029e-1f));
    p = fma(p, r, splat(1.0f));
    typedef uint32_t Words __attribute__((vector_size(LANES * 4))); // below -87 the sum overflows
    const Words bits = (Words)floats_to_bits(p) + ((Words)floats_to_bits(shifted) << 23);
    return bits_to_floats((Ints)bits & (Ints)(x > splat(-87.0f)));
}

INLINE Floats hyperbolic_tangent(Floats x) {
    // Near zero 1 - 2/(e^2x + 1) loses digits: a polynomial there (Cephes' tanhf).
    const Floats y = x * x;
    Floats p = splat(-5.70498872745e-3f);
    p = fma(p, y, splat(2.06390887954e-2f));
    p = fma(p, y, splat(-5.37397155531e-2f));
    p = fma(p, y, splat(1.33314422036e-1f));
    p = fma(p, y, splat(-3.33332819422e-1f));
    const Floats small = fma(p * y, x, x);
    const Floats magnitude = 1.0f - 2.0f / (exponential(2.0f * abs(x)) + 1.0f);
    const Floats large = bits_to_floats(floats_to_bits(magnitude) | (floats_to_bits(x) & (int32_t)0x80000000));
    const Ints is_small = (Ints)(abs(x) < splat(0.625f));
    return bits_to_floats((floats_to_bits(small) & is_small) | (floats_to_bits(large) & ~is_small));
}
// The Gauss error function, within 2e-7 (Abramowitz and Stegun 7.1.26 has 1.5e-7).
INLINE Floats error_function(Floats x) {
    const Floats magnitude = abs(x);
    const Floats t = 1.0f / fma(splat(0.3275911f), magnitude, splat(1.0f));
    Floats p = splat(1.061405429f);
    p = fma(p, t, splat(-1.453152027f));
    p = fma(p, t, splat(1.421413741f));
    p = fma(p, t, splat(-0.284496736f));
    p = fma(p, t, splat(0.254829592f));
    const Floats result = 1.0f - p * t * exponential(-magnitude * magnitude);
    return bits_to_floats(floats_to_bits(result) | (floats_to_bits(x) & (int32_t)0x80000000));
}
