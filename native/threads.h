// A pool of threads that takes numbered items from a counter.
//
// A thread that loses its core delays only the item that it holds: the caller waits for items, not for threads.
// Threads without work spin for a short time and then sleep, so an idle process uses no processor time.
#pragma once
#include <stdint.h>

struct Pool;
typedef void (*Work)(void *context, int item, int thread);

// Starts `num_threads - 1` threads beside the caller's. Null on failure, with errno: ENOMEM, EAGAIN (no more threads).
Pool *pool_open(int num_threads);
void pool_close(Pool *); // not while a job runs
int pool_num_threads(const Pool *);
// Runs work(context, item, thread) once for each item below `num_items`; returns when all of them are done. One caller at a time.
// In a fork of the process, which has no other threads, the caller does all items.
void pool_run(Pool *, Work, void *context, int num_items);
