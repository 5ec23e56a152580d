#include "spectralquant/tune/kl.h"

#include <algorithm>

namespace spectralquant::tune {
namespace {

/// Bytes of one float32 array of a slice, four of which exist at once. On an accelerator larger, because every slice reads and
/// updates whole [V, D] matrices.
constexpr std::int64_t kSliceBytes = std::int64_t{64} << 20, kSliceBytesOnDevice = std::int64_t{512} << 20;

}  // namespace

HeadKl kl_at_head(const torch::Tensor& teacher_hidden, const torch::Tensor& teacher_head, const torch::Tensor& student_hidden,
                  const torch::Tensor& student_head, bool gradients, std::int64_t slice) {
  torch::NoGradGuard no_grad;
  const torch::Tensor teacher_weight = teacher_head.to(torch::kFloat32), student_weight = student_head.detach().to(torch::kFloat32);
  const torch::Tensor teacher_x = teacher_hidden.to(torch::kFloat32), student_x = student_hidden.detach().to(torch::kFloat32);
  const std::int64_t n = teacher_x.size(0), vocab = teacher_weight.size(0);
  const std::int64_t bytes = teacher_x.device().is_cpu() ? kSliceBytes : kSliceBytesOnDevice;
  if (slice <= 0) slice = std::max<std::int64_t>(1, bytes / (vocab * static_cast<std::int64_t>(sizeof(float))));
  HeadKl out;
  if (gradients) {
    out.hidden_gradient = torch::empty_like(student_x);
    out.weight_gradient = torch::zeros_like(student_weight);
  }
  torch::Tensor sum = torch::zeros({}, torch::dtype(torch::kFloat64).device(teacher_x.device()));
  for (std::int64_t first = 0; first < n; first += slice) {
    const std::int64_t last = std::min(first + slice, n);
    const torch::Tensor x = student_x.slice(0, first, last);
    torch::Tensor log_q = torch::linear(x, student_weight).log_softmax(-1);
    torch::Tensor log_p = torch::linear(teacher_x.slice(0, first, last), teacher_weight).log_softmax(-1);
    const torch::Tensor p = log_p.exp();
    sum.add_(log_p.sub_(log_q).mul_(p).sum(-1).sum(torch::kFloat64));
    if (!gradients) continue;
    const torch::Tensor at_logits = log_q.exp_().sub_(p);  // the gradient of KL is q − p
    out.hidden_gradient.slice(0, first, last).copy_(at_logits.mm(student_weight));
    out.weight_gradient.addmm_(at_logits.t(), x);
  }
  out.sum_nats = sum.item<double>();
  return out;
}

}  // namespace spectralquant::tune
