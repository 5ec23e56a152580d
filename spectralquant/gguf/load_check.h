#pragma once
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "spectralquant/gguf/loadable.h"

/// What the loadable*.cpp files share; callers use loadable.h.
namespace spectralquant::gguf {

/// Collects the problems of a file. Accessors give a value only where llama.cpp would.
class LoadCheck {
 public:
  enum Need { kOptional, kRequired };

  explicit LoadCheck(const File& file) : file_(file) {}

  const File& file() const { return file_; }
  std::vector<LoadProblem>& problems() { return problems_; }
  void fail(std::string problem, std::string fix = {});

  /// The key if it is there and of exactly this type: llama.cpp converts no number.
  const Value* scalar(const std::string& key, ValueType type, Need need = kOptional);
  /// The same of an array whose elements have one of these types.
  const Value* array(const std::string& key, std::initializer_list<ValueType> elements,
                     Need need = kOptional);
  /// A number for each of n blocks: one u32 for all, or an array of n; 0 where the key is absent.
  std::vector<std::int64_t> per_block(const std::string& key, std::uint64_t n);

  std::int64_t u32(const std::string& key, std::int64_t fallback, Need need = kOptional);
  /// What norms add to a mean square: it must be there, and not be negative.
  void epsilon(const std::string& key);

 private:
  const File& file_;
  std::vector<LoadProblem> problems_;
};

/// More blocks than that stop llama.cpp (LLAMA_MAX_LAYERS).
inline constexpr std::int64_t kMaxBlocks = 512;

/// A tensor that llama.cpp makes from the hyper-parameters. Products of lying ones wrap around.
struct ExpectedTensor {
  std::vector<std::uint64_t> shape;  ///< columns first; trailing ones left out
  bool required = true;
};
using ExpectedTensors = std::map<std::string, ExpectedTensor, std::less<>>;

void check_vocabulary(LoadCheck& check);

// The tensors of an architecture; empty if the hyper-parameters do not tell.
ExpectedTensors expect_qwen35(LoadCheck& check);
ExpectedTensors expect_dense(LoadCheck& check);  ///< llama, qwen2, qwen3, qwen3moe

}  // namespace spectralquant::gguf
