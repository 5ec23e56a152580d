#include "spectralquant/gguf/writer.h"

#include <fmt/format.h>

#include <bit>
#include <iterator>
#include <map>
#include <mutex>
#include <optional>
#include <unordered_set>
#include <utility>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "spectralquant/core/error.h"
#include "spectralquant/core/parallel.h"
#include "spectralquant/gguf/header.h"
#include "spectralquant/gguf/partial_file.h"
#include "spectralquant/gguf/value.h"

namespace spectralquant::gguf {
namespace {

/// Bytes written by one call of write(), with their hash to be found again when the file is read
/// back.
struct Piece {
  std::uint64_t size_bytes;
  XXH128_hash_t hash;
};

template <typename T>
void append(std::string& bytes, T value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void append_string(std::string& bytes, std::string_view text) {
  append<std::uint64_t>(bytes, text.size());
  bytes += text;
}

void check_plans(const std::vector<TensorPlan>& tensors, const std::string& path) {
  std::unordered_set<std::string_view> names;
  for (const TensorPlan& t : tensors) {
    if (t.name.empty() || t.name.size() > kMaxNameBytes || !is_utf8(t.name))
      throw bad_input(
          fmt::format("tensor name \"{}\" is not 1 to {} bytes of UTF-8", t.name, kMaxNameBytes),
          path);
    if (!names.insert(t.name).second)
      throw bad_input(fmt::format("tensor {} is to be written twice", t.name), path);
    if (t.n_dims > kMaxDims)
      throw bad_input(
          fmt::format("{} has {} dimensions; at most {} are allowed", t.name, t.n_dims, kMaxDims),
          path);
    for (std::uint32_t d = 0; d < kMaxDims; ++d)
      if (t.shape[d] == 0 || (d >= t.n_dims && t.shape[d] != 1))
        throw bad_input(fmt::format("dimension {} of {} is {}", d, t.name, t.shape[d]), path);
    t.size_bytes();  // refuses columns that do not fit the type, and overflow
  }
}

/// What the new file is to say of itself: one whole file, with the alignment it is laid out by.
Metadata own_metadata(const Metadata& metadata, std::uint32_t alignment) {
  Metadata own = metadata;
  for (const char* key : {"split.no", "split.count", "split.tensors.count"}) own.erase(key);
  if (alignment != kDefaultAlignment || own.find("general.alignment"))
    own.set("general.alignment", Value::of_u32(alignment));
  return own;
}

}  // namespace

std::uint64_t TensorPlan::size_bytes() const {
  const TypeTraits& layout = traits(type);
  std::uint64_t size = row_size_bytes(type, shape[0]);
  if (size == 0)
    throw bad_input(fmt::format("{} has {} columns; {} needs a multiple of {}", name, shape[0],
                                layout.name, layout.block_values),
                    name, "choose a type whose blocks fit");
  for (std::size_t d = 1; d < shape.size(); ++d)
    if (__builtin_mul_overflow(size, shape[d], &size))
      throw bad_input(fmt::format("the size of {} overflows", name), name);
  return size;
}

struct Writer::Impl {
  std::vector<TensorPlan> tensors;
  std::vector<std::uint64_t> offsets;  // of each tensor, in the file
  std::vector<std::map<std::uint64_t, Piece>> pieces;
  std::mutex mutex;  // guards pieces
  Metadata metadata;
  WriteOptions options;
  std::uint64_t file_bytes = 0;
  bool committed = false;
  std::optional<PartialFile> file;

  /// The header as bytes, padded to where the data begins; fills offsets and file_bytes.
  std::string lay_out() {
    std::string header = "GGUF";
    append<std::uint32_t>(header, 3);
    append<std::uint64_t>(header, tensors.size());
    append<std::uint64_t>(header, metadata.items().size());
    for (const KeyValue& item : metadata.items()) {
      append_string(header, item.key);
      append(header, static_cast<std::uint32_t>(item.value.type()));
      header += item.value.bytes();
    }
    std::uint64_t position = 0;
    for (const TensorPlan& t : tensors) {
      append_string(header, t.name);
      append<std::uint32_t>(header, t.n_dims);
      for (std::uint32_t d = 0; d < t.n_dims; ++d) append<std::uint64_t>(header, t.shape[d]);
      append(header, static_cast<std::uint32_t>(t.type));
      append<std::uint64_t>(header, position);
      offsets.push_back(position);
      position = align_up(position + t.size_bytes(), options.alignment);
    }
    header.resize(align_up(header.size(), options.alignment), '\0');
    for (std::uint64_t& offset : offsets) offset += header.size();
    file_bytes = header.size() + position;
    return header;
  }

  [[noreturn]] void fail(std::string problem) const {
    throw Error(ErrorCode::kFailed, std::move(problem), file->path(),
                "this is a fault of the program: please report it");
  }

  void require_complete() const {
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      std::uint64_t end = 0;
      for (const auto& [offset, piece] : pieces[i]) {
        if (offset != end) break;
        end += piece.size_bytes;
      }
      if (end != tensors[i].size_bytes())
        fail(fmt::format("tensor {} was not written completely: byte {} of {} is missing",
                         tensors[i].name, end, tensors[i].size_bytes()));
    }
  }

  void verify(const std::function<void(const File&)>& check) const {
    const auto damaged = [&](const std::string& what) {
      return Error(ErrorCode::kFailed,
                   fmt::format("{} was read back differently from how it was written", what),
                   file->path(), "the disk or the memory is faulty: check them, then run again");
    };
    const File written = File::open(file->path());
    const auto &want = metadata.items(), &got = written.metadata().items();
    bool same = want.size() == got.size() && written.tensors().size() == tensors.size() &&
                written.size_bytes() == file_bytes;
    for (std::size_t i = 0; same && i < want.size(); ++i)
      same = want[i].key == got[i].key && want[i].value.type() == got[i].value.type() &&
             want[i].value.bytes() == got[i].value.bytes();
    if (!same) throw damaged("the header");

    struct Check {
      std::size_t tensor;
      std::uint64_t offset;
      Piece piece;
    };
    std::vector<Check> checks;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      const TensorPlan& plan = tensors[i];
      const Tensor& t = written.tensors()[i];
      if (t.name != plan.name || t.type != plan.type || t.n_dims != plan.n_dims ||
          t.shape != plan.shape)
        throw damaged(plan.name);
      for (const auto& [offset, piece] : pieces[i]) checks.push_back({i, offset, piece});
    }
    parallel_for(checks.size(), 0, [&](std::size_t c) {
      const auto& [index, offset, piece] = checks[c];
      if (!XXH128_isEqual(XXH3_128bits(written.tensors()[index].data + offset, piece.size_bytes),
                          piece.hash))
        throw damaged(tensors[index].name);
    });
    if (check) check(written);
  }
};

Writer::Writer(std::string path, const Metadata& metadata, std::vector<TensorPlan> tensors,
               WriteOptions options, const std::vector<std::string>& inputs)
    : impl_(std::make_unique<Impl>()) {
  if (!std::has_single_bit(options.alignment))
    throw bad_input(fmt::format("alignment {} is no power of two", options.alignment), path);
  check_plans(tensors, path);
  impl_->options = options;
  impl_->metadata = own_metadata(metadata, options.alignment);
  impl_->tensors = std::move(tensors);
  impl_->pieces.resize(impl_->tensors.size());
  const std::string header = impl_->lay_out();
  impl_->file.emplace(path, options.overwrite, inputs);
  impl_->file->reserve(impl_->file_bytes);
  impl_->file->write(0, header.data(), header.size());
}

Writer::~Writer() = default;
Writer::Writer(Writer&&) noexcept = default;

const std::vector<TensorPlan>& Writer::tensors() const { return impl_->tensors; }
std::uint64_t Writer::file_bytes() const { return impl_->file_bytes; }

void Writer::write(std::size_t index, std::uint64_t offset_bytes, const void* data,
                   std::uint64_t size_bytes) {
  if (impl_->committed) impl_->fail("a tensor was written after commit()");
  if (index >= impl_->tensors.size())
    impl_->fail(fmt::format("tensor {} of {} was written", index, impl_->tensors.size()));
  const TensorPlan& plan = impl_->tensors[index];
  if (offset_bytes > plan.size_bytes() || size_bytes > plan.size_bytes() - offset_bytes)
    impl_->fail(fmt::format("bytes {} to {} of {} were written, which has {}", offset_bytes,
                            offset_bytes + size_bytes, plan.name, plan.size_bytes()));
  if (size_bytes == 0) return;
  impl_->file->write(impl_->offsets[index] + offset_bytes, data, size_bytes);

  const Piece piece{size_bytes, XXH3_128bits(data, size_bytes)};
  std::lock_guard lock(impl_->mutex);
  auto& pieces = impl_->pieces[index];
  const auto next = pieces.lower_bound(offset_bytes);
  const bool same_piece =
      next != pieces.end() && next->first == offset_bytes && next->second.size_bytes == size_bytes;
  const bool hits_next =
      next != pieces.end() && next->first < offset_bytes + size_bytes && !same_piece;
  const bool hits_previous =
      next != pieces.begin() &&
      std::prev(next)->first + std::prev(next)->second.size_bytes > offset_bytes;
  if (hits_next || hits_previous)
    impl_->fail(fmt::format("bytes {} to {} of {} overlap an earlier piece", offset_bytes,
                            offset_bytes + size_bytes, plan.name));
  pieces.insert_or_assign(offset_bytes, piece);
}

void Writer::commit(const std::function<void(const File&)>& check) {
  if (impl_->committed) impl_->fail("commit() was called twice");
  impl_->require_complete();
  impl_->file->sync();
  impl_->verify(check);
  impl_->file->rename_to_target();
  impl_->committed = true;
}

}  // namespace spectralquant::gguf
