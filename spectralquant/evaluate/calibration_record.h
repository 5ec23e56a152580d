#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "spectralquant/text/corpus.h"

namespace spectralquant::evaluate {

/// What a file's metadata say of the text it was calibrated on, and which of the given texts that
/// is.
struct CalibrationRecord {
  enum class How { kUnknown, kNone, kText, kSelf, kTextAndSelf };
  How how = How::kUnknown;        ///< unknown: no word of it in the file
  std::string description, hash;  ///< as the file has them
  std::int64_t n_tokens = 0;
  /// how `texts` were recognised: "hash", "name", "assumed" (file says nothing), "" (none is its
  /// text)
  std::string matched;
  std::vector<std::size_t> texts;  ///< indices of calibration texts given

  bool used_no_text() const { return how == How::kNone || how == How::kSelf; }
};
/// "unknown", "none", "text", "self", "text and self"
std::string_view name_of(CalibrationRecord::How how);

/// A calibration text given on the command line.
struct CalibrationText {
  std::string pattern;  ///< file or glob
  text::Corpus corpus;
};

/// Reads the keys spectralquant.* that quantize writes, and quantize.imatrix.* of llama-quantize.
///
/// Texts are recognised by the hash of their windows of tokens; by file name where the hash covers
/// more than files (the model's own samples). A file that says nothing is taken to be calibrated on
/// all texts given: the careful assumption.
CalibrationRecord read_calibration(const gguf::Metadata& metadata,
                                   const std::vector<CalibrationText>& texts,
                                   const text::Tokenizer& tokenizer);

}  // namespace spectralquant::evaluate
