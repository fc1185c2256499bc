#include "targets.h"

#include <pthread.h>
#include <string.h>
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

#include "tiles.h"

#if defined(__x86_64__)
extern const Kernels amx, avx512vnni, avxvnni, avx2, sse2;

namespace {

struct Registers {
    uint32_t a, b, c, d;
};
Registers cpuid(uint32_t leaf, uint32_t subleaf) {
    Registers r;
    asm volatile("cpuid" : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d) : "a"(leaf), "c"(subleaf));
    return r;
}
uint64_t saved_states() { // which registers the system saves (XCR0)
    uint32_t low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}
bool bit(uint32_t word, int index) { return word >> index & 1; }

bool has_tiles(const Registers &seven) { // AMX_TILE and AMX_INT8
#if defined(EMULATED_TILES)
    (void)seven;
    return true;
#else
    return bit(seven.d, 24) && bit(seven.d, 25);
#endif
}

struct Features {
    bool has_avx2, has_avxvnni, has_avx512vnni, has_amx;
    Features() : has_avx2(false), has_avxvnni(false), has_avx512vnni(false), has_amx(false) {
        if (cpuid(0, 0).a < 7) return;
        const Registers one = cpuid(1, 0), seven = cpuid(7, 0);
        const bool has_xsave = bit(one.c, 27), has_fma = bit(one.c, 12);
        if (!has_xsave || !has_fma || (saved_states() & 6) != 6) return;
        has_avx2 = bit(seven.b, 5);
        has_avxvnni = has_avx2 && seven.a >= 1 && bit(cpuid(7, 1).a, 4);
        const bool has_avx512 =
            bit(seven.b, 16) && bit(seven.b, 30) && bit(seven.b, 31) && bit(seven.b, 17); // F, BW, VL, DQ
        has_avx512vnni = has_avx512 && bit(seven.c, 11) && (saved_states() & 0xe6) == 0xe6;
        has_amx = has_avx512vnni && has_tiles(seven) && may_use_tiles();
    }
};

int find_targets(const Kernels **found) {
    const Features features;
    int num = 0;
    if (features.has_amx) found[num++] = &amx;
    if (features.has_avx512vnni) found[num++] = &avx512vnni;
    if (features.has_avxvnni) found[num++] = &avxvnni;
    if (features.has_avx2) found[num++] = &avx2;
    found[num++] = &sse2;
    return num;
}

} // namespace

#elif defined(__aarch64__)
extern const Kernels i8mm, dotprod, neon;

namespace {

#if defined(__APPLE__)
bool has_feature(const char *name) { // 0 or 1; a system that does not know the name has none of its processors
    int value = 0;
    size_t size = sizeof value;
    return !sysctlbyname(name, &value, &size, nullptr, 0) && value;
}
bool has_i8mm() { return has_feature("hw.optional.arm.FEAT_I8MM"); }
bool has_dotprod() { return true; } // every Apple processor that runs macOS on arm64
#elif defined(__linux__)
bool has_i8mm() { return getauxval(AT_HWCAP2) >> 13 & 1; }   // HWCAP2_I8MM
bool has_dotprod() { return getauxval(AT_HWCAP) >> 20 & 1; } // HWCAP_ASIMDDP
#else
bool has_i8mm() { return false; }
bool has_dotprod() { return false; }
#endif

int find_targets(const Kernels **found) {
    int num = 0;
    if (has_i8mm()) found[num++] = &i8mm;
    if (has_dotprod()) found[num++] = &dotprod;
    found[num++] = &neon;
    return num;
}

} // namespace
#endif

const Kernels *find_kernels(const char *name) {
    const Kernels *found[8];
    const int num = find_targets(found);
    for (int i = 0; i < num; i++)
        if (!*name || !strcmp(found[i]->name, name)) return found[i];
    return nullptr;
}

namespace {

char names[64];
void write_names() {
    const Kernels *found[8];
    const int num = find_targets(found);
    for (int i = 0; i < num; i++) {
        if (i) strcat(names, " ");
        strcat(names, found[i]->name);
    }
}

} // namespace

const char *target_names(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, write_names);
    return names;
}
