#include "spectralquant/gguf/header.h"

#include <fmt/format.h>

#include <bit>
#include <limits>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "spectralquant/core/error.h"
#include "spectralquant/gguf/value.h"

namespace spectralquant::gguf {
namespace {

constexpr std::string_view kIncomplete =
    "the file is cut off or damaged: download or convert it again";
constexpr std::string_view kConvertAgain = "convert the model again with a current converter";
constexpr std::string_view kRename = "convert the model again with names that llama.cpp takes";
constexpr std::uint64_t kMaxU64 = std::numeric_limits<std::uint64_t>::max();

// Smallest entries a file can hold: a one-byte key with a one-byte value, a one-byte name without
// dimensions.
constexpr std::uint64_t kMinKeyValueBytes = 8 + 1 + 4 + 1;
constexpr std::uint64_t kMinTensorBytes = 8 + 1 + 4 + 4 + 8;

/// Reads from the front of a file, refusing to go past its end.
class Cursor {
 public:
  Cursor(std::string_view bytes, const std::string& path) : bytes_(bytes), path_(path) {}

  /// What is being read, for error messages: "tensor 3 of 20 (blk.0.ffn_up.weight)".
  void enter(std::string what) { what_ = std::move(what); }

  template <typename T>
  T read(std::string_view field) {
    if (left() < sizeof(T)) fail(fmt::format("the file ends inside {}", field), kIncomplete);
    const T value = load<T>(bytes_.data() + position_);
    position_ += sizeof(T);
    return value;
  }

  /// A string that may be at most max_bytes long, not empty, and UTF-8: a key or a tensor name.
  std::string read_identifier(std::string_view field, std::size_t max_bytes) {
    const std::uint64_t start = position_;
    const auto length = read<std::uint64_t>(fmt::format("the length of {}", field));
    if (length == 0 || length > max_bytes)
      fail_at(start,
              fmt::format("{} is {} bytes long; 1 to {} are allowed", field, length, max_bytes),
              length > left() ? kIncomplete : kRename);
    if (length > left()) fail_at(start, fmt::format("the file ends inside {}", field), kIncomplete);
    std::string text(bytes_.substr(position_, length));
    if (!is_utf8(text)) fail(fmt::format("{} is not valid UTF-8", field), kConvertAgain);
    // llama.cpp reads it up to there
    if (text.find('\0') != std::string::npos)
      fail(fmt::format("{} holds a NUL byte", field), kConvertAgain);
    position_ += length;
    return text;
  }

  Value read_value() {
    const std::uint64_t start = position_;
    const auto number = read<std::uint32_t>("the type of a value");
    if (!is_value_type(number))
      fail_at(start, fmt::format("value type {} is unknown", number), kConvertAgain);
    const auto type = static_cast<ValueType>(number);
    const ValueExtent extent = find_extent(type, bytes_.substr(position_));
    position_ += extent.size_bytes;
    if (extent.problem) fail(extent.problem, kIncomplete);
    return Value(type,
                 std::string(bytes_.substr(position_ - extent.size_bytes, extent.size_bytes)));
  }

  std::uint64_t left() const { return bytes_.size() - position_; }
  std::uint64_t position() const { return position_; }

  [[noreturn]] void fail(std::string problem, std::string_view fix) const {
    fail_at(position_, std::move(problem), fix);
  }

  [[noreturn]] void fail_at(std::uint64_t offset, std::string problem, std::string_view fix) const {
    throw bad_input(std::move(problem), fmt::format("{}, {}, byte {}", path_, what_, offset),
                    std::string(fix));
  }

 private:
  std::string_view bytes_;
  const std::string& path_;
  std::string what_ = "header";
  std::uint64_t position_ = 0;
};

bool multiply_overflows(std::uint64_t a, std::uint64_t b) { return b != 0 && a > kMaxU64 / b; }

std::uint32_t read_version(Cursor& cursor) {
  if (cursor.left() < 4 || cursor.read<std::uint32_t>("the magic") != load<std::uint32_t>("GGUF"))
    cursor.fail_at(0, "this is not a GGUF file",
                   "give a model converted to GGUF (llama.cpp's convert_hf_to_gguf.py makes one "
                   "from a Hugging Face folder)");
  const std::uint64_t start = cursor.position();
  const auto version = cursor.read<std::uint32_t>("the version");
  if (version != 0 && (version & 0xffff) == 0)
    cursor.fail_at(start, "the file is big-endian; only little-endian GGUF can be read",
                   "convert it with gguf_convert_endian.py --to little");
  if (version < 2 || version > 3)
    cursor.fail_at(start,
                   fmt::format("GGUF version {} is not supported; versions 2 and 3 are", version),
                   kConvertAgain);
  return version;
}

void read_metadata(Cursor& cursor, std::uint64_t n_items, Metadata& metadata) {
  std::unordered_set<std::string> seen;
  for (std::uint64_t i = 0; i < n_items; ++i) {
    cursor.enter(fmt::format("metadata key {} of {}", i + 1, n_items));
    const std::uint64_t start = cursor.position();
    std::string key = cursor.read_identifier("the key", kMaxKeyBytes);
    if (!seen.insert(key).second)
      cursor.fail_at(start, fmt::format("metadata key {} is there twice", key), kConvertAgain);
    cursor.enter(fmt::format("metadata key {} of {} ({})", i + 1, n_items, key));
    metadata.append(std::move(key), cursor.read_value());
  }
}

std::uint32_t read_alignment(const Metadata& metadata, const std::string& path) {
  const Value* value = metadata.find("general.alignment");
  if (!value) return kDefaultAlignment;
  const auto number = value->as_int();
  if (value->type() != ValueType::kUint32 || *number == 0 ||
      !std::has_single_bit(static_cast<std::uint32_t>(*number)))
    throw bad_input(
        fmt::format("general.alignment is {} ({}); it must be a power of two of type u32",
                    value->to_display(), value_type_name(value->type())),
        path, std::string(kConvertAgain));
  return static_cast<std::uint32_t>(*number);
}

/// One entry of the tensor directory; returns where its data begins, counted from the data section.
std::uint64_t read_tensor(Cursor& cursor, std::uint64_t index, std::uint64_t n_tensors,
                          std::uint32_t alignment, Tensor& tensor) {
  cursor.enter(fmt::format("tensor {} of {}", index + 1, n_tensors));
  tensor.name = cursor.read_identifier("the tensor's name", kMaxNameBytes);
  cursor.enter(fmt::format("tensor {} of {} ({})", index + 1, n_tensors, tensor.name));

  std::uint64_t start = cursor.position();
  tensor.n_dims = cursor.read<std::uint32_t>("the number of dimensions");
  if (tensor.n_dims > kMaxDims)
    cursor.fail_at(start,
                   fmt::format("{} has {} dimensions; at most {} are allowed", tensor.name,
                               tensor.n_dims, kMaxDims),
                   kConvertAgain);
  std::uint64_t n_rows = 1;
  for (std::uint32_t d = 0; d < tensor.n_dims; ++d) {
    start = cursor.position();
    const auto size = cursor.read<std::uint64_t>("the dimensions");
    if (size == 0)
      cursor.fail_at(start, fmt::format("dimension {} of {} is 0", d, tensor.name), kConvertAgain);
    if (d > 0 && multiply_overflows(n_rows, size))
      cursor.fail_at(start, fmt::format("the dimensions of {} overflow", tensor.name), kIncomplete);
    if (d > 0) n_rows *= size;
    tensor.shape[d] = size;
  }

  start = cursor.position();
  const auto type = cursor.read<std::uint32_t>("the type");
  const auto layout = find_traits(type);
  if (!layout)
    cursor.fail_at(
        start,
        fmt::format("{} has tensor type {}, which is unknown or was removed from the format",
                    tensor.name, type),
        kConvertAgain);
  tensor.type = static_cast<Type>(type);
  if (tensor.n_cols() % layout->block_values != 0)
    cursor.fail_at(start,
                   fmt::format("{} has {} columns; {} needs a multiple of {}", tensor.name,
                               tensor.n_cols(), layout->name, layout->block_values),
                   kConvertAgain);
  const std::uint64_t row_bytes = row_size_bytes(tensor.type, tensor.n_cols());
  if (row_bytes == 0 || multiply_overflows(row_bytes, n_rows) ||
      multiply_overflows(tensor.n_cols(), n_rows))
    cursor.fail_at(start,
                   fmt::format("the size of {} {} overflows", tensor.name, tensor.shape_text()),
                   kIncomplete);
  tensor.size_bytes = row_bytes * n_rows;

  start = cursor.position();
  const auto offset = cursor.read<std::uint64_t>("the data offset");
  if (offset % alignment != 0)
    cursor.fail_at(
        start,
        fmt::format("the data of {} begins at {}, which is no multiple of the alignment {}",
                    tensor.name, offset, alignment),
        kConvertAgain);
  return offset;
}

}  // namespace

std::uint64_t align_up(std::uint64_t n, std::uint64_t alignment) {
  return (n + alignment - 1) / alignment * alignment;
}

std::uint64_t row_size_bytes(Type type, std::uint64_t n_cols) {
  const TypeTraits& layout = traits(type);
  if (n_cols % layout.block_values != 0) return 0;
  const std::uint64_t n_blocks = n_cols / layout.block_values;
  return multiply_overflows(n_blocks, layout.block_bytes) ? 0 : n_blocks * layout.block_bytes;
}

Header parse_header(const std::byte* bytes, std::uint64_t size_bytes, const std::string& path) {
  Cursor cursor(std::string_view(reinterpret_cast<const char*>(bytes), size_bytes), path);
  Header header;
  header.metadata.place = path;
  header.version = read_version(cursor);
  const auto n_tensors = cursor.read<std::uint64_t>("the tensor count");
  const auto n_items = cursor.read<std::uint64_t>("the metadata count");
  if (n_items > cursor.left() / kMinKeyValueBytes)
    cursor.fail_at(
        16,
        fmt::format("the header promises {} metadata keys, more than the file can hold", n_items),
        kIncomplete);
  if (n_tensors > cursor.left() / kMinTensorBytes)
    cursor.fail_at(
        8, fmt::format("the header promises {} tensors, more than the file can hold", n_tensors),
        kIncomplete);

  read_metadata(cursor, n_items, header.metadata);
  header.alignment = read_alignment(header.metadata, path);

  std::vector<std::uint64_t> offsets;
  std::unordered_set<std::string> names;
  for (std::uint64_t i = 0; i < n_tensors; ++i) {
    Tensor tensor;
    const std::uint64_t start = cursor.position();
    offsets.push_back(read_tensor(cursor, i, n_tensors, header.alignment, tensor));
    if (!names.insert(tensor.name).second)
      cursor.fail_at(start, fmt::format("tensor {} is there twice", tensor.name), kConvertAgain);
    header.tensors.push_back(std::move(tensor));
  }

  // The data section begins at the next multiple of the alignment; without tensors it need not
  // exist.
  header.data_offset = align_up(cursor.position(), header.alignment);
  const std::uint64_t data_bytes =
      size_bytes > header.data_offset ? size_bytes - header.data_offset : 0;
  std::uint64_t expected = 0;  // the data follows in the order of the directory, without gaps
  for (std::uint64_t i = 0; i < n_tensors; ++i) {
    Tensor& tensor = header.tensors[i];
    if (offsets[i] != expected) {
      cursor.enter(fmt::format("tensor {} of {}", i + 1, n_tensors));
      cursor.fail_at(header.data_offset + offsets[i],
                     fmt::format("the data of {} begins at {}; {} is expected after the tensor "
                                 "before it",
                                 tensor.name, offsets[i], expected),
                     kConvertAgain);
    }
    if (offsets[i] > data_bytes || tensor.size_bytes > data_bytes - offsets[i]) {
      cursor.enter(fmt::format("tensor {} of {}", i + 1, n_tensors));
      cursor.fail_at(size_bytes,
                     fmt::format("the file ends before the data of {}: {} bytes from data offset "
                                 "{} do not fit into {} bytes of data",
                                 tensor.name, tensor.size_bytes, offsets[i], data_bytes),
                     kIncomplete);
    }
    tensor.data = bytes + header.data_offset + offsets[i];
    expected += align_up(tensor.size_bytes, header.alignment);
  }
  return header;
}

}  // namespace spectralquant::gguf
