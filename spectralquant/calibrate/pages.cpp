#include "spectralquant/calibrate/pages.h"

#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>

namespace spectralquant::calibrate {

void trim_memory() {
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
}

void page_out(const torch::Tensor& tensor) {
#if defined(MADV_PAGEOUT)
  if (!tensor.defined() || !tensor.device().is_cpu()) return;
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<std::uintptr_t>(tensor.data_ptr()),
             first = (begin + page - 1) / page * page,
             last = (begin + tensor.nbytes()) / page * page;
  // an advice only: it never changes what the pages hold
  if (first < last) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_PAGEOUT);
#endif
}

}  // namespace spectralquant::calibrate
