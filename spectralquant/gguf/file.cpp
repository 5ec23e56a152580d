#include "spectralquant/gguf/file.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>

#include "spectralquant/core/error.h"
#include "spectralquant/core/hash.h"
#include "spectralquant/gguf/header.h"
#include "spectralquant/gguf/mapping.h"

namespace spectralquant::gguf {
namespace {

/// Bytes of a mapping between one leave_memory() and the next.
constexpr std::uint64_t kHashedAtOnce = std::uint64_t{64} << 20;

constexpr std::int64_t kMaxSplits = 99999;  // five digits in the name

/// Path of part `index` (from 0) of a set whose first part is `first`; nullopt when `first` is not
/// named like one.
std::optional<std::string> split_path(const std::string& first, std::int64_t index,
                                      std::int64_t count) {
  const std::string ending = fmt::format("-00001-of-{:05}.gguf", count);
  if (!first.ends_with(ending)) return std::nullopt;
  return fmt::format("{}-{:05}-of-{:05}.gguf", first.substr(0, first.size() - ending.size()),
                     index + 1, count);
}

}  // namespace

struct File::Impl {
  std::string path;
  std::vector<std::string> paths;
  std::vector<Mapping> mappings;
  std::uint32_t version = 0, alignment = 0;
  std::uint64_t size_bytes = 0;
  Metadata metadata;
  std::vector<Tensor> tensors;
  // names live in tensors, which no longer grows
  std::unordered_map<std::string_view, std::size_t> index;
  std::once_flag hash_once;
  std::string hash;

  Header add(const std::string& part) {
    const Mapping& mapping = mappings.emplace_back(part, "give a .gguf file");
    paths.push_back(part);
    size_bytes += mapping.size();
    return parse_header(mapping.data(), mapping.size(), part);
  }

  void add_other_parts(std::int64_t count) {
    const std::string again =
        "give the first part, with the other parts beside it under their original names";
    const std::int64_t number = metadata.int_or("split.no", 0);
    if (count > kMaxSplits)
      throw bad_input(
          fmt::format("split.count is {}; at most {} parts are possible", count, kMaxSplits), path,
          again);
    if (number != 0)
      throw bad_input(fmt::format("{} is part {} of {} of a split model, not the first", path,
                                  number + 1, count),
                      path, again);
    for (std::int64_t i = 1; i < count; ++i) {
      const auto part = split_path(path, i, count);
      if (!part)
        throw bad_input(
            fmt::format(
                "{} is the first of {} parts, but its name does not end in -00001-of-{:05}.gguf",
                path, count, count),
            path, again);
      if (::access(part->c_str(), F_OK) != 0)
        throw bad_input(fmt::format("part {} of {} of the split model is missing", i + 1, count),
                        *part, again);
      Header header = add(*part);
      if (header.metadata.int_or("split.no", -1) != i ||
          header.metadata.int_or("split.count", -1) != count)
        throw bad_input(fmt::format("{} says it is part {} of {}, not {} of {}", *part,
                                    header.metadata.int_or("split.no", -1) + 1,
                                    header.metadata.int_or("split.count", 0), i + 1, count),
                        *part, again);
      for (Tensor& tensor : header.tensors) tensors.push_back(std::move(tensor));
    }
    const std::int64_t promised =
        metadata.int_or("split.tensors.count", static_cast<std::int64_t>(tensors.size()));
    if (promised != static_cast<std::int64_t>(tensors.size()))
      throw bad_input(fmt::format("the {} parts hold {} tensors, but split.tensors.count is {}",
                                  count, tensors.size(), promised),
                      path, again);
  }
};

File::File(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
File::~File() = default;
File::File(File&&) noexcept = default;
File& File::operator=(File&&) noexcept = default;

File File::open(const std::string& path) {
  auto impl = std::make_unique<Impl>();
  impl->path = path;
  Header first = impl->add(path);
  impl->version = first.version;
  impl->alignment = first.alignment;
  impl->metadata = std::move(first.metadata);
  impl->tensors = std::move(first.tensors);
  if (const std::int64_t count = impl->metadata.int_or("split.count", 1); count > 1)
    impl->add_other_parts(count);
  for (std::size_t i = 0; i < impl->tensors.size(); ++i)
    if (!impl->index.emplace(impl->tensors[i].name, i).second)
      throw bad_input(
          fmt::format("tensor {} is there twice, in different parts", impl->tensors[i].name), path,
          "split the model again");
  return File(std::move(impl));
}

const std::string& File::path() const { return impl_->path; }
const std::vector<std::string>& File::paths() const { return impl_->paths; }
std::uint32_t File::version() const { return impl_->version; }
std::uint64_t File::size_bytes() const { return impl_->size_bytes; }
std::uint32_t File::alignment() const { return impl_->alignment; }
const Metadata& File::metadata() const { return impl_->metadata; }
const std::vector<Tensor>& File::tensors() const { return impl_->tensors; }

const Tensor* File::find(std::string_view name) const {
  const auto it = impl_->index.find(name);
  return it == impl_->index.end() ? nullptr : &impl_->tensors[it->second];
}

const Tensor& File::require(std::string_view name) const {
  if (const Tensor* tensor = find(name)) return *tensor;
  throw bad_input(fmt::format("tensor {} is missing", name), impl_->path,
                  "convert the model again with a current converter");
}

std::uint64_t File::n_values() const {
  std::uint64_t n = 0;
  for (const Tensor& tensor : tensors()) n += tensor.n_values();
  return n;
}

std::string File::architecture() const {
  return std::string(impl_->metadata.string_or("general.architecture", ""));
}

std::string File::hash() const {
  std::call_once(impl_->hash_once, [&] {
    Hasher hasher;
    for (const Mapping& mapping : impl_->mappings) {
      for (std::uint64_t done = 0; done < mapping.size(); done += kHashedAtOnce) {
        const std::uint64_t n = std::min(kHashedAtOnce, mapping.size() - done);
        hasher.update(mapping.data() + done, n);
        leave_memory(mapping.data() + done, n);
      }
    }
    impl_->hash = hasher.hex();
  });
  return impl_->hash;
}

void leave_memory(const Tensor& tensor, std::uint64_t first_row, std::uint64_t n_rows) {
  leave_memory(tensor.data + first_row * tensor.row_bytes(), n_rows * tensor.row_bytes());
}

std::string Tensor::shape_text() const {
  std::string text = "[";
  for (std::uint32_t d = 0; d < n_dims; ++d)
    text += (d == 0 ? "" : ", ") + std::to_string(shape[d]);
  return text + "]";
}

}  // namespace spectralquant::gguf
