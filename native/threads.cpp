#include "threads.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#endif

namespace {

constexpr int SPINS = 2000; // pauses before a thread sleeps: longer than the gaps within a step, far below a time slice

// The items that are left of a thread's share of the job: the first one, and the end. In one word, so that an item is taken
// once. A thread that comes late may take an item of the job after, which is as good.
struct alignas(128) Share {
    uint64_t left;
};
inline uint64_t items(uint32_t first, uint32_t end) { return (uint64_t)end << 32 | first; }

struct Job {
    Work work;
    void *context;
};

inline void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

} // namespace

struct Pool {
    alignas(128) uint32_t num_done; // items of the current job that are counted
    alignas(128) uint32_t epoch;    // changes with each job: what threads sleep on
    uint32_t num_sleeping;
    bool is_closing;
    bool is_in_order; // the current job, which a late thread may not know yet: it takes another item then
    Job job;
    int num_threads, num_started; // the caller's among them
    pid_t process;                // a fork has a copy of the pool without its threads
    Share *shares;                // (num_threads)
    pthread_t *threads;
    pthread_mutex_t lock;
    pthread_cond_t wake;
};

namespace {

struct Start {
    Pool *pool;
    int thread;
};

inline bool load(const bool &flag) { return __atomic_load_n(&flag, __ATOMIC_ACQUIRE); }

// The first item of a thread's share, or the last; -1 if none is left.
int take_item(Share &share, bool is_first) {
    uint64_t left = __atomic_load_n(&share.left, __ATOMIC_ACQUIRE);
    for (;;) {
        const uint32_t first = (uint32_t)left, end = (uint32_t)(left >> 32);
        if (first >= end) return -1;
        const uint64_t rest = is_first ? items(first + 1, end) : items(first, end - 1);
        if (__atomic_compare_exchange_n(&share.left, &left, rest, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
            return (int)(is_first ? first : end - 1);
    }
}

// Takes items until none is left: a thread's own, then the last ones of the others. In order there is one share for all.
void take_items(Pool *pool, int thread) {
    for (int i = 0; i < pool->num_threads; i++) {
        Share &share = pool->shares[(thread + i) % pool->num_threads];
        uint32_t num = 0;
        for (int item; (item = take_item(share, i == 0 || load(pool->is_in_order))) >= 0; num++) {
            // The job can't end before this item is counted, so `job` is not written meanwhile.
            const Job job = pool->job;
            job.work(job.context, item, thread);
        }
        // Counted together: the counter moves between the cores each time.
        if (num) __atomic_fetch_add(&pool->num_done, num, __ATOMIC_ACQ_REL);
    }
}

void sleep_while(Pool *pool, uint32_t epoch) {
    __atomic_fetch_add(&pool->num_sleeping, 1, __ATOMIC_SEQ_CST);
#if defined(__linux__)
    if (__atomic_load_n(&pool->epoch, __ATOMIC_SEQ_CST) == epoch)
        syscall(SYS_futex, &pool->epoch, FUTEX_WAIT_PRIVATE, epoch, nullptr, nullptr, 0);
#else
    pthread_mutex_lock(&pool->lock);
    while (__atomic_load_n(&pool->epoch, __ATOMIC_SEQ_CST) == epoch) pthread_cond_wait(&pool->wake, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
#endif
    __atomic_fetch_sub(&pool->num_sleeping, 1, __ATOMIC_SEQ_CST);
}

void wake_all(Pool *pool) {
    __atomic_fetch_add(&pool->epoch, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&pool->num_sleeping, __ATOMIC_SEQ_CST) == 0) return;
#if defined(__linux__)
    syscall(SYS_futex, &pool->epoch, FUTEX_WAKE_PRIVATE, 1 << 20, nullptr, nullptr, 0);
#else
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
#endif
}

void *run_thread(void *argument) {
    const Start start = *(Start *)argument;
    free(argument);
    Pool *pool = start.pool;
    for (;;) {
        const uint32_t epoch = __atomic_load_n(&pool->epoch, __ATOMIC_SEQ_CST);
        if (load(pool->is_closing)) return nullptr;
        take_items(pool, start.thread);
        int spins = 0;
        while (__atomic_load_n(&pool->epoch, __ATOMIC_ACQUIRE) == epoch) {
            if (++spins > SPINS) {
                sleep_while(pool, epoch);
                break;
            }
            relax();
        }
    }
}

} // namespace

Pool *pool_open(int num_threads) {
    Pool *pool = (Pool *)aligned_alloc(128, (sizeof(Pool) + 127) / 128 * 128);
    if (!pool) return nullptr;
    *pool = Pool{};
    pool->num_threads = num_threads;
    pool->num_started = 1;
    pool->process = getpid();
    pthread_mutex_init(&pool->lock, nullptr);
    pthread_cond_init(&pool->wake, nullptr);
    pool->shares = (Share *)aligned_alloc(128, (size_t)num_threads * sizeof(Share));
    pool->threads = (pthread_t *)calloc((size_t)num_threads, sizeof(pthread_t));
    int error = pool->shares && pool->threads ? 0 : ENOMEM;
    for (int i = 0; !error && i < num_threads; i++) pool->shares[i] = Share{};
    // Signals are for the threads of the program, not for these.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int i = 1; !error && i < num_threads; i++) {
        Start *start = (Start *)malloc(sizeof(Start));
        if (!start) {
            error = ENOMEM;
            break;
        }
        *start = Start{pool, i};
        error = pthread_create(&pool->threads[i], nullptr, run_thread, start);
        if (error) free(start);
        else pool->num_started++;
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (!error) return pool;
    pool_close(pool);
    errno = error;
    return nullptr;
}

void pool_close(Pool *pool) {
    if (!pool || pool->process != getpid()) return; // a fork has no threads to join; its memory ends with it
    __atomic_store_n(&pool->is_closing, true, __ATOMIC_RELEASE);
    wake_all(pool);
    for (int i = 1; i < pool->num_started; i++) pthread_join(pool->threads[i], nullptr);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    free(pool->threads);
    free(pool->shares);
    free(pool);
}

int pool_num_threads(const Pool *pool) { return pool->num_threads; }

int pool_first_item(const Pool *pool, int thread, int num_items) {
    return (int)((int64_t)num_items * thread / pool->num_threads);
}

void pool_run(Pool *pool, Work work, void *context, int num_items, bool is_in_order) {
    if (pool->num_threads == 1 || num_items <= 1) {
        for (int item = 0; item < num_items; item++) work(context, item, 0);
        return;
    }
    pool->job = Job{work, context};
    __atomic_store_n(&pool->num_done, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&pool->is_in_order, is_in_order, __ATOMIC_RELAXED);
    for (int i = 0; i < pool->num_threads; i++) {
        int first = pool_first_item(pool, i, num_items), end = pool_first_item(pool, i + 1, num_items);
        if (is_in_order) first = 0, end = i == 0 ? num_items : 0;
        __atomic_store_n(&pool->shares[i].left, items((uint32_t)first, (uint32_t)end), __ATOMIC_RELEASE);
    }
    wake_all(pool);
    take_items(pool, 0);
    for (int spins = 0; __atomic_load_n(&pool->num_done, __ATOMIC_ACQUIRE) != (uint32_t)num_items; spins++) {
        // What is left is in other threads' hands. If the system has taken their core, let them have this one.
        if (spins > SPINS) sched_yield();
        else relax();
    }
}
