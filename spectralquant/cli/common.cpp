#include "spectralquant/cli/common.h"

#include <malloc.h>

#include "spectralquant/cli/console.h"
#include "spectralquant/model/threads.h"
#include "spectralquant/pipeline/option_table.h"

namespace spectralquant::cli {
namespace {

/// Lets the C library keep freed memory. By default it hands every freed activation back to the
/// system, which has to clear its pages again for the next: an eighth of the time that `eval` takes
/// on a small model.
void keep_freed_memory() {
#if defined(__GLIBC__)
  // the most that glibc accepts: activations of a batch are smaller, matrices larger
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 256 << 20);  // a few batches' worth
#endif
}

}  // namespace

void add_common(CLI::App& verb, CommonOptions& options, bool runs_model) {
  verb.add_flag("--json", options.json, "print the result as JSON on stdout");
  verb.add_flag("-q,--quiet", options.quiet, "no progress, only errors");
  if (!runs_model) return;
  verb.add_option("--threads", options.n_threads, pipeline::find_option("threads").help)
      ->check(CLI::Range(0, 4096).description(""));
  verb.add_option("--seed", options.seed, pipeline::find_option("seed").help)
      ->capture_default_str();
  verb.add_option("--device", options.device, pipeline::find_option("device").help)
      ->capture_default_str();
}

void prepare_engine(const CommonOptions& options, Console& console) {
  keep_freed_memory();
  model::set_threads(options.n_threads);
  if (model::blas_is_slow()) {
    console.say(
        "warning    matrix products run on a reference BLAS, about 100 times slower than they "
        "could: apt-get install libopenblas0-pthread");
  }
}

}  // namespace spectralquant::cli
