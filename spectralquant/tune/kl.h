#pragma once
#include <torch/types.h>

#include <cstdint>

namespace spectralquant::tune {

/// Σ over positions of KL(teacher ‖ student) at the head, and its gradients.
struct HeadKl {
  torch::Tensor nats;  ///< float64, one value, where the models are: reading it waits for them
  /// at the student's hidden states, [n, D] float32; undefined unless asked for
  torch::Tensor hidden_gradient;
  torch::Tensor weight_gradient;  ///< at the student's head, [V, D] float32; likewise
};

/// Compares the two output distributions at n positions, a slice of positions at a time: [n, V]
/// never exists whole.
///
/// Logits are float32 products whatever the models computed in: rounded to bfloat16 they would
/// differ by more than a good quantization does.
/// Shapes   hidden: [n, D] outputs of the final norm; head: [V, D].
/// slice    positions at once; 0: chosen from the vocabulary to bound memory.
HeadKl kl_at_head(const torch::Tensor& teacher_hidden, const torch::Tensor& teacher_head,
                  const torch::Tensor& student_hidden, const torch::Tensor& student_head,
                  bool gradients, std::int64_t slice = 0);

}  // namespace spectralquant::tune
