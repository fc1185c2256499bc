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
    float *qkv;         // (T, 3C)
    Activations narrow; // (T, C): from the layer norms, from the attention
    Activations wide;   // (T, I): from the activation
    float *scratch;     // (threads, scratch_floats)
    const Step *step;
    int layer;
    // What the current job works on.
    const Matrix *matrix, *next_matrix; // null behind the last one
    Epilogue epilogue;
    Activations input;
    const Norm *norm;
    float *output;
    int num_rows, output_stride, panels_each, heads_each;
};

namespace {

int most(int a, int b) { return a > b ? a : b; }
int bounded(int n, int least, int largest) { return n < least ? least : n > largest ? largest : n; }

template <class T> T *take(char *&at, int64_t count) {
    T *place = (T *)at;
    at += (count * (int64_t)sizeof(T) + 127) / 128 * 128;
    return place;
}

Activations take_activations(char *&at, int64_t num_tokens, int depth, bool has_bytes) {
    Activations a = {};
    a.stride_floats = row_floats(depth);
    a.values = take<float>(at, num_tokens * a.stride_floats);
    if (!has_bytes) return a;
    a.stride_bytes = row_bytes(depth);
    a.num_groups = (depth + GROUP - 1) / GROUP;
    a.bytes = take<int8_t>(at, num_tokens * a.stride_bytes);
    a.scales = take<float>(at, num_tokens * a.num_groups);
    a.sums = take<int32_t>(at, num_tokens * a.num_groups);
    return a;
}

int64_t lay_out(Engine *e, char *at, int64_t num_tokens, int num_context_tokens) {
    const Model &m = e->model;
    const char *begin = at;
    e->residual = take<float>(at, num_tokens * m.width);
    e->qkv = take<float>(at, num_tokens * 3 * m.width);
    e->narrow = take_activations(at, num_tokens, m.width, m.precision == INT8);
    e->wide = take_activations(at, num_tokens, m.inner_width, m.precision == INT8);
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

// Columns [first, end) of a row, whose `values` are written; `first` is a multiple of GROUP.
void quantize_columns(const Engine *e, const Activations &a, const float *values, int row, int first, int end) {
    const int64_t group = (int64_t)row * a.num_groups + first / GROUP;
    e->kernels->quantize(values + first, end - first, a.bytes + (int64_t)row * a.stride_bytes + first, a.scales + group,
                         a.sums + group);
}

void normalize_row(void *context, int row, int) {
    Engine *e = (Engine *)context;
    const int width = e->model.width;
    float *output = e->output + (int64_t)row * e->output_stride;
    e->kernels->layer_norm(e->model, *e->norm, e->residual + (int64_t)row * width, output);
    if (e->input.bytes) quantize_columns(e, e->input, output, row, 0, width);
}

void quantize_row(void *context, int row, int) {
    Engine *e = (Engine *)context;
    const float *values = e->input.values + (int64_t)row * e->input.stride_floats;
    quantize_columns(e, e->input, values, row, 0, e->model.width);
}

const uint8_t *weights_of(const Model &m, const Matrix &matrix, int panel) {
    const int64_t line_bytes = PANEL * (m.precision == INT8 ? 1 : m.precision == BF16 ? 2 : 4);
    const int num_lines = m.precision == INT8 ? round_up(matrix.depth, 4) : matrix.depth;
    return (const uint8_t *)matrix.panels + (int64_t)panel * num_lines * line_bytes;
}

void multiply_panels(void *context, int item, int) {
    Engine *e = (Engine *)context;
    const int num_columns = e->matrix->num_columns, num_panels = (num_columns + PANEL - 1) / PANEL;
    const int end = (item + 1) * e->panels_each < num_panels ? (item + 1) * e->panels_each : num_panels;
    for (int panel = item * e->panels_each; panel < end; panel++) {
        // Behind the item's last panel: other threads have the next items, this one will get one further on.
        const int next = panel + 1 < end ? panel + 1 : end + (pool_num_threads(e->pool) - 1) * e->panels_each;
        const uint8_t *fetch = next < num_panels ? weights_of(e->model, *e->matrix, next)
                               : e->next_matrix  ? weights_of(e->model, *e->next_matrix, next - num_panels)
                                                 : nullptr;
        e->kernels->matmul(e->model, *e->matrix, e->input, panel, e->epilogue, e->output, e->output_stride, fetch);
    }
    if (e->epilogue != ACTIVATE || !e->wide.bytes) return;
    const int first = item * e->panels_each * PANEL, last = end * PANEL < num_columns ? end * PANEL : num_columns;
    for (int row = 0; row < e->num_rows; row++)
        quantize_columns(e, e->wide, e->output + (int64_t)row * e->output_stride, row, first, last);
}

// Whether what a head gives can be quantised without the others.
bool heads_are_groups(const Model &m) { return m.precision == INT8 && m.head_size % GROUP == 0; }

// Neighbouring heads of one sequence: their keys and values are neighbours in memory. A thread writes those of all new
// tokens, then attends to them, so nothing waits for another thread in between.
void attend_heads(void *context, int item, int thread) {
    Engine *e = (Engine *)context;
    const Model &m = e->model;
    const Step &step = *e->step;
    const int items_each = (m.num_heads + e->heads_each - 1) / e->heads_each;
    const int sequence = item / items_each, first = item % items_each * e->heads_each;
    const int end = first + e->heads_each < m.num_heads ? first + e->heads_each : m.num_heads;
    const int begin = step.token_begins[sequence], num_tokens = step.token_begins[sequence + 1] - begin;
    const int32_t *blocks = step.block_ids + step.block_begins[sequence];
    const int position = (int)step.position_ids[begin], stride = 3 * m.width;
    for (int head = first; head < end; head++) {
        const float *query = e->qkv + (int64_t)begin * stride + head * m.head_size, *key = query + m.width;
        float *output = e->narrow.values + (int64_t)begin * e->narrow.stride_floats + head * m.head_size;
        e->kernels->write_cache(m, e->layer, head, blocks, position, num_tokens, key, key + m.width, stride);
        e->kernels->attend(m, e->layer, head, blocks, position + 1, num_tokens, query, stride, output,
                           e->narrow.stride_floats, e->scratch + (int64_t)thread * e->scratch_floats);
    }
    if (!heads_are_groups(m)) return;
    for (int row = begin; row < begin + num_tokens; row++)
        quantize_columns(e, e->narrow, e->narrow.values + (int64_t)row * e->narrow.stride_floats, row,
                         first * m.head_size, end * m.head_size);
}

// --------------------------------------------------------------------------------------------------------- a step

// Of the residual: to `output`, and as bytes to `quantized` unless it has none.
void normalize(Engine *e, const Norm &norm, float *output, int output_stride, const Activations &quantized) {
    e->norm = &norm;
    e->output = output;
    e->output_stride = output_stride;
    e->input = quantized;
    pool_run(e->pool, normalize_row, e, e->num_rows);
}

// output (rows, output_stride) = or += input · matrix. `next`: the matrix that comes after this one.
void multiply(Engine *e, const Matrix &matrix, const Matrix *next, const Activations &input, Epilogue epilogue,
              float *output, int output_stride) {
    e->matrix = &matrix;
    e->next_matrix = next;
    e->epilogue = epilogue;
    e->input = input;
    e->input.num_rows = e->num_rows;
    e->output = output;
    e->output_stride = output_stride;
    const int num_panels = (matrix.num_columns + PANEL - 1) / PANEL;
    // Neighbouring panels are one stream of memory: several at a time, as long as each thread still gets about eight. An
    // even number: whole groups of the next matrix's input.
    static_assert(GROUP == 2 * PANEL, "two panels are a group");
    e->panels_each = bounded(num_panels / (pool_num_threads(e->pool) * 8) / 2 * 2, 2, 8);
    pool_run(e->pool, multiply_panels, e, (num_panels + e->panels_each - 1) / e->panels_each);
}

void quantize(Engine *e, const Activations &input) {
    e->input = input;
    pool_run(e->pool, quantize_row, e, e->num_rows);
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
    int num_context_tokens = 0;
    for (int i = 0; i < step->num_tokens; i++)
        num_context_tokens = most(num_context_tokens, (int)step->position_ids[i] + 1);
    if (!reserve(e, step->num_tokens, num_context_tokens)) return -1;
    e->step = step;
    e->num_rows = step->num_tokens;
    e->heads_each = bounded(step->num_sequences * m.num_heads / (pool_num_threads(e->pool) * 8), 1, m.num_heads);
    const int attention_items = step->num_sequences * ((m.num_heads + e->heads_each - 1) / e->heads_each);
    const Activations &narrow = e->narrow, &wide = e->wide;
    pool_run(e->pool, embed_row, e, e->num_rows);
    for (e->layer = 0; e->layer < m.num_layers; e->layer++) {
        const Layer &layer = m.layers[e->layer];
        const Matrix *next = e->layer + 1 < m.num_layers ? &m.layers[e->layer + 1].qkv : &m.head;
        normalize(e, layer.norm_1, narrow.values, narrow.stride_floats, narrow);
        multiply(e, layer.qkv, &layer.projection, narrow, STORE, e->qkv, 3 * m.width);
        pool_run(e->pool, attend_heads, e, attention_items);
        if (narrow.bytes && !heads_are_groups(m)) quantize(e, narrow);
        multiply(e, layer.projection, &layer.up, narrow, ADD, e->residual, m.width);
        normalize(e, layer.norm_2, narrow.values, narrow.stride_floats, narrow);
        multiply(e, layer.up, &layer.down, narrow, ACTIVATE, wide.values, wide.stride_floats);
        multiply(e, layer.down, next, wide, ADD, e->residual, m.width);
    }
    normalize(e, m.final_norm, step->hidden, m.width, Activations{});
    return 0;
}

int engine_logits(Engine *e, const float *hidden, int num_rows, float *logits) {
    if (!reserve(e, num_rows, 1)) return -1;
    e->num_rows = num_rows;
    Activations input = e->narrow;
    input.values = const_cast<float *>(hidden); // an input is only read
    input.stride_floats = e->model.width;
    if (input.bytes) quantize(e, input);
    multiply(e, e->model.head, nullptr, input, STORE, logits, e->model.vocab_size);
    return 0;
}
}
