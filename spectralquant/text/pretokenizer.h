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
  bool ignore_merges = false;    ///< a word that is a token as a whole is not merged
  bool add_bos = false;          ///< default of tokenizer.ggml.add_bos_token
  bool has_default_bos = true;   ///< token 11 is BOS when no key names one
  bool always_adds_bos = false;  ///< whatever tokenizer.ggml.add_bos_token says
  bool needs_merges = true;      ///< a file without tokenizer.ggml.merges is refused
  /// tokens are plain UTF-8 with "▁" for a space (Gemma 4), not GPT-2's letters for bytes
  bool is_plain = false;
  /// a word of line ends that is a token as a whole is not merged
  bool keeps_line_ends = false;
};

/// The spec of a name, nullptr if the name is not known. "" means "default", as in llama.cpp.
const PretokenizerSpec* find_pretokenizer(std::string_view name);

/// All names, for messages.
std::string supported_pretokenizers();

/// Cuts text into the words that are tokenized each for itself.
///
/// The text is folded to a byte per code point (ASCII itself, everything else its CharClass and
/// which of the pattern's own sets it is in), so that the patterns are plain byte patterns for
/// PCRE2 and no Unicode table but ours plays a part. What a pattern may hold beside ASCII:
///
///     \p{L} \p{N} \p{M} \p{P} \p{S}   classes; \p{A}: letters that are not ASCII
///     [\x{4E00}-\x{9FA5}…]            a set of code points, in brackets only, at most 4 of them
///
/// An empty match cuts the text where it is.
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
