#include "spectralquant/model/fused_layers.h"

#include "spectralquant/model/fused_kernels.h"

#ifdef SPECTRALQUANT_CUDA

#include <c10/core/DeviceGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/autograd.h>

namespace spectralquant::model::fused {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

bool is_half(const Tensor& x) { return x.scalar_type() == torch::kBFloat16; }

Stream stream_of(const Tensor& x) {
  return c10::cuda::getCurrentCUDAStream(x.device().index()).stream();
}

Tensor parts_for(std::int64_t n_rows, torch::IntArrayRef shape, const Tensor& like) {
  std::vector<std::int64_t> sizes{n_parts(n_rows)};
  sizes.insert(sizes.end(), shape.begin(), shape.end());
  return torch::empty(sizes, like.options().dtype(torch::kFloat32));
}

struct RmsNorm : torch::autograd::Function<RmsNorm> {
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& weight,
                        double eps) {
    const c10::DeviceGuard guard(x.device());
    const std::int64_t width = x.size(-1), n = x.numel() / width;
    Tensor y = torch::empty_like(x), scale = torch::empty({n}, weight.options());
    rms_norm(x.data_ptr(), weight.data_ptr<float>(), n, width, static_cast<float>(eps), is_half(x),
             y.data_ptr(), scale.data_ptr<float>(), stream_of(x));
    context->save_for_backward({x, weight, scale});
    return y;
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], &scale = saved[2];
    const c10::DeviceGuard guard(x.device());
    const Tensor at_y = gradients[0].contiguous();
    const std::int64_t width = x.size(-1), n = x.numel() / width;
    Tensor at_x = torch::empty_like(x), parts = parts_for(n, {width}, x);
    rms_norm_backward(x.data_ptr(), weight.data_ptr<float>(), scale.data_ptr<float>(),
                      at_y.data_ptr(), n, width, is_half(x), at_x.data_ptr(),
                      parts.data_ptr<float>(), stream_of(x));
    return {at_x, parts.sum(0), Tensor()};
  }
};

struct Swiglu : torch::autograd::Function<Swiglu> {
  static Tensor forward(AutogradContext* context, const Tensor& gate, const Tensor& up) {
    const c10::DeviceGuard guard(gate.device());
    Tensor y = torch::empty_like(gate);
    swiglu(gate.data_ptr(), up.data_ptr(), gate.numel(), is_half(gate), y.data_ptr(),
           stream_of(gate));
    context->save_for_backward({gate, up});
    return y;
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const Tensor &gate = saved[0], &up = saved[1];
    const c10::DeviceGuard guard(gate.device());
    const Tensor at_y = gradients[0].contiguous();
    Tensor at_gate = torch::empty_like(gate), at_up = torch::empty_like(up);
    swiglu_backward(gate.data_ptr(), up.data_ptr(), at_y.data_ptr(), gate.numel(), is_half(gate),
                    at_gate.data_ptr(), at_up.data_ptr(), stream_of(gate));
    return {at_gate, at_up};
  }
};

struct CausalConv : torch::autograd::Function<CausalConv> {
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& weight) {
    const c10::DeviceGuard guard(x.device());
    Tensor y = torch::empty_like(x);
    causal_conv(x.data_ptr(), weight.data_ptr<float>(), x.size(0), x.size(1), x.size(2),
                weight.size(1), is_half(x), y.data_ptr(), stream_of(x));
    context->save_for_backward({x, weight});
    return y;
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1];
    const c10::DeviceGuard guard(x.device());
    const Tensor at_y = gradients[0].contiguous();
    Tensor at_x = torch::empty_like(x), parts = parts_for(x.size(0) * x.size(1), weight.sizes(), x);
    causal_conv_backward(x.data_ptr(), weight.data_ptr<float>(), at_y.data_ptr(), x.size(0),
                         x.size(1), x.size(2), weight.size(1), is_half(x), at_x.data_ptr(),
                         parts.data_ptr<float>(), stream_of(x));
    return {at_x, parts.sum(0)};
  }
};

Tensor float_rows(const Tensor& weight) { return weight.to(torch::kFloat32).contiguous(); }

}  // namespace

bool can_run(const Tensor& x) {
  return x.is_cuda() && (is_half(x) || x.scalar_type() == torch::kFloat32);
}

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps) {
  return RmsNorm::apply(x.contiguous(), float_rows(weight), eps);
}

Tensor swiglu(const Tensor& gate, const Tensor& up) {
  return Swiglu::apply(gate.contiguous(), up.contiguous());
}

Tensor causal_conv(const Tensor& x, const Tensor& weight) {
  return CausalConv::apply(x.contiguous(), float_rows(weight));
}

}  // namespace spectralquant::model::fused

#else

namespace spectralquant::model::fused {

bool can_run(const torch::Tensor&) { return false; }

// Never called: can_run() says no.
torch::Tensor rms_norm(const torch::Tensor&, const torch::Tensor&, double) { return {}; }
torch::Tensor swiglu(const torch::Tensor&, const torch::Tensor&) { return {}; }
torch::Tensor causal_conv(const torch::Tensor&, const torch::Tensor&) { return {}; }

}  // namespace spectralquant::model::fused

#endif
