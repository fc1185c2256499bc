// Which kernels there are, and which of them this processor runs.
#pragma once
#include "kernels.h"

// The kernels called `name`, or the best if it is empty; null if the processor does not run them.
const Kernels *find_kernels(const char *name);
// Names of the targets that this processor runs, the best first, separated by spaces.
const char *target_names(void);
