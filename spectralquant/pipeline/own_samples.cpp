#include "spectralquant/pipeline/own_samples.h"

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace spectralquant::pipeline {

OwnSamples own_samples(WorkFolder* work, std::string_view name, std::size_t n,
                       std::size_t window_tokens, const distribute::Group& group,
                       const std::function<calibrate::Windows()>& write) {
  // token ids, int32, window after window
  const std::size_t window_bytes = window_tokens * sizeof(std::int32_t);
  const std::string kept = group.broadcast(work ? work->read(name).value_or("") : "", 0);
  OwnSamples out;
  if (kept.size() == n * window_bytes) {
    out.kept = true;
    out.windows.assign(n, std::vector<std::int32_t>(window_tokens));
    for (std::size_t i = 0; i < n; ++i)
      std::memcpy(out.windows[i].data(), kept.data() + i * window_bytes, window_bytes);
    return out;
  }
  out.windows = write();
  std::string flat;
  for (const auto& window : out.windows)
    flat.append(reinterpret_cast<const char*>(window.data()), window_bytes);
  if (work) work->write(name, flat);
  return out;
}

}  // namespace spectralquant::pipeline
