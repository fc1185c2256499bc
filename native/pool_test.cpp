// The driver's test of the pool: every item runs once, whatever sleeps, spins, closes or forks.
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "threads.h"

namespace {

struct Counts {
    int *runs; // (items): not atomic, so that the thread sanitizer sees two threads in one item
    int num_threads;
    bool is_outside;
};

void count(void *context, int item, int thread) {
    Counts *counts = (Counts *)context;
    counts->runs[item]++;
    if (thread < 0 || thread >= counts->num_threads) counts->is_outside = true;
}

bool is_each_item_once(Pool *pool, int num_items) {
    // On the stack and freed at once: a thread that came back to a finished job would be an error to the address sanitizer.
    Counts counts = {(int *)calloc((size_t)num_items + 1, sizeof(int)), pool_num_threads(pool), false};
    if (!counts.runs) return false;
    pool_run(pool, count, &counts, num_items, num_items % 2 == 0);
    bool is_right = !counts.is_outside && counts.runs[num_items] == 0;
    for (int i = 0; i < num_items; i++) is_right = is_right && counts.runs[i] == 1;
    free(counts.runs);
    return is_right;
}

// Pauses of every kind: threads still spin, fall asleep just now, have slept for long.
bool are_jobs_whole(Pool *pool, int num_jobs) {
    for (int job = 0; job < num_jobs; job++) {
        if (!is_each_item_once(pool, job * 7 % 23)) return false;
        if (job % 5 == 4) usleep((useconds_t)(job * 13 % 200));
    }
    return true;
}

bool is_fork_whole(Pool *pool) {
    const pid_t child = fork();
    if (child == 0) {
        alarm(20); // ends a child that waits for threads that it has not
        const bool is_right = is_each_item_once(pool, 100) && is_each_item_once(pool, 1);
        pool_close(pool);
        _exit(is_right ? 0 : 1);
    }
    int status = -1;
    return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

const char *failure(int num_threads, int num_jobs) {
    for (int i = 0; i < num_jobs / 50; i++) { // closed while threads start, spin or sleep
        Pool *pool = pool_open(num_threads);
        if (!pool) return "a pool did not open";
        if (i % 3 && !is_each_item_once(pool, i % 40)) return "an item of a new pool did not run once";
        if (i % 3 == 2) usleep(300);
        pool_close(pool);
    }
    Pool *pool = pool_open(num_threads);
    if (!pool) return "a pool did not open";
    if (!are_jobs_whole(pool, num_jobs)) return "an item did not run once";
    if (!is_each_item_once(pool, (1 << 22) + 5)) return "one of millions of items did not run once";
    if (!is_fork_whole(pool)) return "a fork of the process did not do all items";
    if (!is_each_item_once(pool, 100)) return "after a fork an item did not run once";
    pool_close(pool);
    return nullptr;
}

} // namespace

int test_pool(int num_threads, int num_jobs) {
    const char *what = failure(num_threads, num_jobs);
    if (what) fprintf(stderr, "%d threads: %s\n", num_threads, what);
    return what != nullptr;
}
