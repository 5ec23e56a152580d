#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "spectralquant/model/layers.h"

namespace spectralquant::model {
namespace {

// Queries per tile: keys after a tile are never touched, so small tiles save half of the work;
// large ones fill the matrix product. 128 rows do both on a CPU and on a GPU.
constexpr std::int64_t kQueryTile = 128;

}  // namespace

torch::Tensor causal_attention(const torch::Tensor& q, const torch::Tensor& k,
                               const torch::Tensor& v) {
  const auto n_sequences = q.size(0), n_tokens = q.size(1), n_heads = q.size(2),
             head_size = q.size(3);
  const auto n_key_heads = k.size(1), n_keys = k.size(2), n_past = n_keys - n_tokens;
  const auto group = n_heads / n_key_heads;
  const double scale = 1.0 / std::sqrt(static_cast<double>(head_size));
  const auto by_head = (q * scale)
                           .view({n_sequences, n_tokens, n_key_heads, group, head_size})
                           .permute({0, 2, 3, 1, 4});
  const auto keys = k.transpose(-1, -2);
  std::vector<torch::Tensor> tiles;
  for (std::int64_t first = 0; first < n_tokens; first += kQueryTile) {
    const auto rows = std::min(kQueryTile, n_tokens - first);
    const auto seen = n_past + first + rows;  // keys up to the tile's last query
    const auto queries =
        by_head.narrow(3, first, rows).reshape({n_sequences, n_key_heads, group * rows, head_size});
    auto scores = torch::matmul(queries, keys.narrow(-1, 0, seen)).to(torch::kFloat32);
    scores = scores.view({n_sequences, n_key_heads, group, rows, seen});
    if (rows > 1) {
      const auto later =
          torch::ones({rows, seen}, q.options().dtype(torch::kBool)).triu(n_past + first + 1);
      scores = scores.masked_fill(later, -std::numeric_limits<float>::infinity());
    }
    const auto share = torch::softmax(scores, -1)
                           .to(v.scalar_type())
                           .view({n_sequences, n_key_heads, group * rows, seen});
    const auto mixed = torch::matmul(share, v.narrow(2, 0, seen));
    tiles.push_back(mixed.view({n_sequences, n_key_heads, group, rows, head_size}));
  }
  const auto all = tiles.size() == 1 ? tiles.front() : torch::cat(tiles, 3);
  return all.permute({0, 3, 1, 2, 4}).reshape({n_sequences, n_tokens, n_heads, head_size});
}

}  // namespace spectralquant::model
