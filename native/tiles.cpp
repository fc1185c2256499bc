#include "tiles.h"

#if defined(__x86_64__) && defined(__linux__) && !defined(EMULATED_TILES)
#include <sys/syscall.h>
#include <unistd.h>

bool may_use_tiles(void) {
    constexpr int ARCH_REQ_XCOMP_PERM = 0x1023, TILE_DATA = 18;
    return !syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA);
}
#elif defined(EMULATED_TILES)
bool may_use_tiles(void) { return true; }
#else
bool may_use_tiles(void) { return false; }
#endif
