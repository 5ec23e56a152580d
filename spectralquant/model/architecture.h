#pragma once
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>

#include "spectralquant/model/model.h"

/// What the architecture_*.cpp files share; callers use make_architecture() of model.h.
namespace spectralquant::model {

/// Reads "ARCH.key" of a file's metadata.
/// Errors  Error(kBadInput) naming the key when it is missing, of another type, or out of its
///         range.
class HyperParameters {
 public:
  explicit HyperParameters(const gguf::File& file)
      : file_(file), prefix_(file.architecture() + ".") {}

  std::int64_t count(std::string_view key) const;                            ///< ≥ 1
  std::int64_t count_or(std::string_view key, std::int64_t fallback) const;  ///< ≥ 0
  double positive(std::string_view key) const;                               ///< > 0
  const gguf::Value* find(std::string_view key) const;
  std::string name(std::string_view key) const { return prefix_ + std::string(key); }
  /// Throws unless `ok`: "qwen35.attention.head_count is 5, which …".
  void require(bool ok, std::string_view key, const std::string& why) const;
  const gguf::File& file() const { return file_; }

 private:
  const gguf::File& file_;
  std::string prefix_;
};

/// Throws unless the file has a tensor of this name and shape.
/// Shapes  shape: GGUF order, columns first; trailing ones left out.
void require_shape(const gguf::File& file, const std::string& name,
                   std::initializer_list<std::int64_t> shape);

std::unique_ptr<Architecture> make_qwen35(const gguf::File& file);

}  // namespace spectralquant::model
