// Runs models from standard input and writes what they compute to standard output: the kernels' tests, natively, under
// emulation, and under sanitizers. Numbers are in this machine's order, pointers are offsets into one block of bytes.
//
//   int32 target length, target name, int32 threads, int64 size, that many bytes, the Model (pointers: offset + 1, 0: null)
//   then steps:  int32 number of tokens T, int32 sequences R, int32 block tables' length B, inputs of Step, draws
//   or, T = -1:  draws, logits (N, V), logits before they were edited (N, V)
//   T = 0 ends
//   draws:       int32 number N, int32 edited ones M, int32 listed tokens each L, Draw[N]
//   answer:      after a step logits (M, V); then the results as in Draws
//
// `driver targets` names what this processor runs; `driver pool THREADS JOBS` tests the pool of threads.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "step.h"

int test_pool(int num_threads, int num_jobs); // pool_test.cpp

namespace {

void fail(const char *what) {
    fprintf(stderr, "driver: %s\n", what);
    exit(2);
}
void read_all(void *to, size_t size) {
    if (size && fread(to, 1, size, stdin) != size) fail("the input ends too soon");
}
template <class T> T *read_array(size_t count) {
    T *array = (T *)malloc(count * sizeof(T) + 1);
    if (!array) fail("no memory");
    read_all(array, count * sizeof(T));
    return array;
}
template <class T> T *read_exact(size_t count) {
    T *array = (T *)malloc(count * sizeof(T));
    if (!array && count) fail("no memory");
    read_all(array, count * sizeof(T));
    return array;
}
template <class T> T read_one() {
    T value;
    read_all(&value, sizeof value);
    return value;
}
template <class T> void relocate(T *&pointer, char *base) {
    pointer = pointer ? (T *)(base + (intptr_t)pointer - 1) : nullptr;
}
// Vectors get memory of their own, without padding: the address sanitizer sees a read behind the last number.
float *copies[256];
int num_copies = 0;
void relocate(const float *&vector, int count, char *base) {
    relocate(vector, base);
    if (!vector) return;
    const size_t size = (size_t)count * sizeof(float);
    float *copy = num_copies < 256 ? (float *)malloc(size) : nullptr;
    if (!copy) fail("no memory");
    memcpy(copy, vector, size);
    copies[num_copies++] = copy;
    vector = copy;
}
void relocate(Norm &norm, int width, char *base) {
    relocate(norm.weight, width, base);
    relocate(norm.bias, width, base);
}
void relocate(Matrix &matrix, char *base) {
    relocate(matrix.panels, base);
    relocate(matrix.scale, matrix.num_columns, base);
    relocate(matrix.bias, matrix.num_columns, base);
}

Draws read_draws() {
    Draws draws = {};
    draws.num_draws = read_one<int32_t>();
    draws.num_edited = read_one<int32_t>();
    draws.max_top = read_one<int32_t>();
    const size_t num = (size_t)draws.num_draws, num_top = num * (size_t)draws.max_top;
    draws.draws = read_array<Draw>(num);
    draws.token_ids = (int32_t *)calloc(num + 1, sizeof(int32_t));
    draws.largest = (float *)calloc(num + 1, sizeof(float));
    draws.surprisals = (double *)calloc(num + 1, sizeof(double));
    draws.logprobs = (double *)calloc(num + 1, sizeof(double));
    draws.top_ids = (int32_t *)calloc(num_top + 1, sizeof(int32_t));
    draws.top_logprobs = (double *)calloc(num_top + 1, sizeof(double));
    if (!draws.token_ids || !draws.largest || !draws.surprisals || !draws.logprobs || !draws.top_ids ||
        !draws.top_logprobs)
        fail("no memory");
    return draws;
}
void write_draws(const Draws &draws) {
    const size_t num = (size_t)draws.num_draws, num_top = num * (size_t)draws.max_top;
    fwrite(draws.token_ids, sizeof(int32_t), num, stdout);
    fwrite(draws.largest, sizeof(float), num, stdout);
    fwrite(draws.surprisals, sizeof(double), num, stdout);
    fwrite(draws.logprobs, sizeof(double), num, stdout);
    fwrite(draws.top_ids, sizeof(int32_t), num_top, stdout);
    fwrite(draws.top_logprobs, sizeof(double), num_top, stdout);
    free((void *)draws.draws), free(draws.token_ids), free(draws.largest), free(draws.surprisals), free(draws.logprobs),
        free(draws.top_ids), free(draws.top_logprobs);
}

void run_step(Engine *engine, const Model &model, int num_tokens) {
    Step step = {};
    step.num_tokens = num_tokens;
    step.num_sequences = read_one<int32_t>();
    const size_t num_block_ids = (size_t)read_one<int32_t>();
    int32_t *inputs =
        read_exact<int32_t>(2 * (size_t)num_tokens + 2 * ((size_t)step.num_sequences + 1) + num_block_ids);
    const Draws draws = read_draws();
    step.inputs = inputs;
    step.draws = &draws;
    if (engine_step(engine, &step)) fail("no memory");
    for (int row = 0; row < draws.num_edited; row++)
        fwrite(step.logits + (int64_t)row * engine_logits_stride(&model), 4, (size_t)model.vocab_size, stdout);
    write_draws(draws);
    free(inputs);
}

// Each array has memory of its own, without padding: the address sanitizer sees a read behind the last logit.
void run_draws(Engine *engine, const Model &model) {
    const Draws draws = read_draws();
    const size_t num_logits = (size_t)draws.num_draws * (size_t)model.vocab_size;
    float *logits = read_exact<float>(num_logits), *raw = read_exact<float>(num_logits);
    if (engine_draw(engine, &draws, logits, model.vocab_size, raw, model.vocab_size)) fail("no memory");
    write_draws(draws);
    free(logits), free(raw);
}

} // namespace

int main(int num_words, char **words) {
    if (num_words == 2 && !strcmp(words[1], "targets")) return puts(engine_targets()) < 0;
    if (num_words == 4 && !strcmp(words[1], "pool")) return test_pool(atoi(words[2]), atoi(words[3]));
    const int length = read_one<int32_t>();
    char *target = read_array<char>((size_t)length + 0);
    target = (char *)realloc(target, (size_t)length + 1);
    target[length] = 0;
    const int num_threads = read_one<int32_t>();
    const int64_t size = read_one<int64_t>();
    char *base = (char *)aligned_alloc(128, (size_t)(size + 127) / 128 * 128 + 128);
    if (!base) fail("no memory");
    read_all(base, (size_t)size);
    Model model = read_one<Model>();
    relocate(model.layers, base);
    for (int i = 0; i < model.num_layers; i++) {
        Layer &layer = const_cast<Layer &>(model.layers[i]);
        relocate(layer.norm_1, model.width, base);
        relocate(layer.qkv, base);
        relocate(layer.projection, base);
        relocate(layer.norm_2, model.width, base);
        relocate(layer.up, base);
        relocate(layer.down, base);
    }
    relocate(model.final_norm, model.width, base);
    relocate(model.embedding, base);
    relocate(model.head, base);
    relocate(model.positions, base);
    const size_t cache_bytes = (size_t)(engine_block_bytes(&model) * model.num_blocks);
    model.cache = (uint8_t *)aligned_alloc(128, (cache_bytes + 127) / 128 * 128);
    if (!model.cache) fail("no memory");
    memset(model.cache, 0xff, cache_bytes); // NaN in every float: what is not written must not count
    Engine *engine = engine_open(&model, target, num_threads);
    if (!engine) fail(errno == ENOTSUP ? "this processor does not run that target" : strerror(errno));
    while (const int num_tokens = read_one<int32_t>()) {
        if (num_tokens > 0) run_step(engine, model, num_tokens);
        else run_draws(engine, model);
        fflush(stdout);
    }
    engine_close(engine);
    free(model.cache);
    free(base);
    free(target);
    for (int i = 0; i < num_copies; i++) free(copies[i]);
    return 0;
}
