#pragma once
#include <cstdint>

struct CUstream_st;

namespace spectralquant::tune {

/// KL(softmax(teacher) ‖ softmax(student)) of each row and its gradient at the student's logits, in
/// two passes over the logits.
///
/// All pointers to memory of the present CUDA device; launched on `stream`.
/// Shapes   teacher, student: [n, V] logits; kl: [n] nats; gradient: [n, V] softmax(student) −
///          softmax(teacher) in bfloat16 if `half`, else in float32; null: not wanted. It may be
///          `student` itself.
/// Errors   std::runtime_error if the launch fails.
void kl_rows(const float* teacher, const float* student, std::int64_t n, std::int64_t vocab,
             float* kl, void* gradient, bool half, CUstream_st* stream);

}  // namespace spectralquant::tune
