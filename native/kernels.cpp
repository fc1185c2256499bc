// The kernels, written once against simd.h and compiled for each target (-DTARGET=name).
//
// Batch-invariant: what a row gives depends on its own numbers alone. Sums of integers are exact; sums of floats
// run over k, over groups, or over the lanes of the tokens, always in the same order, however many rows share a tile.
#include "kernels.h"

#include "attention.h"
#include "products.h"
#include "rows.h"
#include "tile_products.h"

namespace {

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
        if (rows.num_rows > FEW_ROWS)
            multiply_in_tiles(model, matrix, rows, first, end, epilogue, output, stride, fetch);
        else
            multiply_panels<FewRowsTile, FEW_ROWS, FEW_ROWS>(model, matrix, rows, first, end, PANEL / LANES,
                                                             round_up(matrix.depth, 4) * PANEL, epilogue, output,
                                                             stride, fetch);
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
