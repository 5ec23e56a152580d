#include <torch/autograd.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "spectralquant/model/layers.h"

namespace spectralquant::model {
namespace {

// Axes of this file: B sequences, J value heads of one key head, K key heads, N chunks, C tokens of
// a chunk, then the head's own. Value head h = j · K + k (tiled), so [B, H_v, ..] viewed as [B, J,
// K, ..] lines up with [B, 1, K, ..].

/// [B, T, H, n] → [B, J, K, N, C, n], contiguous, zeros after the last token: those neither decay
/// nor write the state.
torch::Tensor in_chunks(const torch::Tensor& x, std::int64_t n_key_heads, std::int64_t chunk) {
  const auto n_tokens = x.size(1), n_heads = x.size(2), size = x.size(3);
  const auto n_chunks = (n_tokens + chunk - 1) / chunk;
  const auto missing = n_chunks * chunk - n_tokens;
  const auto full = missing == 0 ? x : torch::constant_pad_nd(x, {0, 0, 0, 0, 0, missing});
  return full.reshape({x.size(0), n_chunks, chunk, n_heads / n_key_heads, n_key_heads, size})
      .permute({0, 3, 4, 1, 2, 5})
      .contiguous();
}

/// Puts together the inverse of a unit lower triangular matrix from those of its diagonal blocks,
/// which double in size each time: of [[P, 0], [L, Q]] the lower left block is −Q⁻¹ L P⁻¹. As
/// stable as substitution, and all of it matrix products.
torch::Tensor doubled_inverse(const torch::Tensor& lower) {
  const auto n = lower.size(-1);
  const auto row = torch::arange(n, lower.options().dtype(torch::kInt64)).unsqueeze(1),
             column = row.t();
  auto inverse = torch::eye(n, lower.options()).expand_as(lower);
  for (std::int64_t size = 1; size < n; size *= 2) {
    const auto same_pair = row.div(2 * size, "floor").eq(column.div(2 * size, "floor")),
               below = row.div(size, "floor").gt(column.div(size, "floor"));
    const auto between_blocks = lower * (same_pair & below).to(lower.scalar_type());
    inverse = size == 1 ? inverse - between_blocks
                        : inverse - torch::matmul(torch::matmul(inverse, between_blocks), inverse);
  }
  return inverse;
}

/// Its gradient needs the inverse alone, nothing of how it came about.
struct UnitLowerInverse : torch::autograd::Function<UnitLowerInverse> {
  static torch::Tensor forward(torch::autograd::AutogradContext* context,
                               const torch::Tensor& lower) {
    const auto inverse = doubled_inverse(lower);
    context->save_for_backward({inverse});
    return inverse;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const auto transposed = context->get_saved_variables()[0].transpose(-1, -2);
    return {torch::matmul(torch::matmul(transposed, gradients[0]), transposed).neg_().tril(-1)};
  }
};

/// One token: what generation runs. The state is read once, for key and query together, and written
/// once: Sᵀq after the update is e^g S₀ᵀq + (k·q) times what was written.
torch::Tensor one_token(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v,
                        const torch::Tensor& log_decay, const torch::Tensor& beta,
                        torch::Tensor& state) {
  const auto n_sequences = v.size(0), n_value_heads = v.size(2), value_size = v.size(3);
  const auto tiles = n_value_heads / q.size(2);
  const auto per_head = [](const torch::Tensor& x) { return x.select(1, 0).to(torch::kFloat32); };
  // [B, H_v, 2, D]
  const auto both = torch::stack({per_head(k), per_head(q)}, -2).repeat({1, tiles, 1, 1});
  // [B, H_v, 1, D]
  const auto key = both.narrow(-2, 0, 1), query = both.narrow(-2, 1, 1);
  const auto decay = per_head(log_decay).exp().view({n_sequences, n_value_heads, 1, 1});
  const auto rate = per_head(beta).view({n_sequences, n_value_heads, 1, 1});
  const auto read = torch::matmul(both, state) * decay;  // [B, H_v, 2, E]
  const auto write = (per_head(v).unsqueeze(-2) - read.narrow(-2, 0, 1)) * rate;
  state = torch::addcmul(state * decay, key.transpose(-1, -2), write);
  const auto out = read.narrow(-2, 1, 1) + (key * query).sum(-1, /*keepdim=*/true) * write;
  return out.reshape({n_sequences, 1, n_value_heads, value_size}).to(v.scalar_type());
}

}  // namespace

torch::Tensor unit_lower_inverse(const torch::Tensor& system, bool by_products) {
  if (by_products) return UnitLowerInverse::apply(system.tril(-1));
  const auto identity = torch::eye(system.size(-1), system.options()).expand_as(system);
  return torch::linalg_solve_triangular(system, identity, /*upper=*/false, /*left=*/true,
                                        /*unitriangular=*/true);
}

torch::Tensor gated_delta_rule(const torch::Tensor& q, const torch::Tensor& k,
                               const torch::Tensor& v, const torch::Tensor& log_decay,
                               const torch::Tensor& beta, torch::Tensor* state) {
  const auto n_sequences = v.size(0), n_tokens = v.size(1), n_value_heads = v.size(2),
             value_size = v.size(3);
  const auto n_key_heads = q.size(2), key_size = q.size(3);
  if (state && n_tokens == 1) return one_token(q, k, v, log_decay, beta, *state);

  const auto type = v.scalar_type();
  const auto chunk = std::min(n_tokens, kDeltaChunk);
  // [B, 1, K, N, C, D]
  const auto queries = in_chunks(q.to(type), n_key_heads, chunk),
             keys = in_chunks(k.to(type), n_key_heads, chunk);
  // [B, J, K, N, C, E]
  const auto values = in_chunks(v, n_key_heads, chunk);
  // [B, J, K, N, C, 1]
  const auto rate = in_chunks(beta.to(torch::kFloat32).unsqueeze(-1), n_key_heads, chunk);
  // since the chunk's start
  const auto decay =
      in_chunks(log_decay.to(torch::kFloat32).unsqueeze(-1), n_key_heads, chunk).cumsum(-2);
  const auto decay_row = decay.transpose(-1, -2);

  // between[i, j]: what is left at token i of something written at token j ≤ i.
  const auto later = torch::ones({chunk, chunk}, v.options().dtype(torch::kBool)).triu(1);
  const auto between =
      (decay - decay_row).masked_fill(later, -std::numeric_limits<float>::infinity()).exp();

  // Within a chunk every write sees the writes before it: (I + A) u = β v and (I + A) w = β e^decay
  // k, A strictly lower. β and e^decay scale columns of the inverse, so that nothing of the size of
  // values and keys is float32.
  const auto system =
      torch::matmul(keys, keys.transpose(-1, -2)).to(torch::kFloat32) * between * rate;
  // Batches of small triangular solves leave an accelerator idle; on a CPU they take half the
  // operations.
  const auto inverse = unit_lower_inverse(system, /*by_products=*/!system.device().is_cpu()) *
                       rate.transpose(-1, -2);
  // [B·J·K, N, ..]: every product of the loop is one batch
  const auto flat = [&](const torch::Tensor& x) { return x.flatten(0, 2); };
  // u, each [B·J·K, C, E]
  const auto own_writes = flat(torch::matmul(inverse.to(type), values)).unbind(1);
  // w, each [B·J·K, C, D]
  const auto state_reads =
      flat(torch::matmul((inverse * decay_row.exp()).to(type), keys)).unbind(1);
  // over the chunk, [B, J, K, N, 1, 1]
  const auto whole = decay.narrow(-2, chunk - 1, 1);
  const auto kept_keys = flat(keys * (whole - decay).exp().to(type)).transpose(-1, -2).unbind(1);
  const auto kept = flat(whole.exp()).unbind(1);

  const auto groups = n_value_heads / n_key_heads;
  auto memory = state ? state->flatten(0, 1)
                      : torch::zeros({n_sequences * n_value_heads, key_size, value_size},
                                     v.options().dtype(torch::kFloat32));
  // in front of each chunk, [B·J·K, D, E]; in it, [B·J·K, C, E]
  std::vector<torch::Tensor> states, writes;
  for (std::size_t n = 0; n < own_writes.size(); ++n) {
    states.push_back(memory.to(type));
    writes.push_back(torch::baddbmm(own_writes[n], state_reads[n], states[n], 1, -1));
    if (state || n + 1 < own_writes.size())
      memory = memory * kept[n] + torch::bmm(kept_keys[n], writes[n]).to(torch::kFloat32);
  }
  const auto attention =
      (torch::matmul(queries, keys.transpose(-1, -2)).to(torch::kFloat32) * between).to(type);
  const auto all = torch::matmul(flat(queries * decay.exp().to(type)), torch::stack(states, 1)) +
                   torch::matmul(flat(attention), torch::stack(writes, 1));
  if (state) *state = memory.reshape({n_sequences, n_value_heads, key_size, value_size});
  return all.unflatten(0, {n_sequences, groups, n_key_heads})
      .permute({0, 3, 4, 1, 2, 5})
      .reshape({n_sequences, -1, n_value_heads, value_size})
      .narrow(1, 0, n_tokens);
}

}  // namespace spectralquant::model
