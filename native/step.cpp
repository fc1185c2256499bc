// One step: which kernel runs over what, and how that is handed out to threads.
#include "step.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "targets.h"
#include "threads.h"

namespace {

// Bytes between the rows of activations: an odd number of cache lines, so that rows don't fall into the same sets.
constexpr int row_bytes(int num_bytes) { return (round_up(num_bytes, 64) / 64 | 1) * 64; }
constexpr int row_floats(int num_floats) { return row_bytes(num_floats * 4) / 4; }

// Rows of the LM head that are computed at a time: bounds the memory of their logits. More is not faster.
constexpr int HEAD_ROWS = 64;
// A step of up to as many tokens only waits for memory, which is faster for threads that read neighbouring parts of it.
constexpr int IN_ORDER_TOKENS = 4;
constexpr int SPAN_PANELS = SPAN / PANEL;
constexpr int SPAN_STRIDE = row_floats(SPAN);

} // namespace

struct Engine {
    Model model;
    const Kernels *kernels;
    Pool *pool;
    void *memory; // all that a step needs, for `capacity` tokens
    int capacity, logits_capacity, scratch_floats;
    int num_scratch_tokens;
    // Below: places in `memory`. T tokens, C width, I inner width, L rows of logits.
    float *residual;    // (T, C)
    float *qkv;         // (T, 3C): in the place of wide.values, which are written when it is of no more use
    Activations narrow; // (T, C): from the layer norms, from the attention
    Activations wide;   // (T, I): from the activation
    float *scratch;     // (threads, scratch_floats)
    float *spans;       // (threads, HEAD_ROWS, SPAN_STRIDE): logits that each thread has computed last
    // What rows keep of their logits until a token is drawn: all and their maxima, or a shortlist of each thread's.
    float *logits;         // (L, logits_stride)
    float *maxima;         // (L, num_maxima(V))
    Shortlist *shortlists; // (HEAD_ROWS, threads)
    int32_t *num_deciding; // (HEAD_ROWS): of the shortlist's tokens; 0 for whole rows
    char *sampling;        // (threads, sampling_bytes)
    int64_t sampling_bytes;
    struct { // of the current step, as in Step
        const int32_t *token_ids, *position_ids, *token_begins, *block_begins, *block_ids;
    } inputs;
    // New tokens of one sequence: those of Step's sequences that continue each other, as drafts do.
    int32_t *chunk_begins; // (T + 1)
    int32_t *chunk_tables; // (T): where its block table begins
    int num_chunks, layer;
    bool is_in_order; // threads take items without shares
    // What the current job works on.
    const Matrix *matrix, *next_matrix; // null behind the last one
    Epilogue epilogue;
    Activations input;
    const Norm *norm;
    float *output;
    int num_rows, output_stride, rows_each, heads_each;
    const Draws *draws;
    int first_draw, num_edited; // of the rows whose logits are computed together
    float *head_maxima;         // of the first of them
    bool has_shortlists;
    const float *edited_logits, *raw_logits; // of engine_draw()
    int edited_stride, raw_stride;
};

namespace {

int most(int a, int b) { return a > b ? a : b; }
int bounded(int n, int least, int largest) { return n < least ? least : n > largest ? largest : n; }

template <class T> T *take(char *&at, int64_t count) {
    T *place = (T *)at;
    at += (count * (int64_t)sizeof(T) + 127) / 128 * 128;
    return place;
}

// Whether bytes of some columns can be made without the others.
bool has_groups(const Kernels *kernels) { return kernels->activation_bytes == ONE_BYTE; }

// `values`: for num_tokens rows of row_floats(depth).
Activations take_activations(const Engine *e, char *&at, int64_t num_tokens, int depth, float *values) {
    Activations a = {};
    a.stride_floats = row_floats(depth);
    a.values = values;
    if (e->model.precision != INT8) return a;
    a.stride_bytes = has_groups(e->kernels) ? row_bytes(depth) : 2 * row_bytes(depth);
    a.num_groups = has_groups(e->kernels) ? (depth + GROUP - 1) / GROUP : 2;
    num_tokens += num_tokens % 2; // a row of two that are side by side
    a.bytes = take<int8_t>(at, num_tokens * a.stride_bytes);
    a.scales = take<float>(at, num_tokens * a.num_groups);
    a.starts = take<int32_t>(at, num_tokens * a.num_groups);
    return a;
}

int logits_stride(const Model &m) { return round_up(m.vocab_size, 32); }

SamplingScratch sampling_scratch(char *&at, int num_columns) {
    SamplingScratch s;
    s.keys = take<uint64_t>(at, num_columns);
    s.sorted = take<uint64_t>(at, num_columns);
    s.masses = take<double>(at, num_columns);
    s.values = take<float>(at, num_columns);
    s.token_ids = take<int32_t>(at, num_columns);
    s.maxima = take<float>(at, num_maxima(num_columns));
    s.cumulated = take<double>(at, num_spans(num_columns));
    s.row_maxima = take<float>(at, num_maxima(num_columns));
    s.raw_maxima = take<float>(at, num_maxima(num_columns));
    return s;
}

int64_t lay_out(Engine *e, char *at, int64_t num_tokens, int num_context_tokens, int64_t num_logits) {
    const Model &m = e->model;
    const char *begin = at;
    e->residual = take<float>(at, num_tokens * m.width);
    float *narrow = take<float>(at, num_tokens * row_floats(m.width));
    e->narrow = take_activations(e, at, num_tokens, m.width, narrow);
    e->qkv = take<float>(at, num_tokens * most(3 * m.width, row_floats(m.inner_width)));
    e->wide = take_activations(e, at, num_tokens, m.inner_width, e->qkv);
    e->chunk_begins = take<int32_t>(at, num_tokens + 1);
    e->chunk_tables = take<int32_t>(at, num_tokens);
    e->scratch_floats = round_up(attention_scratch_floats(num_context_tokens), 32);
    e->scratch = take<float>(at, (int64_t)e->scratch_floats * pool_num_threads(e->pool));
    e->spans = take<float>(at, (int64_t)HEAD_ROWS * SPAN_STRIDE * pool_num_threads(e->pool));
    e->shortlists = take<Shortlist>(at, (int64_t)HEAD_ROWS * pool_num_threads(e->pool));
    e->num_deciding = take<int32_t>(at, HEAD_ROWS);
    e->logits = take<float>(at, num_logits * logits_stride(m));
    e->maxima = take<float>(at, num_logits * num_maxima(m.vocab_size));
    e->sampling = at;
    sampling_scratch(at, m.vocab_size);
    e->sampling_bytes = at - e->sampling;
    take<char>(at, e->sampling_bytes * (pool_num_threads(e->pool) - 1));
    return at - begin;
}

// Memory for a step of `num_tokens`, the longest sequence of which has `num_context_tokens`, with rows of logits.
bool reserve(Engine *e, int num_tokens, int num_context_tokens, int num_logits) {
    if (e->memory && num_tokens <= e->capacity && num_context_tokens <= e->num_scratch_tokens &&
        num_logits <= e->logits_capacity)
        return true;
    num_tokens = most(num_tokens, e->capacity);
    num_context_tokens = round_up(most(num_context_tokens, e->num_scratch_tokens), 256);
    num_logits = most(num_logits, e->logits_capacity);
    const int64_t size = lay_out(e, nullptr, num_tokens, num_context_tokens, num_logits);
    void *memory = aligned_alloc(128, (size_t)size);
    if (!memory) {
        if (e->memory) lay_out(e, (char *)e->memory, e->capacity, e->num_scratch_tokens, e->logits_capacity);
        return false;
    }
    free(e->memory);
    e->memory = memory;
    e->capacity = num_tokens;
    e->num_scratch_tokens = num_context_tokens;
    e->logits_capacity = num_logits;
    lay_out(e, (char *)memory, num_tokens, num_context_tokens, num_logits);
    return true;
}

void run(Engine *e, Work work, int num_items) { pool_run(e->pool, work, e, num_items, e->is_in_order); }

// ------------------------------------------------------------------------------- jobs, one item of each at a time

void embed_row(void *context, int row, int) {
    Engine *e = (Engine *)context;
    e->kernels->embed(e->model, e->inputs.token_ids[row], e->inputs.position_ids[row],
                      e->residual + (int64_t)row * e->model.width);
}

// Columns [first, end) of a row, whose `values` are written; `first` is a multiple of GROUP. All of them if has_groups() isn't.
void quantize_columns(const Engine *e, const Activations &a, const float *values, int row, int first, int end) {
    const int together = e->kernels->rows_together, among = row % together, top = row - among;
    const int64_t group = (int64_t)top * a.num_groups + first / GROUP * together + among;
    e->kernels->quantize(values + first, end - first,
                         a.bytes + (int64_t)top * a.stride_bytes + first * together + among * 8, a.stride_bytes / 2,
                         a.scales + group, a.starts + group);
}

// The norm of a token's residual, as row `row` of a product's input.
void normalize_token(Engine *e, const Norm &norm, int token, int row) {
    const int width = e->model.width;
    float *normal = e->narrow.values + (int64_t)row * e->narrow.stride_floats;
    e->kernels->layer_norm(e->model, norm, e->residual + (int64_t)token * width, normal);
    if (e->narrow.bytes) quantize_columns(e, e->narrow, normal, row, 0, width);
}

void normalize_row(void *context, int row, int) {
    Engine *e = (Engine *)context;
    normalize_token(e, *e->norm, row, row);
}

void quantize_narrow_row(void *context, int row, int) {
    Engine *e = (Engine *)context;
    quantize_columns(e, e->narrow, e->narrow.values + (int64_t)row * e->narrow.stride_floats, row, 0, e->model.width);
}

void quantize_wide_row(void *context, int row, int) {
    Engine *e = (Engine *)context;
    quantize_columns(e, e->wide, e->wide.values + (int64_t)row * e->wide.stride_floats, row, 0, e->model.inner_width);
}

const uint8_t *weights_of(const Model &m, const Matrix &matrix, int panel) {
    const int64_t line_bytes = PANEL * (m.precision == INT8 ? 1 : m.precision == BF16 ? 2 : 4);
    const int num_lines = m.precision == INT8 ? round_up(matrix.depth, 4) : matrix.depth;
    return (const uint8_t *)matrix.panels + (int64_t)panel * num_lines * line_bytes;
}

int num_panels(const Matrix &matrix) { return (matrix.num_columns + PANEL - 1) / PANEL; }

// Panels of an item. Neighbouring panels are one stream of memory: several at a time, as long as each thread still gets about
// eight items. An even number: whole groups of the next matrix's input.
int panels_each(const Engine *e, const Matrix &matrix) {
    static_assert(GROUP == 2 * PANEL, "two panels are a group");
    if (&matrix == &e->model.head) return SPAN_PANELS; // of whose logits the maxima are taken
    return bounded(num_panels(matrix) / (pool_num_threads(e->pool) * 8) / 2 * 2, 2, 4);
}

// Items of columns follow each other for one block of rows, then for the next one.
int num_column_items(const Engine *e, const Matrix &matrix) {
    return (num_panels(matrix) + panels_each(e, matrix) - 1) / panels_each(e, matrix);
}
int num_items(const Engine *e) {
    return num_column_items(e, *e->matrix) * ((e->num_rows + e->rows_each - 1) / e->rows_each);
}

// Weights of an item's columns.
const uint8_t *weights_of_item(const Engine *e, const Matrix &matrix, int item) {
    return weights_of(e->model, matrix, item % num_column_items(e, matrix) * panels_each(e, matrix));
}

// What a thread multiplies by after an item, unless another thread is faster; or null.
const uint8_t *next_weights(const Engine *e, int item, int thread) {
    const int num = num_items(e), next = e->is_in_order ? item + pool_num_threads(e->pool) : item + 1;
    const int end = e->is_in_order ? num : pool_first_item(e->pool, thread + 1, num);
    if (next < end) return weights_of_item(e, *e->matrix, next);
    if (!e->next_matrix) return nullptr;
    const int num_next = num_column_items(e, *e->next_matrix); // if all rows are one block
    return weights_of_item(e, *e->next_matrix,
                           e->is_in_order ? next - num : pool_first_item(e->pool, thread, num_next));
}

Activations rows_from(const Activations &a, int first, int num_rows) {
    Activations rows = a;
    rows.num_rows = num_rows;
    rows.values += (int64_t)first * a.stride_floats;
    if (!a.bytes) return rows;
    rows.bytes += (int64_t)first * a.stride_bytes;
    rows.scales += (int64_t)first * a.num_groups;
    rows.starts += (int64_t)first * a.num_groups;
    return rows;
}

void multiply_item(Engine *e, int item, int thread, float *output, int output_stride) {
    const int num_columns = e->matrix->num_columns, num = num_column_items(e, *e->matrix);
    const int row = item / num * e->rows_each, each = panels_each(e, *e->matrix);
    const int first = item % num * each, end = bounded(first + each, 0, num_panels(*e->matrix));
    const Activations rows = rows_from(e->input, row, bounded(e->num_rows - row, 0, e->rows_each));
    output += (int64_t)row * output_stride;
    e->kernels->matmul(e->model, *e->matrix, rows, first, end, e->epilogue, output, output_stride,
                       next_weights(e, item, thread));
    if (e->epilogue != ACTIVATE || !e->wide.bytes || !has_groups(e->kernels)) return;
    const int last = bounded(end * PANEL, 0, num_columns);
    for (int i = row; i < row + rows.num_rows; i++)
        quantize_columns(e, e->wide, e->output + (int64_t)i * e->output_stride, i, first * PANEL, last);
}

void multiply_panels(void *context, int item, int thread) {
    Engine *e = (Engine *)context;
    multiply_item(e, item, thread, e->output, e->output_stride);
}

// Whether an item of attention can be quantised without the others: it is whole rows, or whole groups.
bool attention_quantizes(const Engine *e) {
    if (e->model.precision != INT8) return false;
    return e->heads_each == e->model.num_heads || (has_groups(e->kernels) && e->model.head_size % GROUP == 0);
}

// Neighbouring heads of one chunk: their keys and values are neighbours in memory. A thread writes those of all new
// tokens, then attends to them, so nothing waits for another thread in between.
void attend_heads(void *context, int item, int thread) {
    Engine *e = (Engine *)context;
    const Model &m = e->model;
    const int items_each = (m.num_heads + e->heads_each - 1) / e->heads_each;
    const int chunk = item / items_each, first = item % items_each * e->heads_each;
    const int end = first + e->heads_each < m.num_heads ? first + e->heads_each : m.num_heads;
    const int begin = e->chunk_begins[chunk], num_tokens = e->chunk_begins[chunk + 1] - begin;
    const int32_t *blocks = e->inputs.block_ids + e->chunk_tables[chunk];
    const int position = e->inputs.position_ids[begin], stride = 3 * m.width;
    for (int head = first; head < end; head++) {
        const float *query = e->qkv + (int64_t)begin * stride + head * m.head_size, *key = query + m.width;
        float *output = e->narrow.values + (int64_t)begin * e->narrow.stride_floats + head * m.head_size;
        e->kernels->write_cache(m, e->layer, head, blocks, position, num_tokens, key, key + m.width, stride);
        e->kernels->attend(m, e->layer, head, blocks, position + 1, num_tokens, query, stride, output,
                           e->narrow.stride_floats, e->scratch + (int64_t)thread * e->scratch_floats);
    }
    if (!attention_quantizes(e)) return;
    for (int row = begin; row < begin + num_tokens; row++)
        quantize_columns(e, e->narrow, e->narrow.values + (int64_t)row * e->narrow.stride_floats, row,
                         first * m.head_size, end * m.head_size);
}

// The step's token that a draw is behind.
int token_before(const Engine *e, const Draw &draw) {
    return draw.token >= 0 ? draw.token : e->inputs.token_begins[draw.sequence + 1] - 1;
}

Shortlist *shortlists_of(const Engine *e, int row) { return e->shortlists + row * pool_num_threads(e->pool); }

void prepare_drawn(void *context, int row, int) {
    Engine *e = (Engine *)context;
    const int index = e->first_draw + row;
    const Draw &draw = e->draws->draws[index];
    normalize_token(e, e->model.final_norm, token_before(e, draw), row);
    e->num_deciding[row] = index < e->draws->num_edited ? 0 : num_deciding(draw);
    for (int thread = 0; thread < pool_num_threads(e->pool); thread++) clear(shortlists_of(e, row)[thread]);
}

// A span of logits of all rows, of which each row keeps what decides its draw: of most rows a few tokens, so that their
// logits stay in the cache.
void multiply_span(void *context, int span, int thread) {
    Engine *e = (Engine *)context;
    const Sampling &sampling = *e->kernels->sampling;
    const int num_columns = e->model.vocab_size, first = span * SPAN, num = bounded(num_columns - first, 0, SPAN);
    float *columns = e->output + first;
    int stride = e->output_stride;
    if (e->has_shortlists) {
        columns = e->spans + (int64_t)thread * HEAD_ROWS * SPAN_STRIDE;
        stride = SPAN_STRIDE;
    }
    multiply_item(e, span, thread, columns - first, stride); // writes the span's columns
    for (int row = 0; row < e->num_rows; row++, columns += stride) {
        if (e->num_deciding[row]) {
            sampling.add_span(shortlists_of(e, row)[thread], e->num_deciding[row], columns, num, first);
            continue;
        }
        float *kept = e->output + (int64_t)row * e->output_stride + first;
        if (kept != columns) memcpy(kept, columns, sizeof(float) * (size_t)num);
        sampling.write_maxima(columns, num,
                              e->head_maxima + (int64_t)row * num_maxima(num_columns) + span * SPAN_MAXIMA);
    }
}

// One draw from a row of logits with its maxima; `raw`: the row before it was edited, for log-probabilities.
void draw_row(Engine *e, int index, int position, const SamplingScratch &scratch, const float *logits,
              const float *maxima, const float *raw, const float *raw_maxima) {
    const Sampling &sampling = *e->kernels->sampling;
    const Draws &draws = *e->draws;
    const int num_columns = e->model.vocab_size;
    const Draw &draw = draws.draws[index];
    int token_id = draw.given;
    if (token_id < 0)
        token_id = sampling.draw(draw, position, logits, maxima, num_columns, scratch, &draws.largest[index],
                                 &draws.surprisals[index]);
    draws.token_ids[index] = token_id;
    const int64_t top = (int64_t)index * draws.max_top;
    if (draw.num_top >= 0 && token_id >= 0)
        draws.logprobs[index] = sampling.score(draw, token_id, raw, raw_maxima, num_columns, scratch,
                                               draws.top_ids + top, draws.top_logprobs + top);
}

SamplingScratch scratch_of(const Engine *e, int thread) {
    char *at = e->sampling + thread * e->sampling_bytes;
    return sampling_scratch(at, e->model.vocab_size);
}

void draw_computed(void *context, int item, int thread) {
    Engine *e = (Engine *)context;
    const int row = e->num_edited + item, index = e->first_draw + row, num_columns = e->model.vocab_size;
    const Draw &draw = e->draws->draws[index];
    const int position = e->inputs.position_ids[token_before(e, draw)] + 1;
    if (e->num_deciding[row]) {
        const Draws &draws = *e->draws;
        draws.token_ids[index] = e->kernels->sampling->draw_from(
            draw, position, shortlists_of(e, row), pool_num_threads(e->pool), num_columns, scratch_of(e, thread),
            &draws.largest[index], &draws.surprisals[index]);
        return;
    }
    const float *logits = e->output + (int64_t)row * e->output_stride;
    const float *maxima = e->head_maxima + (int64_t)row * num_maxima(num_columns);
    draw_row(e, index, position, scratch_of(e, thread), logits, maxima, logits, maxima);
}

const float *find_maxima(const Engine *e, const float *logits, float *maxima) {
    const int num_columns = e->model.vocab_size;
    for (int span = 0; span < num_spans(num_columns); span++)
        e->kernels->sampling->write_maxima(logits + span * SPAN, num_columns - span * SPAN,
                                           maxima + span * SPAN_MAXIMA);
    return maxima;
}

void draw_edited(void *context, int row, int thread) {
    Engine *e = (Engine *)context;
    const SamplingScratch scratch = scratch_of(e, thread);
    const float *logits = e->edited_logits + (int64_t)row * e->edited_stride;
    const float *raw = e->raw_logits + (int64_t)row * e->raw_stride;
    const float *maxima = find_maxima(e, logits, scratch.row_maxima);
    const float *raw_maxima = maxima;
    if (raw != logits && e->draws->draws[row].num_top >= 0) raw_maxima = find_maxima(e, raw, scratch.raw_maxima);
    draw_row(e, row, e->draws->draws[row].position, scratch, logits, maxima, raw, raw_maxima);
}

// --------------------------------------------------------------------------------------------------------- a step

// A sequence continues the one before if its first token is behind that one's last, whose block it has, too: a block that a
// step writes to belongs to one sequence.
void find_chunks(Engine *e, const Step &step) {
    const int32_t *positions = e->inputs.position_ids, *block_ids = e->inputs.block_ids;
    e->num_chunks = 0;
    for (int s = 0; s < step.num_sequences; s++) {
        const int begin = e->inputs.token_begins[s], table = e->inputs.block_begins[s];
        const int before = positions[begin] - 1;
        const bool continues = s > 0 && before >= 0 && positions[begin - 1] == before &&
                               block_ids[table + before / BLOCK_TOKENS] ==
                                   block_ids[e->inputs.block_begins[s - 1] + before / BLOCK_TOKENS];
        if (!continues) e->chunk_begins[e->num_chunks++] = begin;
        e->chunk_tables[e->num_chunks - 1] = table;
    }
    e->chunk_begins[e->num_chunks] = step.num_tokens;
}

void normalize(Engine *e, const Norm &norm) {
    e->norm = &norm;
    run(e, normalize_row, e->num_rows);
}

// What a product works on: output (rows, output_stride) = or += input · matrix. `next`: the matrix after it. The caller
// divides its rows: e->rows_each.
void set_product(Engine *e, const Matrix &matrix, const Matrix *next, const Activations &input, Epilogue epilogue,
                 float *output, int output_stride) {
    e->matrix = &matrix;
    e->next_matrix = next;
    e->epilogue = epilogue;
    e->input = input;
    e->output = output;
    e->output_stride = output_stride;
}

void multiply(Engine *e, const Matrix &matrix, const Matrix *next, const Activations &input, Epilogue epilogue,
              float *output, int output_stride) {
    set_product(e, matrix, next, input, epilogue, output, output_stride);
    // As many rows as stay in a second cache while their panels come and go. An even number, for rows side by side. Processors
    // with tiles, which take two bytes, have 2 MiB.
    const int cached_bytes = has_groups(e->kernels) ? 1 << 18 : 1 << 19;
    const int bytes_each = input.bytes ? input.stride_bytes : input.stride_floats * 4;
    e->rows_each = bounded(cached_bytes / bytes_each, 32, 1 << 16) / 32 * 32;
    run(e, multiply_panels, num_items(e));
}

// Logits and draws of `num` draws from e->first_draw on; the logits begin in row `row` of e->logits.
void compute_draws(Engine *e, int num, int row) {
    const Model &m = e->model;
    e->num_rows = num;
    run(e, prepare_drawn, num);
    set_product(e, m.head, nullptr, e->narrow, STORE, e->logits + (int64_t)row * logits_stride(m), logits_stride(m));
    e->head_maxima = e->maxima + (int64_t)row * num_maxima(m.vocab_size);
    e->rows_each = num;
    e->has_shortlists = false;
    for (int i = 0; i < num; i++) e->has_shortlists |= e->num_deciding[i] > 0;
    run(e, multiply_span, num_spans(m.vocab_size));
    e->num_edited = bounded(e->draws->num_edited - e->first_draw, 0, num);
    run(e, draw_computed, num - e->num_edited);
    e->first_draw += num;
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

int engine_logits_stride(const Model *model) { return logits_stride(*model); }

int engine_step(Engine *e, Step *step) {
    const Model &m = e->model;
    int num_context_tokens = 0;
    e->inputs.token_ids = step->inputs;
    e->inputs.position_ids = e->inputs.token_ids + step->num_tokens;
    e->inputs.token_begins = e->inputs.position_ids + step->num_tokens;
    e->inputs.block_begins = e->inputs.token_begins + step->num_sequences + 1;
    e->inputs.block_ids = e->inputs.block_begins + step->num_sequences + 1;
    for (int i = 0; i < step->num_tokens; i++)
        num_context_tokens = most(num_context_tokens, e->inputs.position_ids[i] + 1);
    const Draws &draws = *step->draws;
    const int num_logits = bounded(draws.num_draws, 0, draws.num_edited + HEAD_ROWS);
    if (!reserve(e, most(step->num_tokens, num_logits), num_context_tokens, num_logits)) return -1;
    e->num_rows = step->num_tokens;
    e->is_in_order = step->num_tokens <= IN_ORDER_TOKENS;
    find_chunks(e, *step);
    e->heads_each = bounded(e->num_chunks * m.num_heads / (pool_num_threads(e->pool) * 8), 1, m.num_heads);
    const int attention_items = e->num_chunks * ((m.num_heads + e->heads_each - 1) / e->heads_each);
    const Activations &narrow = e->narrow, &wide = e->wide;
    run(e, embed_row, e->num_rows);
    for (e->layer = 0; e->layer < m.num_layers; e->layer++) {
        const Layer &layer = m.layers[e->layer];
        const Matrix *next = e->layer + 1 < m.num_layers ? &m.layers[e->layer + 1].qkv : &m.head;
        normalize(e, layer.norm_1);
        multiply(e, layer.qkv, &layer.projection, narrow, STORE, e->qkv, 3 * m.width);
        run(e, attend_heads, attention_items);
        if (narrow.bytes && !attention_quantizes(e)) run(e, quantize_narrow_row, e->num_rows);
        multiply(e, layer.projection, &layer.up, narrow, ADD, e->residual, m.width);
        normalize(e, layer.norm_2);
        multiply(e, layer.up, &layer.down, narrow, ACTIVATE, wide.values, wide.stride_floats);
        if (wide.bytes && !has_groups(e->kernels)) run(e, quantize_wide_row, e->num_rows);
        multiply(e, layer.down, next, wide, ADD, e->residual, m.width);
    }
    e->draws = &draws;
    e->first_draw = 0;
    while (e->first_draw < draws.num_draws) {
        // Edited rows, which come first, stay; the others' logits are of no use once they are drawn from.
        const int row = bounded(e->first_draw, 0, draws.num_edited);
        compute_draws(e, bounded(draws.num_draws - e->first_draw, 1, HEAD_ROWS), row);
    }
    step->logits = e->logits;
    return 0;
}

int engine_draw(Engine *e, const Draws *draws, const float *logits, int stride, const float *raw, int raw_stride) {
    if (!reserve(e, 0, 0, 0)) return -1; // nothing, after a step: its logits stay
    e->is_in_order = false;
    e->draws = draws;
    e->edited_logits = logits;
    e->raw_logits = raw;
    e->edited_stride = stride;
    e->raw_stride = raw_stride;
    run(e, draw_edited, draws->num_draws);
    return 0;
}
}
