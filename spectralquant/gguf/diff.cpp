#include "spectralquant/gguf/diff.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>

#include "spectralquant/core/parallel.h"

namespace spectralquant::gguf {
namespace {

constexpr std::uint64_t kChunkBytes = 4 << 20;

bool equal(const Value& a, const Value& b) {
  return a.type() == b.type() && a.bytes() == b.bytes();
}

/// First element in which two arrays of strings differ; both have more than that many, or one ends
/// there.
std::size_t first_different(const std::vector<std::string_view>& a,
                            const std::vector<std::string_view>& b) {
  return static_cast<std::size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first -
                                  a.begin());
}

/// The two values as text that shows how they differ, also when it is element 3000 of a list.
KeyDifference describe(const std::string& key, const Value& left, const Value& right) {
  KeyDifference result{key, left.to_display(), right.to_display()};
  if (left.type() != right.type() || left.element_type() != right.element_type()) {
    *result.left += fmt::format(" ({})", value_type_name(left.type()));
    *result.right += fmt::format(" ({})", value_type_name(right.type()));
    return result;
  }
  if (!left.is_array() || *result.left != *result.right) return result;
  const auto add = [](std::string& text, std::size_t i, std::string element) {
    text += fmt::format(", element {} is {}", i, element);
  };
  if (left.element_type() == ValueType::kString) {
    const auto a = left.strings(), b = right.strings();
    const std::size_t i = first_different(a, b);
    add(*result.left, i, fmt::format("\"{}\"", a[i]));
    add(*result.right, i, fmt::format("\"{}\"", b[i]));
  } else {
    const auto a = left.numbers(), b = right.numbers();
    std::size_t i = 0;
    while (i + 1 < a.size() && a[i] == b[i]) ++i;
    add(*result.left, i, fmt::format("{}", a[i]));
    add(*result.right, i, fmt::format("{}", b[i]));
  }
  return result;
}

std::string layout_text(const Tensor& tensor) {
  return fmt::format("{} {}", traits(tensor.type).name, tensor.shape_text());
}

/// Counts the different bytes and blocks of two tensors of the same layout.
void count_differences(const Tensor& left, const Tensor& right, TensorDifference& result) {
  const std::uint64_t block_bytes = traits(left.type).block_bytes;
  const std::uint64_t chunk_bytes = kChunkBytes / block_bytes * block_bytes;
  result.n_bytes = left.size_bytes;
  result.n_blocks = left.size_bytes / block_bytes;
  std::atomic<std::uint64_t> n_bytes{0}, n_blocks{0};
  parallel_for((left.size_bytes + chunk_bytes - 1) / chunk_bytes, 0, [&](std::size_t chunk) {
    const std::uint64_t begin = chunk * chunk_bytes,
                        end = std::min(begin + chunk_bytes, left.size_bytes);
    if (std::memcmp(left.data + begin, right.data + begin, end - begin) == 0) return;
    std::uint64_t bytes = 0, blocks = 0;
    for (std::uint64_t at = begin; at < end; at += block_bytes) {
      if (std::memcmp(left.data + at, right.data + at, block_bytes) == 0) continue;
      ++blocks;
      for (std::uint64_t i = at; i < at + block_bytes; ++i) bytes += left.data[i] != right.data[i];
    }
    n_bytes += bytes;
    n_blocks += blocks;
  });
  result.n_bytes_different = n_bytes;
  result.n_blocks_different = n_blocks;
}

}  // namespace

Difference compare(const File& left, const File& right) {
  Difference result;
  for (const KeyValue& item : left.metadata().items()) {
    const Value* other = right.metadata().find(item.key);
    if (!other)
      result.keys.push_back({item.key, item.value.to_display(), std::nullopt});
    else if (equal(item.value, *other))
      ++result.n_keys_equal;
    else
      result.keys.push_back(describe(item.key, item.value, *other));
  }
  for (const KeyValue& item : right.metadata().items())
    if (!left.metadata().find(item.key))
      result.keys.push_back({item.key, std::nullopt, item.value.to_display()});

  for (const Tensor& tensor : left.tensors()) {
    TensorDifference difference{tensor.name, layout_text(tensor), std::nullopt};
    if (const Tensor* other = right.find(tensor.name)) {
      difference.right = layout_text(*other);
      if (difference.same_layout()) {
        count_differences(tensor, *other, difference);
        if (difference.n_bytes_different == 0) {
          ++result.n_tensors_equal;
          continue;
        }
      }
    }
    result.tensors.push_back(std::move(difference));
  }
  for (const Tensor& tensor : right.tensors())
    if (!left.find(tensor.name))
      result.tensors.push_back({tensor.name, std::nullopt, layout_text(tensor)});
  return result;
}

}  // namespace spectralquant::gguf
