// Tiles of AMX: eight registers of up to 16 rows of 64 bytes, and products of two of them that are added to a third one.
// A target with HAS_TILES uses them.
//
// EMULATED_TILES does the same in memory: for tests on processors without AMX, and for sanitizers, which don't see what the
// instructions read.
#pragma once

// Whether the system lets this process use tiles: Linux, from 5.16 on, if the process asks for them, for the threads that it
// starts afterwards. The processor has to have them.
bool may_use_tiles(void);

#if defined(HAS_TILES)
#include "simd.h"

constexpr int TILE_ROWS = 16, TILE_BYTES = 64; // of a row

// The operand of LDTILECFG (Intel's manual of the instruction set): the shape of each tile.
struct alignas(64) TileShapes {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t num_rows[16] = {};

    void set(int tile, int rows, int bytes) {
        num_rows[tile] = (uint8_t)rows;
        row_bytes[tile] = (uint16_t)(rows ? bytes : 0); // a tile without rows has to have none
    }
};

#if defined(EMULATED_TILES)

struct EmulatedTiles {
    TileShapes shapes;
    uint8_t rows[8][TILE_ROWS][TILE_BYTES];
};
inline thread_local EmulatedTiles emulated;

inline void shape_tiles(const TileShapes &shapes) {
    memset(emulated.rows, 0, sizeof emulated.rows);
    emulated.shapes = shapes;
}
inline void release_tiles() { shape_tiles({}); }
template <int T> void clear_tile() { memset(emulated.rows[T], 0, sizeof emulated.rows[T]); }
template <int T> void load_tile(const void *from, int64_t stride) {
    clear_tile<T>();
    for (int r = 0; r < emulated.shapes.num_rows[T]; r++)
        memcpy(emulated.rows[T][r], (const uint8_t *)from + r * stride, emulated.shapes.row_bytes[T]);
}
template <int T> void load_tile_once(const void *from, int64_t stride) { load_tile<T>(from, stride); }
template <int T> void store_tile(void *to, int64_t stride) {
    for (int r = 0; r < emulated.shapes.num_rows[T]; r++)
        memcpy((uint8_t *)to + r * stride, emulated.rows[T][r], emulated.shapes.row_bytes[T]);
}
template <int SUM, int SIGNED, int UNSIGNED> void multiply_tiles() {
    for (int r = 0; r < emulated.shapes.num_rows[SUM]; r++)
        for (int column = 0; column < emulated.shapes.row_bytes[SUM]; column += 4) {
            uint32_t sum; // wraps, as the instruction's does
            memcpy(&sum, emulated.rows[SUM][r] + column, 4);
            for (int k = 0; k < emulated.shapes.row_bytes[SIGNED]; k++)
                sum += (uint32_t)((int8_t)emulated.rows[SIGNED][r][k] * emulated.rows[UNSIGNED][k / 4][column + k % 4]);
            memcpy(emulated.rows[SUM][r] + column, &sum, 4);
        }
}

#else

// Assembly, because gcc's intrinsics want the tile's number as a literal.
INLINE void shape_tiles(const TileShapes &shapes) { // all tiles are zero after it
    asm volatile("ldtilecfg %0" : : "m"(shapes));
}
INLINE void release_tiles() { asm volatile("tilerelease"); } // so that the system has nothing of them to save
template <int T> INLINE void clear_tile() { asm volatile("tilezero %%tmm%c0" : : "i"(T)); }
template <int T> INLINE void load_tile(const void *from, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(T) : "memory");
}
// The same, of memory that the first cache need not keep.
template <int T> INLINE void load_tile_once(const void *from, int64_t stride) {
    asm volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(T) : "memory");
}
template <int T> INLINE void store_tile(void *to, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(T) : "memory");
}
// int32 SUM (M, N) += int8 SIGNED (M, K) · uint8 UNSIGNED (K/4, N, 4).
template <int SUM, int SIGNED, int UNSIGNED> INLINE void multiply_tiles() {
    asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(SUM), "i"(SIGNED), "i"(UNSIGNED));
}

#endif
#endif
