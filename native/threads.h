// A pool of threads that take numbered items: each a share of neighbours, then the last ones of threads that are behind.
//
// A thread that loses its core delays only the item that it holds: the caller waits for items, not for threads. Jobs with the
// same number of items give a thread the same ones, so it finds what it wrote in its own cache.
// Threads without work spin for a short time and then sleep, so an idle process uses no processor time.
#pragma once
#include <stdint.h>

struct Pool;
typedef void (*Work)(void *context, int item, int thread);

// Starts `num_threads - 1` threads beside the caller's. Null on failure, with errno: ENOMEM, EAGAIN (no more threads).
Pool *pool_open(int num_threads);
void pool_close(Pool *); // not while a job runs
int pool_num_threads(const Pool *);
// Where a thread's share of `num_items` begins, and that of the thread before ends.
int pool_first_item(const Pool *, int thread, int num_items);
// Runs work(context, item, thread) once for each item below `num_items`; returns when all of them are done. One caller at a time.
// In a fork of the process, which has no other threads, the caller does all items.
// `is_in_order`: without shares; threads take one item after the other, so that they read neighbouring memory.
void pool_run(Pool *, Work, void *context, int num_items, bool is_in_order);
