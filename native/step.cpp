// One step: which kernel runs over what, and how that is handed out to threads.
#include "step.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "targets.h"
#include "threads.h"

namespace {

// Bytes between the rows of activations: an odd number of cache lines, so that rows don't fall into the same sets.
int row_bytes(int num_bytes) { return (round_up(num_bytes, 64) / 64 | 1) * 64; }
int row_floats(int num_floats) { return row_bytes(num_floats * 4) / 4; }

} // namespace

struct Engine {
    Model model;
    const Kernels *kernels;
    Pool *pool;
    void *memory; // all that a step needs, for `capacity` tokens
    int capacity, scratch_floats;
    int num_scratch_tokens;
    // Below: places in `memory`. T tokens, C width, I inner width.
    float *residual;    // (T, C)
    float *normal;      // (T, row_floats(C))
    float *qkv;         // (T, 3C)
    float *attended;    // (T, row_floats(C))
    float *inner;       // (T, row_floats(I))
    int8_t *bytes;      // (T, row_bytes(max(C, I)))
    float *scales;      // (T, groups)
    int32_t *sums;      // (T, groups)
    float *scratch;     // (threads, scratch_floats)
    int32_t *sequences; // (T): which sequence a token is of
    const Step *step;
    int layer;
    // What the current job works on.
    const Matrix *matrix, *next_matrix; // null behind the last one
    Epilogue epilogue;
    const float *input;
    const Norm *norm;
    float *output;
    int num_rows, input_stride, output_stride, panels_each, heads_each;
};

namespace {

int most(int a, int b) { return a > b ? a : b; }
int bounded(int n, int least, int largest) { return n < least ? least : n > largest ? largest : n; }

template <class T> T *take(char *&at, int64_t count) {
    T *place = (T *)at;
    at += (count * (int64_t)sizeof(T) + 127) / 128 * 128;
    return place;
}

int64_t lay_out(Engine *e, char *at, int64_t num_tokens, int num_context_tokens) {
    const Model &m = e->model;
    const int widest = most(m.width, m.inner_width), num_groups = (widest + GROUP - 1) / GROUP;
    const char *begin = at;
    e->residual = take<float>(at, num_tokens * m.width);
    e->normal = take<float>(at, num_tokens * row_floats(m.width));
    e->qkv = take<float>(at, num_tokens * 3 * m.width);
    e->attended = take<float>(at, num_tokens * row_floats(m.width));
    e->inner = take<float>(at, num_tokens * row_floats(m.inner_width));
    e->bytes = take<int8_t>(at, num_tokens * row_bytes(widest));
    e->scales = take<float>(at, num_tokens * num_groups);
    e->sums = take<int32_t>(at, num_tokens * num_groups);
    e->sequences = take<int32_t>(at, num_tokens);
    e->scratch_floats = round_up(attention_scratch_floats(num_context_tokens), 32);
    e->scratch = take<float>(at, (int64_t)e->scratch_floats * pool_num_threads(e->pool));
    return at - begin;
}

// Memory for a step of `num_tokens`, the longest sequence of which has `num_context_tokens`.
bool reserve(Engine *e, int num_tokens, int num_context_tokens) {
    if (num_tokens <= e->capacity && num_context_tokens <= e->num_scratch_tokens) return true;
    num_tokens = most(num_tokens, e->capacity);
    num_context_tokens = round_up(most(num_context_tokens, e->num_scratch_tokens), 256);
    const int64_t size = lay_out(e, nullptr, num_tokens, num_context_tokens);
    void *memory = aligned_alloc(128, (size_t)size);
    if (!memory) {
        if (e->memory) lay_out(e, (char *)e->memory, e->capacity, e->num_scratch_tokens);
        return false;
    }
    free(e->memory);
    e->memory = memory;
    e->capacity = num_tokens;
    e->num_scratch_tokens = num_context_tokens;
    lay_out(e, (char *)memory, num_tokens, num_context_tokens);
    return true;
}

// ------------------------------------------------------------------------------- jobs, one item of each at a time

void embed_row(void *context, int row, int) {
    Engine *e = (Engine *)context;
    e->kernels->embed(e->model, e->step->token_ids[row], e->step->position_ids[row],
                      e->residual + (int64_t)row * e->model.width);
}

void quantize_row(Engine *e, const float *input, int depth, int row) {
    const int num_groups = (depth + GROUP - 1) / GROUP;
    e->kernels->quantize(input, depth, e->bytes + (int64_t)row * row_bytes(depth),
                         e->scales + (int64_t)row * num_groups, e->sums + (int64_t)row * num_groups);
}

void normalize_row(void *context, int row, int) {
    Engine *e = (Engine *)context;
    const int width = e->model.width;
    float *normal = e->normal + (int64_t)row * row_floats(width);
    e->kernels->layer_norm(e->model, *e->norm, e->residual + (int64_t)row * width, normal);
    if (e->model.precision == INT8) quantize_row(e, normal, width, row);
}

void quantize_input(void *context, int row, int) {
    Engine *e = (Engine *)context;
    quantize_row(e, e->input + (int64_t)row * e->input_stride, e->matrix->depth, row);
}

const uint8_t *weights_of(const Model &m, const Matrix &matrix, int panel) {
    const int64_t line_bytes = PANEL * (m.precision == INT8 ? 1 : m.precision == BF16 ? 2 : 4);
    const int num_lines = m.precision == INT8 ? round_up(matrix.depth, 4) : matrix.depth;
    return (const uint8_t *)matrix.panels + (int64_t)panel * num_lines * line_bytes;
}

void multiply_panels(void *context, int item, int) {
    Engine *e = (Engine *)context;
    const int depth = e->matrix->depth, num_panels = (e->matrix->num_columns + PANEL - 1) / PANEL;
    const Activations rows = {
        e->input,   e->bytes, e->scales, e->sums, e->input_stride, row_bytes(depth), (depth + GROUP - 1) / GROUP,
        e->num_rows};
    const int end = (item + 1) * e->panels_each < num_panels ? (item + 1) * e->panels_each : num_panels;
    for (int panel = item * e->panels_each; panel < end; panel++) {
        // Behind the item's last panel: other threads have the next items, this one will get one further on.
        const int next = panel + 1 < end ? panel + 1 : end + (pool_num_threads(e->pool) - 1) * e->panels_each;
        const uint8_t *fetch = next < num_panels ? weights_of(e->model, *e->matrix, next)
                               : e->next_matrix  ? weights_of(e->model, *e->next_matrix, next - num_panels)
                                                 : nullptr;
        e->kernels->matmul(e->model, *e->matrix, rows, panel, e->epilogue, e->output, e->output_stride, fetch);
    }
}

void write_keys(void *context, int token, int) {
    Engine *e = (Engine *)context;
    const Model &m = e->model;
    const int position = (int)e->step->position_ids[token];
    const int block = e->step->block_ids[e->step->block_begins[e->sequences[token]] + position / BLOCK_TOKENS];
    const float *row = e->qkv + (int64_t)token * 3 * m.width;
    for (int head = 0; head < m.num_heads; head++)
        e->kernels->write_cache(m, e->layer, head, block, position % BLOCK_TOKENS, row + m.width + head * m.head_size,
                                row + 2 * m.width + head * m.head_size);
}

// Neighbouring heads of one token: their keys and values are neighbours in memory.
void attend_heads(void *context, int item, int thread) {
    Engine *e = (Engine *)context;
    const Model &m = e->model;
    const int items_each = (m.num_heads + e->heads_each - 1) / e->heads_each;
    const int token = item / items_each, first = item % items_each * e->heads_each;
    const int end = first + e->heads_each < m.num_heads ? first + e->heads_each : m.num_heads;
    for (int head = first; head < end; head++)
        e->kernels->attend(m, e->layer, head, e->step->block_ids + e->step->block_begins[e->sequences[token]],
                           (int)e->step->position_ids[token] + 1,
                           e->qkv + (int64_t)token * 3 * m.width + head * m.head_size,
                           e->attended + (int64_t)token * row_floats(m.width) + head * m.head_size,
                           e->scratch + (int64_t)thread * e->scratch_floats);
}

// --------------------------------------------------------------------------------------------------------- a step

void normalize(Engine *e, const Norm &norm) {
    e->norm = &norm;
    pool_run(e->pool, normalize_row, e, e->num_rows);
}

// output (rows, output_stride) = or += input (rows, input_stride) · matrix. Quantises the input if it isn't yet.
void multiply(Engine *e, const Matrix &matrix, const Matrix *next, const float *input, int input_stride,
              bool is_quantized, Epilogue epilogue, float *output, int output_stride) {
    e->matrix = &matrix;
    e->next_matrix = next;
    e->epilogue = epilogue;
    e->input = input;
    e->input_stride = input_stride;
    e->output = output;
    e->output_stride = output_stride;
    if (e->model.precision == INT8 && !is_quantized) pool_run(e->pool, quantize_input, e, e->num_rows);
    const int num_panels = (matrix.num_columns + PANEL - 1) / PANEL;
    // Neighbouring panels are one stream of memory: several at a time, as long as each thread still gets about eight.
    e->panels_each = bounded(num_panels / (pool_num_threads(e->pool) * 8), 1, 8);
    pool_run(e->pool, multiply_panels, e, (num_panels + e->panels_each - 1) / e->panels_each);
}

} // namespace

extern "C" {

Engine *engine_open(const Model *model, const char *target, int num_threads) {
    const Kernels *kernels = find_kernels(target);
    if (!kernels) {
        errno = ENOTSUP;
        return nullptr;
    }
    Engine *e = (Engine *)calloc(1, sizeof(Engine));
    if (!e) return nullptr; // calloc has set errno
    e->model = *model;
    e->kernels = kernels;
    e->pool = pool_open(num_threads);
    if (e->pool) return e;
    const int error = errno;
    free(e);
    errno = error;
    return nullptr;
}

void engine_close(Engine *e) {
    if (!e) return;
    pool_close(e->pool);
    free(e->memory);
    free(e);
}

int engine_interface(void) { return INTERFACE; }
const char *engine_targets(void) { return target_names(); }

int64_t engine_block_bytes(const Model *model) {
    return cache_layout(*model).head_bytes * model->num_heads * model->num_layers;
}

int engine_step(Engine *e, const Step *step) {
    const Model &m = e->model;
    const int padded_width = row_floats(m.width), padded_inner = row_floats(m.inner_width);
    int num_context_tokens = 0;
    for (int i = 0; i < step->num_tokens; i++)
        num_context_tokens = most(num_context_tokens, (int)step->position_ids[i] + 1);
    if (!reserve(e, step->num_tokens, num_context_tokens)) return -1;
    e->step = step;
    e->num_rows = step->num_tokens;
    e->heads_each = bounded(e->num_rows * m.num_heads / (pool_num_threads(e->pool) * 8), 1, m.num_heads);
    for (int s = 0; s < step->num_sequences; s++)
        for (int t = step->token_begins[s]; t < step->token_begins[s + 1]; t++) e->sequences[t] = s;
    pool_run(e->pool, embed_row, e, e->num_rows);
    for (e->layer = 0; e->layer < m.num_layers; e->layer++) {
        const Layer &layer = m.layers[e->layer];
        normalize(e, layer.norm_1);
        multiply(e, layer.qkv, &layer.projection, e->normal, padded_width, true, STORE, e->qkv, 3 * m.width);
        pool_run(e->pool, write_keys, e, e->num_rows);
        pool_run(e->pool, attend_heads, e, e->num_rows * ((m.num_heads + e->heads_each - 1) / e->heads_each));
        multiply(e, layer.projection, &layer.up, e->attended, padded_width, false, ADD, e->residual, m.width);
        normalize(e, layer.norm_2);
        multiply(e, layer.up, &layer.down, e->normal, padded_width, true, ACTIVATE, e->inner, padded_inner);
        const Matrix *next = e->layer + 1 < m.num_layers ? &m.layers[e->layer + 1].qkv : &m.head;
        multiply(e, layer.down, next, e->inner, padded_inner, false, ADD, e->residual, m.width);
    }
    for (int row = 0; row < e->num_rows; row++)
        e->kernels->layer_norm(m, m.final_norm, e->residual + (int64_t)row * m.width,
                               step->hidden + (int64_t)row * m.width);
    return 0;
}

int engine_logits(Engine *e, const float *hidden, int num_rows, float *logits) {
    if (!reserve(e, num_rows, 1)) return -1;
    e->num_rows = num_rows;
    multiply(e, e->model.head, nullptr, hidden, e->model.width, false, STORE, logits, e->model.vocab_size);
    return 0;
}
}
