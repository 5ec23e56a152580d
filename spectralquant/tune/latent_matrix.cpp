#include "spectralquant/tune/latent_matrix.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace spectralquant::tune {
namespace {

constexpr std::int64_t kSuper = 256, kBlock = 32, kBlocks = kSuper / kBlock;
constexpr double kLargestCode = 15, kLargestScale = 63;
constexpr double kLargestHalf = 65504;  // the largest finite fp16

/// Values worked on at once; a handful of temporaries of this size exist beside the matrix.
constexpr std::int64_t kPieceValues = std::int64_t{1} << 24;

/// fp16 bits → float32 of the same value, [rows, cols/256, 1].
torch::Tensor halves(const std::vector<std::uint16_t>& bits, std::int64_t rows,
                     torch::Device device) {
  torch::Tensor half =
      torch::empty({rows, static_cast<std::int64_t>(bits.size()) / rows, 1}, torch::kFloat16);
  std::memcpy(half.data_ptr(), bits.data(), bits.size() * sizeof(bits[0]));
  return half.to(torch::kFloat32).to(device);
}

torch::Tensor bytes(const std::vector<std::int8_t>& values, std::vector<std::int64_t> shape,
                    torch::Device device) {
  return torch::from_blob(const_cast<std::int8_t*>(values.data()), shape, torch::kInt8)
      .to(device, torch::kFloat32);
}

/// Rounded to fp16 without leaving its range.
torch::Tensor through_half(const torch::Tensor& value) {
  return value.clamp(-kLargestHalf, kLargestHalf).to(torch::kFloat16).to(torch::kFloat32);
}

/// [n, cols/256, 1] → [n, cols/32, 1].
torch::Tensor per_block(const torch::Tensor& super) { return super.repeat_interleave(kBlocks, 1); }

/// Sums over the blocks of each super-block: [n, cols/32, 1] → [n, cols/256, 1].
torch::Tensor over_blocks(const torch::Tensor& blocks) {
  return blocks.view({blocks.size(0), -1, kBlocks}).sum(-1, /*keepdim=*/true);
}

/// What a value is divided by to find its code: blocks without a step get code 0.
torch::Tensor divisor(const torch::Tensor& step) {
  return step.masked_fill(step == 0, std::numeric_limits<float>::infinity());
}

void copy_bytes(const torch::Tensor& values, std::int8_t* out) {
  const torch::Tensor cpu = values.to(torch::kInt8).to(torch::kCPU).contiguous();
  std::memcpy(out, cpu.data_ptr<std::int8_t>(), static_cast<std::size_t>(cpu.numel()));
}

void copy_halves(const torch::Tensor& values, std::uint16_t* out) {
  const torch::Tensor cpu = values.to(torch::kFloat16).to(torch::kCPU).contiguous();
  std::memcpy(out, cpu.data_ptr(), static_cast<std::size_t>(cpu.numel()) * sizeof *out);
}

}  // namespace

LatentMatrix::LatentMatrix(const torch::Tensor& original, const format::GridMatrix& solved,
                           double clip, torch::Device device)
    : rows_(solved.rows),
      cols_(solved.cols),
      d0_(halves(solved.d, rows_, device)),
      dmin0_(halves(solved.dmin, rows_, device)) {
  torch::NoGradGuard no_grad;
  const std::vector<std::int64_t> blocks{rows_, cols_ / kBlock, 1};
  scale = Parameter(bytes(solved.scales, blocks, device));
  min = Parameter(bytes(solved.mins, blocks, device));
  d = Parameter(torch::zeros_like(d0_));
  dmin = Parameter(torch::zeros_like(dmin0_));
  lowest_scale_ = scale.value.clamp_max(1);
  weight = Parameter(original.to(device).clone().view({rows_, cols_ / kBlock, kBlock}),
                     (per_block(d0_) * scale.value).abs_());
  for (std::int64_t first = 0; first < rows_; first += piece_rows()) {
    const std::int64_t last = std::min(first + piece_rows(), rows_);
    const Grid at = grid(first, last);
    const std::vector<std::int64_t> shape{last - first, cols_ / kBlock, kBlock};
    const torch::Tensor codes =
        torch::from_blob(const_cast<std::int8_t*>(solved.codes.data()) + first * cols_, shape,
                         torch::kInt8)
            .to(device, torch::kFloat32);
    const torch::Tensor values = codes.mul(at.step).sub_(at.offset), room = at.step.abs() * clip;
    torch::Tensor own = weight.value.slice(0, first, last);
    own.copy_(torch::minimum(torch::maximum(own, values - room), values + room));
  }
}

std::int64_t LatentMatrix::piece_rows() const {
  return std::max<std::int64_t>(1, kPieceValues / std::max<std::int64_t>(1, cols_));
}

LatentMatrix::Grid LatentMatrix::grid(std::int64_t first, std::int64_t last) const {
  Grid out;
  out.scale = scale.value.slice(0, first, last).round();
  out.min = min.value.slice(0, first, last).round();
  out.d = per_block(through_half(d0_.slice(0, first, last) * (d.value.slice(0, first, last) + 1)));
  out.dmin = per_block(
      through_half(dmin0_.slice(0, first, last) * (dmin.value.slice(0, first, last) + 1)));
  out.step = out.d * out.scale;
  out.offset = out.dmin * out.min;
  return out;
}

torch::Tensor LatentMatrix::positions(const Grid& grid, std::int64_t first,
                                      std::int64_t last) const {
  return weight.value.slice(0, first, last).add(grid.offset).div_(divisor(grid.step));
}

torch::Tensor LatentMatrix::decode() const {
  torch::NoGradGuard no_grad;
  torch::Tensor out = torch::empty({rows_, cols_}, weight.value.options());
  for (std::int64_t first = 0; first < rows_; first += piece_rows()) {
    const std::int64_t last = std::min(first + piece_rows(), rows_);
    const Grid at = grid(first, last);
    out.slice(0, first, last)
        .copy_(positions(at, first, last)
                   .round_()
                   .clamp_(0, kLargestCode)
                   .mul_(at.step)
                   .sub_(at.offset)
                   .view({last - first, cols_}));
  }
  return out;
}

format::GridMatrix LatentMatrix::pack() const {
  torch::NoGradGuard no_grad;
  format::GridMatrix out(format::Q4_K::kGrid, rows_, cols_);
  for (std::int64_t first = 0; first < rows_; first += piece_rows()) {
    const std::int64_t last = std::min(first + piece_rows(), rows_);
    const Grid at = grid(first, last);
    copy_bytes(positions(at, first, last).round_().clamp_(0, kLargestCode),
               out.codes.data() + first * cols_);
    copy_bytes(at.scale, out.scales.data() + first * cols_ / kBlock);
    copy_bytes(at.min, out.mins.data() + first * cols_ / kBlock);
    copy_halves(at.d.slice(1, 0, cols_ / kBlock, kBlocks), out.d.data() + first * cols_ / kSuper);
    copy_halves(at.dmin.slice(1, 0, cols_ / kBlock, kBlocks),
                out.dmin.data() + first * cols_ / kSuper);
  }
  return out;
}

void LatentMatrix::pull_back(torch::Tensor gradient) {
  torch::NoGradGuard no_grad;
  weight.gradient = gradient.contiguous().view(weight.value.sizes());
  for (Parameter* small : {&scale, &min, &d, &dmin})
    small->gradient = torch::empty_like(small->value);
  for (std::int64_t first = 0; first < rows_; first += piece_rows()) {
    const std::int64_t last = std::min(first + piece_rows(), rows_);
    const Grid at = grid(first, last);
    torch::Tensor own = weight.gradient.slice(0, first, last);
    torch::Tensor position = positions(at, first, last);
    const torch::Tensor rounded = position.round(), code = rounded.clamp(0, kLargestCode);
    const torch::Tensor inside = rounded.eq_(code);  // 1 where the code is not clipped
    // Inside, value = step · round(position) − offset, and step · position − offset is the weight
    // itself: scale and offset act through what rounding leaves. Outside the code stands still, and
    // they act in full.
    const torch::Tensor of_step =
        code.sub_(position.mul_(inside)).mul_(own).sum(-1, /*keepdim=*/true);
    const torch::Tensor all = own.sum(-1, /*keepdim=*/true);
    own.mul_(inside);
    const torch::Tensor of_offset = own.sum(-1, /*keepdim=*/true).sub_(all);
    scale.gradient.slice(0, first, last).copy_(of_step * at.d);
    min.gradient.slice(0, first, last).copy_(of_offset * at.dmin);
    d.gradient.slice(0, first, last)
        .copy_(over_blocks(of_step * at.scale).mul_(d0_.slice(0, first, last)));
    dmin.gradient.slice(0, first, last)
        .copy_(over_blocks(of_offset * at.min).mul_(dmin0_.slice(0, first, last)));
  }
}

void LatentMatrix::update(const Rates& rates, std::int64_t step, const AdamOptions& options) {
  torch::NoGradGuard no_grad;
  adam_step(weight, rates.codes, step, options);
  for (Parameter* one : {&scale, &min}) adam_step(*one, rates.sub_scales, step, options);
  for (Parameter* one : {&d, &dmin}) adam_step(*one, rates.super_scales, step, options);
  scale.value.copy_(torch::maximum(scale.value.clamp_max(kLargestScale), lowest_scale_));
  min.value.clamp_(0, kLargestScale);
}

}  // namespace spectralquant::tune
