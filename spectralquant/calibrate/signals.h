#pragma once
#include <torch/types.h>

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "spectralquant/gguf/matrix.h"

namespace spectralquant::calibrate {

/// Second moments that tell what an error E = Ŵ − W of one matrix costs: tr(G E H Eᵀ).
struct MatrixSignal {
  /// H = E[x xᵀ] over calibration tokens, [cols, cols], float32, symmetric; undefined for an
  /// embedding that is not tied. From an imatrix only the diagonal: [cols].
  torch::Tensor h;
  /// G = E[g gᵀ] of the output gradients, [rows, rows], or [rows]: its diagonal; undefined when not
  /// gathered
  torch::Tensor g;
  /// Embedding only, with output moments: frequency of each token [rows] and C = E[g gᵀ] at the
  /// embedding's output [cols, cols].
  torch::Tensor frequency, c;
  /// of an expert: calibration tokens that were routed to it; of any other matrix −1: all of them
  std::int64_t n_tokens = -1;
};

/// Signals of every matrix to be quantized, and where they come from.
struct Signals {
  std::map<gguf::MatrixId, MatrixSignal> matrices;
  std::int64_t n_tokens = 0;
  std::string text_hash;       ///< of the calibration tokens
  std::string model_hash;      ///< gguf::File::hash() of the model they were gathered on
  std::string description;     ///< "calib360.jsonl", "self:131072"
  bool diagonal_only = false;  ///< from an imatrix: h holds only the diagonal, as [cols]
};

/// Stores signals as a GGUF file (general.type = "spectralquant-signals"); matrices sharing one
/// input share one H.
void save_signals(const Signals& signals, const std::string& path, bool overwrite);

/// Errors   Error(kBadInput) naming file and tensor if the file is no signals file or is damaged:
///          moments that are missing, not square, not finite, or negative on their diagonal.
Signals load_signals(const std::string& path);

/// Frequencies with half a token added to each, so that a token the text lacks still counts for
/// something.
///
/// Shapes   frequency: [rows], summing to 1 → the same.
torch::Tensor smoothed_frequency(const torch::Tensor& frequency, std::int64_t n_tokens);

/// diag(H) of a matrix as llama.cpp sees it after save_imatrix(): sums and counts go through
/// float32 on the way. A matrix whose diagonal is zero throughout counts every column alike.
///
/// Shapes   [cols]; an undefined tensor when the matrix has no H.
torch::Tensor importance(const Signals& signals, const gguf::MatrixId& id);

/// Matrices whose diag(H) is zero throughout: no input reached them. A stack of matrices is named
/// with how many of it.
std::vector<std::string> without_importance(const Signals& signals);

/// Writes an imatrix GGUF that stock `llama-quantize --imatrix` reads: NAME.in_sum2, NAME.counts,
/// keys imatrix.*. Experts are one entry with a row and a count each; one that no token reached has
/// the mean over all of them, as one token.
void save_imatrix(const Signals& signals, const std::string& path, std::int64_t window_tokens,
                  bool overwrite);

/// Reads an imatrix GGUF made by stock llama-imatrix: diagonal signals. Rows of an entry become
/// slices of its tensor.
/// Errors   Error(kBadInput) naming file and tensor: sums without counts or the other way round,
///          of another type than F32, of sizes that do not fit, NaN, infinite or negative.
Signals load_imatrix(const std::string& path);

/// True if the file at path is an imatrix GGUF (general.type = "imatrix").
/// Errors   Error(kBadInput) if it is no GGUF file; an imatrix in llama.cpp's old format is named
///          as such.
bool is_imatrix(const std::string& path);

/// llama.cpp's older importance matrices hold all matrices of a stack in one row: it is split among
/// the slices.
void split_rows(Signals& signals, const gguf::File& model);

/// Errors   Error(kBadInput) if one of these matrices has no signal, or one of another size, or if
///          the signals are of another number of experts.
void require_fit(const Signals& signals, const std::vector<gguf::Matrix>& matrices,
                 const std::string& place);

}  // namespace spectralquant::calibrate
