#include "spectralquant/gguf/scan.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "spectralquant/core/error.h"
#include "spectralquant/core/parallel.h"
#include "spectralquant/gguf/codec/decoder.h"

namespace spectralquant::gguf {
namespace {

constexpr std::uint64_t kChunkValues = 1 << 16;  // 256 KiB of floats: stays in a core's own cache

/// Runs of zeros are suspicious from here on: a page of a download that is missing is longer.
constexpr std::uint64_t kLongRun = std::uint64_t{1} << 20;

bool is_integer(Type type) {
  return type == Type::I8 || type == Type::I16 || type == Type::I32 || type == Type::I64;
}

/// What one chunk has: runs of zeros at its ends may go on in its neighbours.
struct ChunkScan {
  std::uint64_t n_not_finite = 0, first = 0;
  bool first_is_nan = false;
  std::uint64_t n_front = 0, n_back = 0;  ///< zeros at its begin and end
  std::uint64_t best_begin = 0, n_best = 0;
  float largest = 0;
};

/// Branch-free so that the compiler vectorizes it.
struct Summary {
  bool all_finite, has_zero;
  float largest;  ///< magnitudes are in the order of their bits
};
Summary summarize(const float* values, std::uint64_t n) {
  std::uint32_t largest = 0, zero = 0;
  for (std::uint64_t i = 0; i < n; ++i) {
    const std::uint32_t magnitude = std::bit_cast<std::uint32_t>(values[i]) & 0x7fffffffu;
    largest = std::max(largest, magnitude);
    zero |= magnitude == 0;
  }
  return {largest < 0x7f800000u, zero != 0, std::bit_cast<float>(largest)};  // below infinity
}

ChunkScan scan_chunk(const float* values, std::uint64_t begin, std::uint64_t n) {
  ChunkScan scan;
  const Summary summary = summarize(values, n);
  scan.largest = summary.largest;
  for (std::uint64_t i = 0; !summary.all_finite && i < n; ++i) {
    if (std::isfinite(values[i])) continue;
    if (scan.n_not_finite++ > 0) continue;
    scan.first = begin + i;
    scan.first_is_nan = std::isnan(values[i]);
  }
  std::uint64_t run = 0;
  for (std::uint64_t i = 0; summary.has_zero && i < n; ++i) {
    run = values[i] == 0 ? run + 1 : 0;
    if (run == i + 1) scan.n_front = run;
    if (run > scan.n_best) scan.n_best = run, scan.best_begin = begin + i + 1 - run;
  }
  scan.n_back = run;
  return scan;
}

}  // namespace

ValueScan scan_values(const Tensor& tensor, int n_threads, const std::string& file_path) {
  ValueScan result;
  if (is_integer(tensor.type)) return result;
  const RowDecoder decoder = find_decoder(tensor.type);
  const TypeTraits& layout = traits(tensor.type);
  if (!decoder)
    throw bad_input(
        fmt::format("{} is {}, which cannot be decoded to floats", tensor.name, layout.name),
        file_path, "convert the model to BF16, F16 or F32");
  const std::uint64_t n_values = tensor.n_values(),
                      n_chunks = (n_values + kChunkValues - 1) / kChunkValues;
  std::vector<ChunkScan> chunks(n_chunks);
  parallel_for(n_chunks, n_threads, [&](std::size_t chunk) {
    const std::uint64_t begin = chunk * kChunkValues, n = std::min(kChunkValues, n_values - begin);
    static thread_local std::vector<float> values;
    values.resize(kChunkValues);
    decoder(tensor.data + begin / layout.block_values * layout.block_bytes, n, values.data());
    chunks[chunk] = scan_chunk(values.data(), begin, n);
  });

  std::uint64_t run = 0;  // of zeros, up to the end of the chunk before
  const auto longest = [&](std::uint64_t begin, std::uint64_t n) {
    if (n > result.n_zeros) result.zeros_begin = begin, result.n_zeros = n;
  };
  for (std::uint64_t c = 0; c < n_chunks; ++c) {
    const ChunkScan& chunk = chunks[c];
    const std::uint64_t begin = c * kChunkValues, n = std::min(kChunkValues, n_values - begin);
    if (chunk.n_not_finite > 0 && result.n_not_finite == 0) {
      result.first = chunk.first;
      result.first_is_nan = chunk.first_is_nan;
    }
    result.n_not_finite += chunk.n_not_finite;
    result.largest = std::max(result.largest, chunk.largest);
    longest(begin - run, run + chunk.n_front);
    longest(chunk.best_begin, chunk.n_best);
    run = chunk.n_front == n ? run + n : chunk.n_back;
  }
  return result;
}

std::string not_finite_text(const Tensor& tensor, const ValueScan& scan) {
  return fmt::format("{} holds {} at row {}, column {}", tensor.name,
                     scan.first_is_nan ? "NaN" : "an infinity", scan.first / tensor.n_cols(),
                     scan.first % tensor.n_cols());
}

void require_finite(const Tensor& tensor, const std::string& file_path) {
  const ValueScan scan = scan_values(tensor, 0, file_path);
  if (scan.n_not_finite == 0) return;
  throw bad_input(
      not_finite_text(tensor, scan),
      fmt::format("{}, {} {} {}", file_path, tensor.name, traits(tensor.type).name,
                  tensor.shape_text()),
      "the model file is damaged or was converted with overflow: convert it again as BF16 or F32");
}

bool is_suspiciously_zero(const Tensor& tensor, const ValueScan& scan) {
  return scan.n_zeros >= kLongRun || scan.n_zeros * 4 >= tensor.n_values();
}

std::string zeros_text(const Tensor& tensor, const ValueScan& scan) {
  if (scan.n_zeros == tensor.n_values()) return fmt::format("{} is zero throughout", tensor.name);
  return fmt::format("{} is zero from row {} to row {} ({} of {} values in one run)", tensor.name,
                     scan.zeros_begin / tensor.n_cols(),
                     (scan.zeros_begin + scan.n_zeros - 1) / tensor.n_cols(), scan.n_zeros,
                     tensor.n_values());
}

}  // namespace spectralquant::gguf
