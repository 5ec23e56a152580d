#pragma once
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace spectralquant::text {

/// What the name in tokenizer.ggml.pre stands for.
struct PretokenizerSpec {
  std::string_view name;                ///< the family's first name: "qwen2", "llama-bpe"
  std::vector<std::string_view> names;  ///< every value of tokenizer.ggml.pre that means the same
  /// applied one after the other, each inside the pieces of the one before
  std::vector<std::string_view> patterns;
  bool ignore_merges = false;   ///< a word that is a token as a whole is not merged
  bool add_bos = false;         ///< default of tokenizer.ggml.add_bos_token
  bool has_default_bos = true;  ///< token 11 is BOS when no key names one
};

/// The spec of a name, nullptr if the name is not known. "" means "default", as in llama.cpp.
const PretokenizerSpec* find_pretokenizer(std::string_view name);

/// All names, for messages.
std::string supported_pretokenizers();

/// Cuts text into the words that are tokenized each for itself.
///
/// The text is folded to a byte per code point (ASCII itself, everything else its CharClass), so
/// that the patterns are plain byte patterns for PCRE2 and no Unicode table but ours plays a part.
/// Threads  const members may be called from any thread.
class Pretokenizer {
 public:
  explicit Pretokenizer(const PretokenizerSpec& spec);
  ~Pretokenizer();
  Pretokenizer(Pretokenizer&&) noexcept;

  /// Lengths in bytes of the words of `text`, in order; they add up to text.size().
  /// `text` is UTF-8 as next_code_point() and append_utf8() make it, that is without bad bytes.
  std::vector<std::size_t> split(std::string_view text) const;

 private:
  struct Pattern;
  std::vector<Pattern> patterns_;
};

}  // namespace spectralquant::text
