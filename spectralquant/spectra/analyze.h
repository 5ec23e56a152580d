#pragma once
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "spectralquant/calibrate/signals.h"
#include "spectralquant/core/progress.h"
#include "spectralquant/gguf/matrix.h"
#include "spectralquant/spectra/error_split.h"

namespace spectralquant::spectra {

/// A way the model was quantized: a file, or (no file) llama.cpp's plain rounding of the original,
/// made here: the error before shaping.
struct Variant {
  std::string name;
  const gguf::File* file = nullptr;

  /// Its values of a matrix. A matrix that cannot be Q4_K (columns no multiple of 256) stays as it
  /// is under plain rounding.
  /// Shapes   original: the reference's values, [rows, cols] float32 → the same.
  /// Errors   Error(kBadInput) if the file has no such matrix, or one of another shape.
  torch::Tensor decoded(const gguf::MatrixId& id, const torch::Tensor& original) const;
};

/// A figure that was not measured.
inline constexpr double kNotMeasured = std::numeric_limits<double>::quiet_NaN();

struct MatrixReport {
  gguf::MatrixId id;
  std::int64_t block = -1;  ///< −1: embedding, head
  std::int64_t rows = 0, cols = 0;
  MatrixSpectra spectra;           ///< without directions, to save memory
  std::vector<ErrorSplit> errors;  ///< by variant; empty without a reference
  /// by variant: this matrix alone quantized; kNotMeasured until measure()
  std::vector<double> measured_kl;
};

/// A block, or a matrix outside of blocks.
struct BlockReport {
  std::int64_t block = -1;
  std::string name;                  ///< "blk.3", "token_embd.weight"
  std::vector<double> predicted_kl;  ///< by variant: sum over its matrices
  std::vector<double> measured_kl;   ///< by variant: all of its matrices quantized
};

/// Of a variant as a whole.
struct VariantReport {
  std::string name, path;                  ///< path "": plain rounding
  double predicted_kl = 0;                 ///< sum over matrices
  double measured_sum_kl = kNotMeasured;   ///< sum of matrices, each quantized alone
  double measured_kl = kNotMeasured;       ///< the whole file
  double rank_correlation = kNotMeasured;  ///< Spearman, predicted against measured, over matrices
};

struct Report {
  std::string reference_path;  ///< "" without
  std::string signals_text, signals_text_hash, model_hash;
  std::int64_t signals_tokens = 0;
  std::string measured_text;  ///< "" if nothing was measured
  std::int64_t measured_tokens = 0;
  std::vector<VariantReport> variants;
  std::vector<MatrixReport> matrices;  ///< blocks in order, then embedding and head
  std::vector<BlockReport> blocks;
};

/// Spectra of every matrix; with a reference, also how the error of each variant lies in them and
/// what it costs.
///
/// Memory   one float64 matrix of each size for each thread beside the signals.
/// Errors   Error(kBadInput): signals of another model; no G although errors are to be weighed; a
///          variant of another model.
Report analyze(const calibrate::Signals& signals, const gguf::File* reference,
               const std::vector<Variant>& variants, const Progress& progress = {});

/// Spearman's rank correlation; ties share their mean rank. Fewer than two values, or all alike:
/// NaN.
double rank_correlation(const std::vector<double>& a, const std::vector<double>& b);

}  // namespace spectralquant::spectra
