#include "spectralquant/tune/kl.h"

#include <c10/core/DeviceGuard.h>
#ifdef SPECTRALQUANT_CUDA
#include <c10/cuda/CUDAStream.h>
#endif

#include <algorithm>

#include "spectralquant/tune/kl_kernel.h"

namespace spectralquant::tune {
namespace {

/// Bytes of one float32 array of a slice, four of which exist at once. On an accelerator larger,
/// because every slice reads and updates whole [V, D] matrices.
constexpr std::int64_t kSliceBytes = std::int64_t{64} << 20,
                       kSliceBytesOnDevice = std::int64_t{1} << 30;

/// Logits of a slice, float32. Factors of bfloat16 are added up in float32 where torch can (2.8 and
/// later, on an accelerator).
torch::Tensor logits_of(const torch::Tensor& x, const torch::Tensor& head) {
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 8)
  if (head.scalar_type() == torch::kBFloat16 && !head.device().is_cpu())
    return at::mm(x.to(torch::kBFloat16), head.t(), torch::kFloat32);
#endif
  return torch::linear(x.to(torch::kFloat32), head.to(torch::kFloat32));
}

/// KL of each row, [n], and with `gradients` q − p, the gradient at the student's logits, in
/// `type`. May use up the logits.
std::pair<torch::Tensor, torch::Tensor> kl_of_rows(torch::Tensor teacher, torch::Tensor student,
                                                   bool gradients, torch::ScalarType type) {
#ifdef SPECTRALQUANT_CUDA
  if (student.device().is_cuda()) {
    const c10::DeviceGuard guard(student.device());
    const bool half = type == torch::kBFloat16;
    torch::Tensor kl = torch::empty({student.size(0)}, student.options()), at_logits;
    if (gradients) at_logits = half ? torch::empty_like(student, type) : student;
    kl_rows(teacher.data_ptr<float>(), student.data_ptr<float>(), student.size(0), student.size(1),
            kl.data_ptr<float>(), gradients ? at_logits.data_ptr() : nullptr, half,
            c10::cuda::getCurrentCUDAStream(student.device().index()).stream());
    return {kl, at_logits};
  }
#endif
  torch::Tensor log_q = student.log_softmax(-1), log_p = teacher.log_softmax(-1);
  const torch::Tensor p = log_p.exp();
  const torch::Tensor kl = log_p.sub_(log_q).mul_(p).sum(-1);
  return {kl, gradients ? log_q.exp_().sub_(p).to(type) : torch::Tensor()};
}

}  // namespace

HeadKl kl_at_head(const torch::Tensor& teacher_hidden, const torch::Tensor& teacher_head,
                  const torch::Tensor& student_hidden, const torch::Tensor& student_head,
                  bool gradients, std::int64_t slice) {
  torch::NoGradGuard no_grad;
  // In bfloat16 the products at an accelerator's head take a third of the time.
  const bool half =
      student_hidden.scalar_type() == torch::kBFloat16 && !student_hidden.device().is_cpu();
  const torch::ScalarType type = half ? torch::kBFloat16 : torch::kFloat32;
  const torch::Tensor teacher_weight = teacher_head.to(type),
                      student_weight = student_head.detach().to(type);
  const torch::Tensor teacher_x = teacher_hidden.to(type),
                      student_x = student_hidden.detach().to(type);
  const std::int64_t n = teacher_x.size(0), vocab = teacher_weight.size(0);
  const std::int64_t bytes = teacher_x.device().is_cpu() ? kSliceBytes : kSliceBytesOnDevice;
  if (slice <= 0)
    slice = std::max<std::int64_t>(1, bytes / (vocab * static_cast<std::int64_t>(sizeof(float))));
  HeadKl out;
  if (gradients) {
    out.hidden_gradient =
        torch::empty(student_x.sizes(), student_x.options().dtype(torch::kFloat32));
    out.weight_gradient =
        torch::zeros(student_weight.sizes(), student_weight.options().dtype(torch::kFloat32));
  }
  out.nats = torch::zeros({}, torch::dtype(torch::kFloat64).device(teacher_x.device()));
  for (std::int64_t first = 0; first < n; first += slice) {
    const std::int64_t last = std::min(first + slice, n);
    const torch::Tensor x = student_x.slice(0, first, last);
    const auto [kl, at_logits] =
        kl_of_rows(logits_of(teacher_x.slice(0, first, last), teacher_weight),
                   logits_of(x, student_weight), gradients, type);
    out.nats.add_(kl.sum(torch::kFloat64));
    if (!gradients) continue;
    out.hidden_gradient.slice(0, first, last).copy_(at_logits.mm(student_weight));
    if (half) {
      out.weight_gradient.add_(at_logits.t().mm(x));
    } else {
      out.weight_gradient.addmm_(at_logits.t(), x);
    }
  }
  return out;
}

}  // namespace spectralquant::tune
