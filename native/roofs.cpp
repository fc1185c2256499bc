// What this machine can do at most: bytes read and products of int8 per second, by the threads of the pool.
//
//     roofs THREADS BYTES       prints two numbers: bytes/s of reading BYTES again and again, products/s
//
// Compiled for one target (-DTARGET=name): the products are those of its dot(), or of its dot_pairs() or its tiles if it has
// them, with all operands in registers. Tiles multiply each weight by two bytes, which are one product here.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "simd.h"
#include "threads.h"
#include "tiles.h"

namespace {

constexpr int64_t CHUNK = 1 << 16; // bytes that an item reads: as the matmuls read a few panels
constexpr int TURNS = 200000, REPEATS = 15;

struct Memory {
    const uint8_t *bytes;
    int32_t sums[256];
};

double now() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

void read_chunk(void *context, int item, int thread) {
    Memory *memory = (Memory *)context;
    const uint8_t *from = memory->bytes + item * CHUNK;
    constexpr int VECTORS = 8, STRIDE = VECTORS * LANES * 4;
    Ints sum[VECTORS] = {};
    for (int64_t i = 0; i < CHUNK; i += STRIDE)
        for (int v = 0; v < VECTORS; v++) sum[v] ^= load_ints(from + i + v * LANES * 4);
    for (int v = 1; v < VECTORS; v++) sum[0] ^= sum[v];
    memory->sums[thread] ^= sum[0][0];
}

#if defined(HAS_TILES)
constexpr int PRODUCTS_EACH_TURN = 4 * TILE_ROWS / 2 * TILE_BYTES / 4 * TILE_BYTES;

void multiply_registers(void *context, int, int) {
    TileShapes shapes;
    for (int tile = 0; tile < 8; tile++) shapes.set(tile, TILE_ROWS, TILE_BYTES);
    shape_tiles(shapes);
    load_tile<4>(((Memory *)context)->bytes, TILE_BYTES);
    load_tile<5>(((Memory *)context)->bytes, TILE_BYTES);
    for (int turn = 0; turn < TURNS; turn++) {
        multiply_tiles<0, 4, 5>();
        multiply_tiles<1, 4, 5>();
        multiply_tiles<2, 4, 5>();
        multiply_tiles<3, 4, 5>();
    }
    release_tiles();
}
#else
#if defined(DOTS_PAIRS)
constexpr int PRODUCTS = 8; // of each sum
INLINE Ints multiply_add(Ints sum, Ints weights) { return dot_pairs(sum, weights, splat_int(0x01020304)); }
#else
constexpr int PRODUCTS = 4;
INLINE Ints multiply_add(Ints sum, Ints weights) { return dot(sum, weights, 0x01020304); }
#endif

#if defined(__x86_64__)
#define VECTOR_REGISTER "v"
#else
#define VECTOR_REGISTER "w"
#endif

constexpr int CHAINS = 12, PRODUCTS_EACH_TURN = PRODUCTS * LANES * CHAINS;

void multiply_registers(void *context, int, int thread) {
    Memory *memory = (Memory *)context;
    Ints sum[CHAINS] = {};
    Ints weights = load_ints(memory->bytes);
    for (int turn = 0; turn < TURNS; turn++) {
#pragma GCC unroll 16
        for (int c = 0; c < CHAINS; c++) {
            asm volatile("" : "+" VECTOR_REGISTER(weights)); // other weights, for all that the compiler knows
            sum[c] = multiply_add(sum[c], weights);
        }
    }
    for (int c = 1; c < CHAINS; c++) sum[0] ^= sum[c];
    memory->sums[thread] ^= sum[0][0];
}
#endif

// The best of several runs: a roof is what nothing disturbed.
double best_time(Pool *pool, Work work, Memory *memory, int num_items) {
    double best = 1e9;
    for (int i = 0; i < REPEATS; i++) {
        const double begin = now();
        pool_run(pool, work, memory, num_items, false);
        const double time = now() - begin;
        best = time < best ? time : best;
    }
    return best;
}

} // namespace

int main(int num_arguments, char **arguments) {
    const int num_threads = num_arguments == 3 ? atoi(arguments[1]) : 0;
    const int64_t num_chunks = num_arguments == 3 ? atoll(arguments[2]) / CHUNK : 0;
#if defined(HAS_TILES)
    if (!may_use_tiles()) {
        fprintf(stderr, "roofs: the system refuses tiles\n");
        return 2;
    }
#endif
    Pool *pool = num_threads > 0 && num_threads <= 256 && num_chunks > 0 ? pool_open(num_threads) : nullptr;
    uint8_t *bytes = pool ? (uint8_t *)aligned_alloc(64, (size_t)(num_chunks * CHUNK)) : nullptr;
    if (!bytes) {
        fprintf(stderr, "roofs THREADS BYTES: 1 to 256 threads, at least %lld bytes\n", (long long)CHUNK);
        return 2;
    }
    for (int64_t i = 0; i < num_chunks * CHUNK; i++) bytes[i] = (uint8_t)(i * 7);
    Memory memory = {bytes, {}};
    const double read_s = best_time(pool, read_chunk, &memory, (int)num_chunks);
    const double dot_s = best_time(pool, multiply_registers, &memory, num_threads);
    printf("%.0f %.0f\n", num_chunks * CHUNK / read_s, (double)PRODUCTS_EACH_TURN * TURNS * num_threads / dot_s);
    pool_close(pool);
    free(bytes);
    return 0;
}
