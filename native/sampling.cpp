// Samples tokens: written once against simd.h, compiled for each target (-DTARGET=name).
//
// A row's token is a function of its logits, its parameters, its seed and its position. Parameters apply in the order of
// `Draw`. Each row is sampled by inverse CDF with one random number: over all tokens in the order of their ids, or, if
// top-k, top-p or min-p truncate it, over the likeliest tokens in descending order, equals in the order of their ids.
//
// Two ways lead to the same token: from a whole row, of which the largest logits of groups of columns say where to read, or
// from shortlists, if the likeliest tokens of a row decide alone.
//
// Where a sampler goes: one that keeps a part of the likeliest tokens (a threshold, a number, a mass) is a line of
// sample_truncated(), beside top-p; one that keeps other tokens makes a smaller row of them first, as keep_typical();
// one that changes logits by what the sequence has is a logits processor, in Python. What a sampler remembers of earlier
// draws is a parameter of the next one, and Python's to keep, as mirostat's largest surprisal.
#include "sampling.h"

#include <math.h>

#include "simd.h"

namespace {

constexpr int VECTORS = SPAN_MAXIMA / LANES;
constexpr int FIRST_CANDIDATES = 64; // likeliest tokens tried first if only a mass bounds their number
constexpr int MAX_SORTED = 2048;     // a search for more tokens than this goes by their masses
constexpr double FLAT_ENTROPY = 4;   // in nats: a row with more has thousands of typical tokens

inline int smaller(int a, int b) { return a < b ? a : b; }
inline float larger(float a, float b) { return a > b ? a : b; }
inline float larger_or_nan(float a, float b) { return b <= a || a != a ? a : b; }
inline double smaller_of(double a, double b) { return a < b ? a : b; }

// Logits of `count` tokens, all of a vocabulary or some of them.
struct Row {
    const float *values;
    const float *maxima;      // of spans
    const int32_t *token_ids; // ascending; null: the columns are the tokens
    int count;
    float largest; // finite

    int token_of(int column) const { return token_ids ? token_ids[column] : column; }
};

// LANES columns from `first` on, -inf for those that the row has not.
INLINE Floats load_columns(const float *columns, int first, int count) {
    if (first + LANES <= count) return load(columns + first);
    float part[LANES];
    for (int i = 0; i < LANES; i++) part[i] = first + i < count ? columns[first + i] : -INFINITE;
    return load(part);
}

// ------------------------------------------------------------------------------------------------------- maxima

template <bool IS_WHOLE> INLINE void write_span_maxima(const float *columns, int num_columns, float *maxima) {
    Floats largest[VECTORS];
    Ints is_nan[VECTORS];
    for (int v = 0; v < VECTORS; v++) {
        largest[v] = splat(-INFINITE);
        is_nan[v] = splat_int(0);
    }
    for (int i = 0; i < SPAN; i += SPAN_MAXIMA)
        for (int v = 0; v < VECTORS; v++) {
            const int first = i + v * LANES;
            const Floats x = IS_WHOLE ? load(columns + first) : load_columns(columns, first, num_columns);
            largest[v] = max(largest[v], x);
            is_nan[v] |= (Ints)(x != x);
        }
    for (int v = 0; v < VECTORS; v++) // all bits set are a NaN
        store(maxima + v * LANES, bits_to_floats(floats_to_bits(largest[v]) | is_nan[v]));
}

void write_maxima(const float *columns, int num_columns, float *maxima) {
    if (num_columns >= SPAN) write_span_maxima<true>(columns, num_columns, maxima);
    else write_span_maxima<false>(columns, num_columns, maxima);
}

// NaN if there is one among `num`, a multiple of SPAN_MAXIMA.
float largest_of(const float *maxima, int num) {
    Floats largest = splat(-INFINITE);
    Ints is_nan = splat_int(0);
    for (int i = 0; i < num; i += LANES) {
        const Floats x = load(maxima + i);
        largest = max(largest, x);
        is_nan |= (Ints)(x != x);
    }
    return bits_of_lanes(is_nan) ? __builtin_nanf("") : max_lanes(largest);
}

int first_column_of_largest(const Row &row) {
    for (int span = 0; span < num_spans(row.count); span++) {
        const float *maxima = row.maxima + span * SPAN_MAXIMA;
        bool is_in = false;
        for (int i = 0; i < SPAN_MAXIMA; i++) is_in |= maxima[i] == row.largest;
        if (!is_in) continue;
        for (int column = span * SPAN;; column++)
            if (row.values[column] == row.largest) return column;
    }
    return 0; // not reached: the largest is in a span
}

// ------------------------------------------------------------------------------------------------ random numbers

// SplitMix64 (Steele, Lea and Flood 2014) over a counter: the seed's stream, then the position in it. Neighbouring seeds
// give unrelated streams, because the seed is mixed first.
uint64_t mix(uint64_t z) {
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}
// In [0, 1), with 53 random bits.
double uniform(uint64_t seed, int64_t position) {
    return (double)(mix(mix(seed) + ((uint64_t)position + 1) * 0x9e3779b97f4a7c15u) >> 11) * 0x1p-53;
}
// `uniform` times a positive total, kept below the total if the product rounds up.
double scaled(double uniform, double total) {
    const double point = uniform * total;
    if (point < total) return point;
    uint64_t bits;
    memcpy(&bits, &total, 8);
    bits--;
    memcpy(&total, &bits, 8);
    return total;
}

// -------------------------------------------------------------------------------------------------------- masses

// e^x for x of at most 0, to the last bit or two; 0 below -708.
inline double precise_exponential(double x) {
    const double bounded = x > -708.0 ? x : -708.0;
    const double shifted = bounded * 1.4426950408889634 + 0x1.8p52; // the nearest integer is in its lowest bits
    const double whole = shifted - 0x1.8p52;
    const double r = bounded - whole * 0x1.62e42fefa3800p-1 - whole * 0x1.ef35793c76730p-45; // ln 2 in two parts
    double p = 1.0 / 6227020800;
    p = p * r + 1.0 / 479001600;
    p = p * r + 1.0 / 39916800;
    p = p * r + 1.0 / 3628800;
    p = p * r + 1.0 / 362880;
    p = p * r + 1.0 / 40320;
    p = p * r + 1.0 / 5040;
    p = p * r + 1.0 / 720;
    p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24;
    p = p * r + 1.0 / 6;
    p = p * r + 0.5;
    p = p * r * r + r + 1.0;
    uint64_t bits;
    memcpy(&bits, &shifted, 8);
    bits = (bits + 1023) << 52;
    double power;
    memcpy(&power, &bits, 8);
    return x > -708.0 ? p * power : 0.0;
}

// e^((x - largest) · scale) of the columns of a span, in float32: as many as a span has, 0 behind the row's last.
struct SpanMasses {
    const Row &row;
    float scale;

    INLINE Floats exponents(int first, bool is_whole) const {
        const Floats x = is_whole ? load(row.values + first) : load_columns(row.values, first, row.count);
        return (x - row.largest) * scale;
    }
    bool is_whole(int span) const { return (span + 1) * SPAN <= row.count; }
    // Always in the same order, whatever the target's vectors are.
    INLINE float sum(int span) const {
        Floats sums[VECTORS];
        for (int v = 0; v < VECTORS; v++) sums[v] = splat(0);
        const bool whole = is_whole(span);
        for (int i = span * SPAN; i < (span + 1) * SPAN; i += SPAN_MAXIMA)
            for (int v = 0; v < VECTORS; v++) sums[v] = sums[v] + exponential(exponents(i + v * LANES, whole));
        for (int width = VECTORS / 2; width; width /= 2)
            for (int v = 0; v < width; v++) sums[v] = sums[v] + sums[v + width];
        return sum_lanes(sums[0]);
    }
    void write(int span, float *masses) const {
        for (int i = 0; i < SPAN; i += LANES)
            store(masses + i, exponential(exponents(span * SPAN + i, is_whole(span))));
    }
};

// Sums of the masses of all spans up to each. Returns the last, the row's.
double cumulate(const Row &row, float scale, double *cumulated) {
    const SpanMasses masses = {row, scale};
    double total = 0;
    for (int span = 0; span < num_spans(row.count); span++) cumulated[span] = total += masses.sum(span);
    return total;
}

// The first index of which the cumulated mass exceeds the point: one that has mass itself.
int find(const double *cumulated, int count, double point) {
    int begin = 0, end = count - 1;
    while (begin < end) {
        const int middle = (begin + end) / 2;
        if (cumulated[middle] > point) end = middle;
        else begin = middle + 1;
    }
    return begin;
}

int sample_all(const Row &row, const Draw &draw, double number, const SamplingScratch &scratch) {
    const float scale = (float)(1 / draw.temperature);
    const double point = scaled(number, cumulate(row, scale, scratch.cumulated));
    const int span = find(scratch.cumulated, num_spans(row.count), point);
    const double start = span ? scratch.cumulated[span - 1] : 0;
    alignas(64) float masses[SPAN];
    SpanMasses{row, scale}.write(span, masses);
    // The span's mass is a sum in float32: the point is found in its exact masses by its share of it.
    double cumulated[SPAN], total = 0;
    for (int i = 0; i < SPAN; i++) cumulated[i] = total += masses[i];
    const double share = (point - start) / (scratch.cumulated[span] - start);
    return row.token_of(span * SPAN + find(cumulated, SPAN, scaled(share, total)));
}

// ---------------------------------------------------------------------------------------------------- candidates

// Keys sort by their upper half, ascending: logits from the largest down. Their lower half is the column.
uint64_t descending_key(float value, int column) {
    const int32_t bits = (int32_t)bits_of(value + 0.0f); // -0 equals 0, but has other bits
    const uint32_t ascending = (uint32_t)(bits ^ (bits >> 31 & 0x7fffffff)) ^ 0x80000000u;
    return (uint64_t)~ascending << 32 | (uint32_t)column;
}
// The same for positive numbers, from the smallest up.
uint64_t ascending_key(float value, int column) { return (uint64_t)bits_of(value) << 32 | (uint32_t)column; }
int column_of(uint64_t key) { return (int)(uint32_t)key; }

// Sorts by the upper half; equals stay in their order (radix sort). Returns `keys` or `other`, which is written to.
uint64_t *sort(uint64_t *keys, uint64_t *other, int count) {
    constexpr int DIGITS = 4;
    int32_t begins[DIGITS][256] = {};
    for (int i = 0; i < count; i++)
        for (int digit = 0; digit < DIGITS; digit++) begins[digit][keys[i] >> (32 + 8 * digit) & 255]++;
    for (int digit = 0; digit < DIGITS; digit++) {
        int32_t *const place = begins[digit], shift = 32 + 8 * digit;
        if (!count || place[keys[0] >> shift & 255] == count) continue; // all have the same
        int32_t begin = 0;
        for (int value = 0; value < 256; value++) {
            const int32_t num = place[value];
            place[value] = begin;
            begin += num;
        }
        for (int i = 0; i < count; i++) other[place[keys[i] >> shift & 255]++] = keys[i];
        uint64_t *const swapped = keys;
        keys = other;
        other = swapped;
    }
    return keys;
}

int count_from(const float *values, int count, float least) {
    Ints hits = splat_int(0);
    const int whole = count / LANES * LANES;
    for (int i = 0; i < whole; i += LANES) hits = hits - (Ints)(load(values + i) >= splat(least));
    int32_t total = sum_lanes(hits);
    for (int i = whole; i < count; i++) total += values[i] >= least;
    return total;
}

// A number that `wanted` of the values reach, and few more; LOWEST if fewer are above -inf. `largest`: of the values.
float reached_by(const float *values, int count, int wanted, float largest) {
    float below = largest, above = largest; // the search is between: enough values reach `below`
    for (float distance = 1;; distance *= 2) {
        below = larger(largest - distance, LOWEST);
        const int num = count_from(values, count, below);
        if (num >= wanted && num <= wanted + wanted / 8) return below;
        if (num >= wanted) break;
        if (below == LOWEST) return LOWEST;
        above = below;
    }
    for (;;) {
        const float middle = below / 2 + above / 2;
        if (!(middle > below && middle < above)) return below;
        const int num = count_from(values, count, middle);
        if (num < wanted) above = middle;
        else if (num <= wanted + wanted / 8) return middle;
        else below = middle;
    }
}

// The number that at least `wanted` columns reach, and few more; LOWEST if fewer are above -inf.
float reached_by_columns(const Row &row, int wanted) {
    const int num = num_maxima(row.count);
    // As many columns as maxima reach a number, so few that they decide are few columns.
    if (wanted <= num / 2) return reached_by(row.maxima, num, wanted, row.largest);
    if (wanted >= row.count) return LOWEST;
    return reached_by(row.values, row.count, wanted, row.largest);
}

// Calls use(column) for each column from `least` to `most`, in order, or for all of the first spans until is_enough().
template <class Use, class IsEnough>
INLINE void each_column(const Row &row, float least, float most, Use use, IsEnough is_enough) {
    for (int span = 0; span < num_spans(row.count) && !is_enough(); span++) {
        uint32_t hits = 0;
        for (int v = 0; v < VECTORS; v++)
            hits |= bits_of_lanes((Ints)(load(row.maxima + span * SPAN_MAXIMA + v * LANES) >= splat(least)));
        if (!hits) continue;
        const int end = smaller((span + 1) * SPAN, row.count);
        for (int first = span * SPAN; first < end; first += LANES) {
            const Floats x = load_columns(row.values, first, row.count);
            uint32_t bits = bits_of_lanes((Ints)(x >= splat(least)) & (Ints)(x <= splat(most)));
            for (; bits; bits &= bits - 1) use(first + __builtin_ctz(bits));
        }
    }
}

template <class Use> INLINE void each_column(const Row &row, float least, float most, Use use) {
    each_column(row, least, most, use, [] { return false; });
}

struct Candidates {
    const uint64_t *keys; // sorted
    int count;
    bool is_all; // no other column is above -inf
};

// All columns from `least` on, the likeliest first. `least` is above -inf.
Candidates find_candidates(const Row &row, float least, const SamplingScratch &scratch) {
    int count = 0;
    each_column(row, least, INFINITE,
                [&](int column) { scratch.keys[count++] = descending_key(row.values[column], column); });
    return {sort(scratch.keys, scratch.sorted, count), count, least == LOWEST};
}

// ------------------------------------------------------------------------------------------ masses by a distance

constexpr float LEAST_EXPONENT = -120; // its mass is nearly 0 in float32: smaller exponents have no weight

INLINE Floats exponents_of(const Row &row, float scale, Floats x) {
    return max((x - row.largest) * scale, splat(LEAST_EXPONENT));
}
float exponent_of(float value, float largest, float scale) { return larger((value - largest) * scale, LEAST_EXPONENT); }

// Which tokens have a mass together, counted from the nearest, takes no sorted row: it is known from the masses of buckets,
// by distance, and from the tokens of one of them. A bucket is a 128th of a power of two wide, from 2^-10 on; the first has
// all that is nearer. Distances are functions of exponents, and below 128.
constexpr int BUCKET_SHIFT = 16, FIRST_BUCKET = (127 - 10) << 7, NUM_BUCKETS = 17 << 7;

float nearest_of(int bucket) { return bucket ? float_of((uint32_t)(FIRST_BUCKET + bucket) << BUCKET_SHIFT) : 0; }
float farthest_of(int bucket) { return float_of(((uint32_t)(FIRST_BUCKET + bucket + 1) << BUCKET_SHIFT) - 1); }

template <class Distance> INLINE void add_masses(const Row &row, float scale, Distance distance, double *buckets) {
    for (int first = 0; first < row.count; first += LANES) {
        const Floats exponents = exponents_of(row, scale, load_columns(row.values, first, row.count));
        const Floats masses = exponential(exponents);
        Ints indices = (floats_to_bits(distance(exponents)) >> BUCKET_SHIFT) - FIRST_BUCKET;
        indices &= ~(indices >> 31); // at least 0
        for (int i = 0; i < LANES; i++) buckets[indices[i]] += masses[i];
    }
}

// The bucket in which the cumulated mass reaches `mass`; `before`: of the nearer ones.
int find_bucket(const double *buckets, double mass, double *before) {
    int bucket = 0;
    *before = 0;
    while (bucket < NUM_BUCKETS - 1 && *before + buckets[bucket] < mass) *before += buckets[bucket++];
    return bucket;
}

// Calls use(column) for each column above -inf with a distance from `nearest` to `farthest`, in order.
template <class Distance, class Use>
INLINE void each_within(const Row &row, float scale, Distance distance, float nearest, float farthest, Use use) {
    for (int first = 0; first < row.count; first += LANES) {
        const Floats x = load_columns(row.values, first, row.count);
        const Floats far = distance(exponents_of(row, scale, x));
        uint32_t bits =
            bits_of_lanes((Ints)(x >= splat(LOWEST)) & (Ints)(far >= splat(nearest)) & (Ints)(far <= splat(farthest)));
        for (; bits; bits &= bits - 1) use(first + __builtin_ctz(bits));
    }
}

// ------------------------------------------------------------------------------------------------ truncated rows

// The logit from which on masses reach this share of the largest, or a little less.
float least_of_share(const Row &row, double temperature, double share) {
    if (share <= 0) return LOWEST;
    const double below = log(share) * temperature;
    const double least = row.largest + below - (1e-6 * (fabs((double)row.largest) - below) + 1e-9 * temperature);
    return least > LOWEST ? (float)least : LOWEST;
}

// e^((logit - largest) / temperature) of a candidate.
double mass_of_candidate(const Row &row, double scale, uint64_t key) {
    return precise_exponential(((double)row.values[column_of(key)] - row.largest) * scale);
}

// How many of the likeliest tokens XTC ("exclude top choices", Weidmann 2024) excludes, of `num` with these keys: all
// that have the share `threshold` of `total`, but the last of them.
int count_excluded(const Row &row, double scale, const uint64_t *keys, int num, double threshold, double total) {
    int num_reaching = 0;
    for (; num_reaching < num; num_reaching++) {
        const double mass = mass_of_candidate(row, scale, keys[num_reaching]);
        if (mass < threshold * total || mass == 0) break;
    }
    return num_reaching ? num_reaching - 1 : 0;
}

// Draws one of `num` candidates, the likeliest first, of which `masses` are the cumulated ones; they may be the first of
// more, and `total` is the mass of all. `excludes`: XTC does, in this draw.
int draw_candidate(const Row &row, const Draw &draw, const uint64_t *keys, const double *masses, int num, double total,
                   double number, bool excludes, double *surprisal) {
    const double scale = 1 / draw.temperature;
    const int first = excludes ? count_excluded(row, scale, keys, num, draw.xtc_threshold, total) : 0;
    const double before = first ? masses[first - 1] : 0;
    if (draw.largest_surprisal < INFINITE) { // mirostat 2 (Basu et al. 2021)
        const double least = exp2(-draw.largest_surprisal) * (total - before);
        while (num > first + 1 && mass_of_candidate(row, scale, keys[num - 1]) < least) num--;
    }
    const double kept = masses[num - 1] - before;
    const int index = first + find(masses + first, num - first, before + scaled(number, kept));
    *surprisal = -log2(mass_of_candidate(row, scale, keys[index]) / kept);
    return row.token_of(column_of(keys[index]));
}

// Top-p that keeps thousands of tokens: `goal` is the mass that it keeps.
int sample_wide_top_p(const Row &row, const Draw &draw, double number, double goal, const SamplingScratch &scratch) {
    const double scale = 1 / draw.temperature;
    const auto distance = [](Floats exponents) { return abs(exponents); }; // from the likeliest
    double buckets[NUM_BUCKETS] = {};
    add_masses(row, (float)scale, distance, buckets);
    double *const masses = scratch.masses;
    const auto list = [&](int bucket, double before, int *count) {
        int num = 0;
        each_within(row, (float)scale, distance, nearest_of(bucket), farthest_of(bucket),
                    [&](int column) { scratch.keys[num++] = descending_key(row.values[column], column); });
        const uint64_t *keys = sort(scratch.keys, scratch.sorted, num);
        for (int i = 0; i < num; i++) masses[i] = before += mass_of_candidate(row, scale, keys[i]);
        *count = num;
        return keys;
    };
    double before;
    const int last = find_bucket(buckets, goal, &before);
    int count;
    const uint64_t *keys = list(last, before, &count);
    int num = 0; // of the bucket's tokens before the goal
    while (num < count - 1 && masses[num] < goal) num++;
    const double point = scaled(number, masses[num]);
    if (point < before) {
        const int bucket = find_bucket(buckets, point, &before);
        keys = list(bucket, before, &count);
        num = count - 1;
    }
    return row.token_of(column_of(keys[find(masses, num + 1, point)]));
}

int sample_truncated(const Row &row, const Draw &draw, double number, bool excludes, const SamplingScratch &scratch,
                     double *surprisal) {
    const bool has_top_k = draw.top_k > 0 && draw.top_k < row.count, has_top_p = draw.top_p < 1;
    const bool has_limit = draw.largest_surprisal < INFINITE,
               is_limit_alone = !has_top_k && !has_top_p && !(draw.min_p > 0);
    const double scale = 1 / draw.temperature;
    double whole = INFINITE; // the mass of the row
    if (!has_top_k && (has_top_p || is_limit_alone)) whole = cumulate(row, (float)scale, scratch.cumulated);
    double goal = has_top_p ? draw.top_p * whole : INFINITE; // the mass that top-p keeps
    // Where top-k and top-p both hold, top-p is of the mass of all top-k tokens: min-p must not take any of them first.
    float least = LOWEST;
    if (is_limit_alone) {
        const double share = exp2(-draw.largest_surprisal) * whole; // of the largest mass, which is 1
        least = least_of_share(row, draw.temperature, smaller_of(share, 1));
    } else if (!(has_top_k && has_top_p)) least = least_of_share(row, draw.temperature, draw.min_p);
    double *const masses = scratch.masses; // cumulated below
    for (int64_t wanted = has_top_k ? draw.top_k : has_top_p ? FIRST_CANDIDATES : row.count;; wanted *= 8) {
        const float reached = reached_by_columns(row, (int)(wanted < row.count ? wanted : row.count));
        const Candidates candidates = find_candidates(row, larger(reached, least), scratch);
        const uint64_t *const keys = candidates.keys;
        int num = has_top_k ? smaller(candidates.count, draw.top_k) : candidates.count;
        for (int i = 0; i < num; i++) masses[i] = mass_of_candidate(row, scale, keys[i]);
        int num_above = num; // of min-p
        while (num_above > 1 && masses[num_above - 1] < draw.min_p) num_above--;
        for (int i = 1; i < num; i++) masses[i] += masses[i - 1];
        if (has_top_p) {
            if (has_top_k) goal = draw.top_p * masses[num - 1];
            else if (masses[num - 1] < goal && num_above == num && reached > least && !candidates.is_all) {
                if (excludes || has_limit) continue; // these need the kept mass itself
                // The cut is behind these candidates: the kept mass is the goal and at most a mass as the last one's
                // more. Nearly always that is enough to know where the point falls.
                const double last = num > 1 ? masses[num - 1] - masses[num - 2] : masses[0];
                const int first = find(masses, num, scaled(number, goal));
                if (masses[first] > scaled(number, goal + last)) return row.token_of(column_of(keys[first]));
                if (wanted > FIRST_CANDIDATES && !(draw.min_p > 0))
                    return sample_wide_top_p(row, draw, number, goal, scratch);
                continue;
            }
            int num_before = 0; // the goal: these are kept, and the one that reaches it
            while (num_before < num - 1 && masses[num_before] < goal) num_before++;
            num = num_before + 1;
        }
        num = smaller(num, num_above);
        const double total = is_limit_alone ? whole : masses[num - 1];
        return draw_candidate(row, draw, keys, masses, num, total, number, excludes, surprisal);
    }
}

// ---------------------------------------------------------------------------------------------------- smaller rows

// A row with a part of the columns, in their order: each is added behind the `count` before it. In place if the row is the
// scratch's own, because no column comes before its number.
int add_to_scratch(const Row &row, int column, const SamplingScratch &scratch, int count) {
    scratch.token_ids[count] = row.token_of(column);
    scratch.values[count] = row.values[column];
    return count + 1;
}
Row scratch_row(const SamplingScratch &scratch, int count) {
    for (int span = 0; span < num_spans(count); span++)
        write_maxima(scratch.values + span * SPAN, count - span * SPAN, scratch.maxima + span * SPAN_MAXIMA);
    return {scratch.values, scratch.maxima, scratch.token_ids, count, largest_of(scratch.maxima, num_maxima(count))};
}

// The tokens within `top_n_sigma` standard deviations of the largest logit (Tang et al. 2024). Banned tokens, of which the
// logit is -inf, don't count.
Row keep_top_n_sigma(const Row &row, const Draw &draw, const SamplingScratch &scratch) {
    double sums[SPAN_MAXIMA] = {}, squares[SPAN_MAXIMA] = {},
           nums[SPAN_MAXIMA] = {}; // in the same order on every target
    for (int first = 0; first < row.count; first += SPAN_MAXIMA) {
        float part[SPAN_MAXIMA];
        const int num = smaller(SPAN_MAXIMA, row.count - first);
        for (int i = 0; i < SPAN_MAXIMA; i++) part[i] = i < num ? row.values[first + i] : -INFINITE;
        for (int i = 0; i < SPAN_MAXIMA; i++) {
            const bool is_counted = part[i] > -INFINITE;
            const double below = is_counted ? (double)part[i] - row.largest : 0;
            sums[i] += below;
            squares[i] += below * below;
            nums[i] += is_counted;
        }
    }
    for (int i = 1; i < SPAN_MAXIMA; i++) {
        sums[0] += sums[i];
        squares[0] += squares[i];
        nums[0] += nums[i];
    }
    const double mean = sums[0] / nums[0], variance = squares[0] / nums[0] - mean * mean;
    const double least = row.largest - draw.top_n_sigma * sqrt(variance > 0 ? variance : 0);
    float bound = least > LOWEST ? (float)least : LOWEST;
    if (bound < least) bound = nextafterf(bound, INFINITE);
    int count = 0;
    each_column(row, bound, INFINITE, [&](int column) { count = add_to_scratch(row, column, scratch, count); });
    return scratch_row(scratch, count);
}

// The row without the tokens that XTC excludes.
Row exclude_top_choices(const Row &row, const Draw &draw, const SamplingScratch &scratch) {
    const double scale = 1 / draw.temperature;
    const double total = cumulate(row, (float)scale, scratch.cumulated);
    const float least = least_of_share(row, draw.temperature, smaller_of(draw.xtc_threshold * total, 1));
    const Candidates candidates = find_candidates(row, least, scratch);
    const int num = count_excluded(row, scale, candidates.keys, candidates.count, draw.xtc_threshold, total);
    if (!num) return row;
    if (row.values != scratch.values) {
        memcpy(scratch.values, row.values, sizeof(float) * (size_t)row.count);
        memcpy(scratch.maxima, row.maxima, sizeof(float) * (size_t)num_maxima(row.count));
    }
    for (int i = 0; i < num; i++) {
        const int column = column_of(candidates.keys[i]), begin = column / SPAN * SPAN;
        scratch.values[column] = -INFINITE;
        write_maxima(scratch.values + begin, row.count - begin, scratch.maxima + begin / SPAN * SPAN_MAXIMA);
    }
    const float largest = row.values[column_of(candidates.keys[num])];
    return {scratch.values, scratch.maxima, row.token_ids, row.count, largest};
}

// ------------------------------------------------------------------------------------------------------- typical

struct Information {
    double total; // of the masses
    double mean;  // of the exponents, by their masses: the entropy is log(total) - mean
};
Information measure(const Row &row, float scale) {
    double total = 0, weighted = 0;
    for (int first = 0; first < row.count; first += SPAN) {
        Floats masses[VECTORS], products[VECTORS];
        for (int v = 0; v < VECTORS; v++) masses[v] = products[v] = splat(0);
        for (int i = first; i < first + SPAN; i += SPAN_MAXIMA)
            for (int v = 0; v < VECTORS; v++) {
                const Floats x = exponents_of(row, scale, load_columns(row.values, i + v * LANES, row.count));
                const Floats mass = exponential(x);
                masses[v] = masses[v] + mass;
                products[v] = products[v] + mass * x;
            }
        for (int width = VECTORS / 2; width; width /= 2)
            for (int v = 0; v < width; v++) {
                masses[v] = masses[v] + masses[v + width];
                products[v] = products[v] + products[v + width];
            }
        total += sum_lanes(masses[0]);
        weighted += sum_lanes(products[0]);
    }
    return {total, weighted / total};
}

// Zhu et al. 2024 (EDT), in llama.cpp's form: the temperature follows the row's entropy at temperature 1, as a share of the
// entropy of as many equally likely tokens.
double dynamic_temperature(const Row &row, const Draw &draw) {
    const int num = count_from(row.values, row.count, LOWEST);
    if (num < 2) return draw.temperature;
    const Information information = measure(row, 1);
    const double share = (log(information.total) - information.mean) / log((double)num);
    const double lowest = draw.temperature > draw.dynatemp_range ? draw.temperature - draw.dynatemp_range : 0;
    const double highest = draw.temperature + draw.dynatemp_range;
    return lowest + (highest - lowest) * pow(smaller_of(share > 0 ? share : 0, 1), draw.dynatemp_exponent);
}

// The typical tokens in a row of their own: the nearest ones, which together reach the mass `goal`.
Row keep_many_typical(const Row &row, float scale, float mean, double goal, const SamplingScratch &scratch) {
    const auto distance = [&](Floats exponents) { return abs(exponents - mean); };
    double buckets[NUM_BUCKETS] = {};
    add_masses(row, scale, distance, buckets);
    double reached;
    const int bucket = find_bucket(buckets, goal, &reached);
    const float nearest = nearest_of(bucket);
    int num = 0, count = 0; // tokens up to the bucket's end, and those in it: their keys have numbers of the first
    each_within(row, scale, distance, 0, farthest_of(bucket), [&](int column) {
        const float far = __builtin_fabsf(exponent_of(row.values[column], row.largest, scale) - mean);
        if (far >= nearest) scratch.keys[count++] = ascending_key(far, num);
        num = add_to_scratch(row, column, scratch, num);
    });
    const float largest = row.largest;
    const uint64_t *const keys = sort(scratch.keys, scratch.sorted, count);
    int last = 0; // the one that reaches the goal
    for (; last < count - 1; last++) {
        reached += precise_exponential((double)exponent_of(scratch.values[column_of(keys[last])], largest, scale));
        if (reached >= goal) break;
    }
    for (int i = last; i < count; i++) // of equal distances all
        if (keys[i] >> 32 > keys[last] >> 32) scratch.values[column_of(keys[i])] = -INFINITE;
    return scratch_row(scratch, num);
}

// The same for few tokens, which are sorted.
Row keep_few_typical(const Row &row, float scale, float mean, double goal, const SamplingScratch &scratch) {
    for (float width = 1;; width *= 2) { // in nats
        const double middle = row.largest + mean / (double)scale, reach = 1.0001 * width / scale;
        if (mean - width <= LEAST_EXPONENT || !(middle - reach > LOWEST))
            return keep_many_typical(row, scale, mean, goal, scratch);
        int count = 0;
        const auto add = [&](int column) {
            const float far = __builtin_fabsf(exponent_of(row.values[column], row.largest, scale) - mean);
            if (far <= width) scratch.keys[count++] = ascending_key(far, column);
        };
        const auto is_enough = [&] { return count > MAX_SORTED; };
        each_column(row, (float)(middle - reach), (float)(middle + reach), add, is_enough);
        if (is_enough()) return keep_many_typical(row, scale, mean, goal, scratch);
        uint64_t *const keys = sort(scratch.keys, scratch.sorted, count);
        double reached = 0;
        int last = 0; // the one that reaches the goal
        for (; last < count; last++) {
            reached += precise_exponential((double)exponent_of(row.values[column_of(keys[last])], row.largest, scale));
            if (reached >= goal) break;
        }
        if (last == count) continue;
        // In order again; of equal distances all.
        uint64_t *const ordered = keys == scratch.keys ? scratch.sorted : scratch.keys;
        int num_kept = 0;
        for (int i = 0; i < count && keys[i] >> 32 <= keys[last] >> 32; i++) ordered[num_kept++] = keys[i] << 32;
        const uint64_t *const columns = sort(ordered, keys, num_kept);
        int num = 0;
        for (int i = 0; i < num_kept; i++) num = add_to_scratch(row, (int)(columns[i] >> 32), scratch, num);
        return scratch_row(scratch, num);
    }
}

// The tokens whose information is nearest to the entropy (Meister et al. 2023), until their probability reaches
// `typical_p`: at least one, and of equal distances all or none. As `TypicalLogitsWarper` of transformers.
Row keep_typical(const Row &row, const Draw &draw, const SamplingScratch &scratch) {
    const float scale = (float)(1 / draw.temperature);
    const Information information = measure(row, scale);
    // -log p is log(total) - exponent, and the entropy is its mean: the logarithm cancels in their difference.
    const float mean = (float)information.mean;
    const double goal = draw.typical_p * information.total;
    if (log(information.total) - information.mean > FLAT_ENTROPY)
        return keep_many_typical(row, scale, mean, goal, scratch);
    return keep_few_typical(row, scale, mean, goal, scratch);
}

// ---------------------------------------------------------------------------------------------------------- draw

constexpr double GREEDY_TEMPERATURE = 1e-5; // lower ones would overflow: as core/params.py has it

int sample(Row row, Draw draw, int position, const SamplingScratch &scratch, double *surprisal) {
    const int num_columns = row.count;
    if (draw.top_n_sigma > 0) row = keep_top_n_sigma(row, draw, scratch);
    if (draw.dynatemp_range > 0) draw.temperature = dynamic_temperature(row, draw);
    if (draw.temperature < GREEDY_TEMPERATURE) return row.token_of(first_column_of_largest(row));
    if (draw.typical_p < 1) row = keep_typical(row, draw, scratch);
    if (draw.top_k == 1) return row.token_of(first_column_of_largest(row));
    const double number = uniform(draw.seed, position);
    const bool is_truncated = (draw.top_k > 0 && draw.top_k < num_columns) || draw.top_p < 1 || draw.min_p > 0;
    // A random number of its own: the complement's stream is unrelated.
    bool excludes = draw.xtc_threshold <= 0.5 && uniform(~draw.seed, position) < draw.xtc_probability;
    if (excludes && !is_truncated) {
        row = exclude_top_choices(row, draw, scratch);
        excludes = false;
    }
    if (is_truncated || draw.largest_surprisal < INFINITE)
        return sample_truncated(row, draw, number, excludes, scratch, surprisal);
    return sample_all(row, draw, number, scratch);
}

// From a row of which the largest logit is known.
int draw_row(const Row &row, const Draw &draw, int position, const SamplingScratch &scratch, float *largest,
             double *surprisal) {
    *largest = row.largest;
    *surprisal = 0;
    if (!__builtin_isfinite(row.largest)) return -1;
    if (draw.temperature > 0) return sample(row, draw, position, scratch, surprisal);
    return row.token_of(first_column_of_largest(row));
}

int draw(const Draw &draw, int position, const float *logits, const float *maxima, int num_columns,
         const SamplingScratch &scratch, float *largest, double *surprisal) {
    const Row row = {logits, maxima, nullptr, num_columns, largest_of(maxima, num_maxima(num_columns))};
    return draw_row(row, draw, position, scratch, largest, surprisal);
}

// ----------------------------------------------------------------------------------------------------- shortlists

// Leaves the `wanted` likeliest tokens, of equal ones the first, and few more.
void shorten(Shortlist &list, int wanted) {
    const float reached = reached_by(list.values, list.count, wanted, list.largest);
    Floats lowest = splat(INFINITE); // of the tokens that reach it
    for (int first = 0; first < list.count; first += LANES) {
        const Floats x = load_columns(list.values, first, list.count);
        lowest = min(lowest, x >= splat(reached) ? x : splat(INFINITE));
    }
    const float least = -max_lanes(-lowest);
    int num_equal = wanted - count_from(list.values, list.count, nextafterf(least, INFINITE)), count = 0;
    for (int first = 0; first < list.count; first += LANES) {
        const Floats x = load_columns(list.values, first, list.count);
        for (uint32_t bits = bits_of_lanes((Ints)(x >= splat(least))); bits; bits &= bits - 1) {
            const int i = first + __builtin_ctz(bits);
            const float value = list.values[i];
            list.values[count] = value;
            list.token_ids[count] = list.token_ids[i];
            const bool is_equal = value == least;
            count += !is_equal || num_equal > 0;
            num_equal -= is_equal;
        }
    }
    list.least = least;
    list.count = count;
}

// Adds the columns that reach the list's `least`, and those that are NaN.
template <bool IS_WHOLE> INLINE void add_columns(Shortlist &list, const float *columns, int num_columns, int token_id) {
    constexpr int TOGETHER = 64; // columns for one branch, which is hardly ever taken
    const Floats least = splat(list.least);
    for (int first = 0; first < SPAN; first += TOGETHER) {
        uint64_t bits = 0;
#pragma GCC unroll 16
        for (int i = 0; i < TOGETHER; i += LANES) {
            const Floats x = IS_WHOLE ? load(columns + first + i) : load_columns(columns, first + i, num_columns);
            bits |= (uint64_t)bits_of_lanes(~(Ints)(x < least)) << i;
        }
        for (; bits; bits &= bits - 1) {
            const int column = first + __builtin_ctzll(bits);
            list.largest = larger_or_nan(list.largest, columns[column]);
            list.values[list.count] = columns[column];
            list.token_ids[list.count++] = token_id + column;
        }
    }
}

void add_span(Shortlist &list, int num_deciding, const float *columns, int num_columns, int token_id) {
    const int num = smaller(num_columns, SPAN);
    if (list.least == LOWEST) { // the first span: its own likeliest tokens are a bound
        alignas(64) float maxima[SPAN_MAXIMA];
        write_maxima(columns, num, maxima);
        const float largest = largest_of(maxima, SPAN_MAXIMA);
        if (__builtin_isfinite(largest)) list.least = reached_by(columns, num, num_deciding, largest);
    }
    if (num == SPAN) add_columns<true>(list, columns, num, token_id);
    else add_columns<false>(list, columns, num, token_id);
    if (list.largest == INFINITE || list.largest != list.largest) list.count = 0; // nothing can be drawn
    // Sooner, more time would go to this than to what it keeps from being added.
    else if (list.count >= 64 && list.count >= 2 * num_deciding) shorten(list, num_deciding);
}

// The tokens of all lists in a row of their own, in the order of their ids: the likeliest ones, and a few more.
Row merge(const Shortlist *lists, int num_lists, float largest, int wanted, int num_columns,
          const SamplingScratch &scratch) {
    int count = 0;
    for (int i = 0; i < num_lists; i++)
        for (int j = 0; j < lists[i].count; j++, count++) {
            scratch.values[count] = lists[i].values[j];
            scratch.keys[count] = (uint64_t)(uint32_t)lists[i].token_ids[j] << 32 | bits_of(lists[i].values[j]);
        }
    const float least = reached_by(scratch.values, count, wanted, largest);
    int num = 0;
    for (int i = 0; i < count; i++) {
        scratch.keys[num] = scratch.keys[i];
        num += scratch.values[i] >= least;
    }
    const uint64_t *const keys = sort(scratch.keys, scratch.sorted, num);
    for (int i = 0; i < num; i++) {
        scratch.token_ids[i] = (int32_t)(keys[i] >> 32);
        scratch.values[i] = float_of((uint32_t)keys[i]);
    }
    // As the whole row, this one has tokens that can't be drawn, if too few can.
    for (; num < smaller(wanted, num_columns); num++) {
        scratch.token_ids[num] = 0;
        scratch.values[num] = -INFINITE;
    }
    return scratch_row(scratch, num);
}

int draw_from(const Draw &draw, int position, const Shortlist *lists, int num_lists, int num_columns,
              const SamplingScratch &scratch, float *largest, double *surprisal) {
    Row row = {};
    row.largest = -INFINITE;
    for (int i = 0; i < num_lists; i++) row.largest = larger_or_nan(row.largest, lists[i].largest);
    if (__builtin_isfinite(row.largest))
        row = merge(lists, num_lists, row.largest, num_deciding(draw), num_columns, scratch);
    return draw_row(row, draw, position, scratch, largest, surprisal);
}

// --------------------------------------------------------------------------------------------------------- score

double score(const Draw &draw, int token_id, const float *logits, const float *maxima, int num_columns,
             const SamplingScratch &scratch, int32_t *top_ids, double *top_logprobs) {
    const Row row = {logits, maxima, nullptr, num_columns, largest_of(maxima, num_maxima(num_columns))};
    const int num_top = smaller(draw.num_top, num_columns);
    if (!__builtin_isfinite(row.largest)) {
        for (int i = 0; i < num_top; i++) {
            top_ids[i] = i;
            top_logprobs[i] = __builtin_nan("");
        }
        return __builtin_nan("");
    }
    // Equal logits have equal log-probabilities: the denominator is the same.
    const double denominator = row.largest + log(cumulate(row, 1, scratch.cumulated));
    if (num_top == 1) {
        top_ids[0] = first_column_of_largest(row);
        top_logprobs[0] = row.largest - denominator;
    } else if (num_top > 1) {
        const Candidates candidates = find_candidates(row, reached_by_columns(row, num_top), scratch);
        const int num = smaller(num_top, candidates.count);
        for (int i = 0; i < num; i++) {
            top_ids[i] = column_of(candidates.keys[i]);
            top_logprobs[i] = logits[top_ids[i]] - denominator;
        }
        for (int i = num, column = 0; i < num_top; column++) // the others are equals: -inf
            if (logits[column] == -INFINITE) {
                top_ids[i] = column;
                top_logprobs[i++] = -INFINITE;
            }
    }
    return logits[token_id] - denominator;
}

} // namespace

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
extern const Sampling JOIN(TARGET, _sampling);
const Sampling JOIN(TARGET, _sampling) = {write_maxima, draw, add_span, draw_from, score};
