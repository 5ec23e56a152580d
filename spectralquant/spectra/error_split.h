#pragma once
#include <torch/types.h>

#include <array>
#include <limits>
#include <optional>

#include "spectralquant/calibrate/signals.h"
#include "spectralquant/spectra/spectrum.h"

namespace spectralquant::spectra {

/// What an error E = Ŵ − W of one matrix costs in KL, as far as its signals tell: ½ (tr(G E H Eᵀ) +
/// Σ_v f_v e_v C e_vᵀ).
///
/// An embedding that is not tied is only looked up: it has the second term alone, which is the
/// first with C for H and f for G.
struct Cost {
  torch::Tensor h;           ///< [cols, cols], or [cols]: a diagonal
  torch::Tensor g;           ///< [rows, rows], or [rows]
  torch::Tensor frequency;   ///< [rows]; with c: the lookup of a tied embedding, or undefined
  torch::Tensor c;           ///< [cols, cols]
  bool lookup_only = false;  ///< h and g are C and f
  double token_share = 1;    ///< of an expert: the tokens that h and g are of

  bool complete() const { return h.defined() && g.defined(); }

  /// Frequencies are smoothed as the solver smooths them (calibrate::smoothed_frequency).
  static Cost of(const calibrate::MatrixSignal& signal, std::int64_t n_tokens);
};

/// Spectra of one matrix. Undefined moments have none.
struct MatrixSpectra {
  std::optional<Spectrum> input;   ///< of H (of C for an embedding that is only looked up)
  std::optional<Spectrum> output;  ///< of G (of f)
  std::optional<Spectrum> lookup;  ///< of C, of a tied embedding
  /// an embedding that is not tied: input and output are those of C and f
  bool lookup_only = false;
};

/// Shares of an error in the top directions of one moment, by kTopShares; NaN where the directions
/// are not known.
struct TopShares {
  static constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
  /// of ‖E‖²; white noise has count / size there
  std::array<double, kTopShares.size()> energy{kUnknown, kUnknown, kUnknown};
  /// of the term of the cost that the moment belongs to
  std::array<double, kTopShares.size()> cost{kUnknown, kUnknown, kUnknown};
};

/// An error against the moments of its matrix. KL in nats per token.
struct ErrorSplit {
  double energy = 0;           ///< ‖E‖²
  double relative_energy = 0;  ///< ‖E‖² / ‖W‖²; 0 if W is zero
  double predicted_kl = 0;     ///< ½ tr(G E H Eᵀ) + lookup_kl
  double lookup_kl = 0;        ///< ½ Σ_v f_v e_v C e_vᵀ of a tied embedding
  /// predicted_kl of white noise of the same energy, in the mean: ½ ‖E‖² (tr G tr H + tr f tr C) /
  /// (rows · cols).
  double white_kl = 0;
  std::optional<TopShares> input, output, lookup;
};

/// Splits E = decoded − weights along the spectra of decompose(cost's moments).
///
/// Shapes   weights, decoded: [rows, cols] float32.
/// Errors   asserts cost.complete(): callers refuse signals without G before.
ErrorSplit split_error(const torch::Tensor& weights, const torch::Tensor& decoded, const Cost& cost,
                       const MatrixSpectra& spectra);

}  // namespace spectralquant::spectra
