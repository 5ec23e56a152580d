#pragma once
#include <torch/types.h>

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "stock_tool.h"

namespace spectralquant::test {

/// What stock llama-perplexity stores of a model: tokens, and log-probabilities of the second half
/// of each window, in 16 bits over their range.
struct StockLogits {
  std::vector<std::vector<std::int32_t>> windows;
  std::vector<torch::Tensor> log_p;  ///< per window, [n, V] float32: positions first, first + 1, …
  std::int64_t first = 0;
  std::string problem;  ///< what went wrong; empty if nothing
};

/// Source  llama.cpp, tools/perplexity/perplexity.cpp: "_logits_", int32 n_ctx, n_vocab, n_chunk,
/// the tokens, then per position float scale, float minimum, uint16 [n_vocab, padded to even].
inline StockLogits read_stock_logits(const std::string& path) {
  StockLogits out;
  std::ifstream in(path, std::ios::binary);
  char magic[8] = {};
  std::int32_t sizes[3] = {};
  in.read(magic, 8).read(reinterpret_cast<char*>(sizes), sizeof sizes);
  if (!in || std::string(magic, 8) != "_logits_") return {{}, {}, 0, path + " holds no logits"};
  const std::int64_t n_tokens = sizes[0], vocab = sizes[1];
  out.windows.assign(sizes[2], std::vector<std::int32_t>(n_tokens));
  for (auto& window : out.windows) in.read(reinterpret_cast<char*>(window.data()), 4 * n_tokens);
  out.first = n_tokens / 2;
  const std::int64_t n = n_tokens - 1 - out.first;
  std::vector<std::uint16_t> row(2 * ((vocab + 1) / 2) + 4);
  for (std::int32_t w = 0; w < sizes[2]; ++w) {
    auto log_p = torch::empty({n, vocab}, torch::kFloat32);
    for (std::int64_t i = 0; i < n; ++i) {
      in.read(reinterpret_cast<char*>(row.data()), 2 * row.size());
      float range[2];
      std::memcpy(range, row.data(), sizeof range);
      auto* values = log_p[i].data_ptr<float>();
      for (std::int64_t v = 0; v < vocab; ++v) values[v] = range[0] * row[v + 4] + range[1];
    }
    out.log_p.push_back(log_p);
  }
  if (!in) out.problem = path + " ends early";
  return out;
}

/// Lets stock llama.cpp run a model on a text, in windows of n_tokens. more: further arguments.
inline StockLogits run_stock(const std::string& model, const std::string& text, int n_tokens,
                             const std::string& folder, const std::string& more = "") {
  const std::string logits = folder + "/stock.logits", log = folder + "/stock.log";
  const int status =
      std::system(("OMP_WAIT_POLICY=passive '" + find_tool("llama-perplexity") + "' -t 1 -m '" +
                   model + "' -f '" + text + "' -c " + std::to_string(n_tokens) + " " + more +
                   " --kl-divergence-base '" + logits + "' > '" + log + "' 2>&1")
                      .c_str());
  if (status != 0) return {{}, {}, 0, "llama-perplexity failed, see " + log};
  return read_stock_logits(logits);
}

}  // namespace spectralquant::test
