#pragma once
#include <torch/torch.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "spectralquant/gguf/file.h"

namespace spectralquant::model {

// Shape letters of this room: B sequences, T tokens, D hidden size, V vocabulary.

/// Sees every matrix product y = x Wᵀ of a forward pass, by the GGUF name of W.
///
/// Shapes   input: [B, T, cols]; output: [B, T, rows]. For the head: input is the normed hidden
///          state.
using Tap = std::function<void(std::string_view weight_name, const torch::Tensor& input,
                               const torch::Tensor& output)>;

/// Weights of a model by GGUF name, decoded from the mapped file when first asked for.
///
/// A tensor of GGUF shape [cols, rows] becomes a torch tensor [rows, cols] of the compute type;
/// vectors (norms, biases) are float32 always. set() puts another tensor in a weight's place (a
/// quantized one, a differentiable one); the file is never touched. get() may be called from
/// several threads.
class Weights {
 public:
  Weights(const gguf::File& file, torch::Device device, torch::Dtype dtype);

  /// Error(kBadInput) naming the tensor if absent
  torch::Tensor get(const std::string& name);
  bool has(const std::string& name) const;
  void set(const std::string& name,
           torch::Tensor value);        ///< [rows, cols] as get() gives; shape checked
  void reset(const std::string& name);  ///< back to the file's own
  /// Forgets decoded tensors whose name begins with prefix ("blk.3."), to bound memory; what was
  /// set() stays.
  void release(std::string_view prefix);

  const gguf::File& file() const { return file_; }
  torch::Device device() const { return device_; }
  torch::Dtype dtype() const { return dtype_; }

 private:
  const gguf::File& file_;
  torch::Device device_;
  torch::Dtype dtype_;
  std::mutex mutex_;  ///< of the maps: batches that run side by side ask for the same weights
  std::map<std::string, torch::Tensor, std::less<>> cache_, overrides_;
};

/// Recurrent state of one block during token-by-token generation; what is in it is the
/// architecture's business. Nothing flows back through it: generation runs without gradients.
struct BlockState {
  std::map<std::string, torch::Tensor> tensors;
  std::int64_t n_past = 0;

  /// Adds rows [B, H, T, n] after the n_past ones kept under `name`; returns a view of all of them,
  /// [B, H, n_past + T, n]. n_past itself is left to the caller, who may keep several such tensors.
  torch::Tensor append(const std::string& name, const torch::Tensor& rows);
};

/// Thrown by Pass::linear() at Pass::stop_at; Model::input_of() catches it.
struct Stopped {
  torch::Tensor input;  ///< [B, T, cols]
};

/// What a forward pass through a block is given beside its input.
struct Pass {
  Weights& weights;
  const Tap* tap = nullptr;
  /// set: continue from it and update it; unset: a whole sequence from its start
  BlockState* state = nullptr;
  /// a weight: nothing from its product on is computed, its input is thrown as Stopped
  std::string_view stop_at;

  /// y = x Wᵀ with the tap told about it. x: [B, T, cols] → [B, T, rows].
  torch::Tensor linear(const std::string& weight_name, const torch::Tensor& x) const;
};

/// One architecture: hyper-parameters read from metadata, blocks put together from model/layers.h.
/// To add one: a file architecture_NAME.cpp with a subclass, and a line in architecture.cpp
/// (docs/architecture.md).
class Architecture {
 public:
  virtual ~Architecture() = default;
  virtual std::int64_t n_blocks() const = 0;
  /// Names of the weights that read the same input, in the order in which the block computes them,
  /// two stages a half: what reads the residual stream, and the output projection. E.g. {{attn_q,
  /// attn_k, attn_v}, {attn_output}, {ffn_gate, ffn_up}, {ffn_down}}.
  virtual std::vector<std::vector<std::string>> stages(std::int64_t block) const = 0;
  /// One half of a block: 0 mixes tokens (attention), 1 is the feed-forward part. Each reads the
  /// residual stream through a norm and adds to it the product of its last weight: x + y Wᵀ. x: [B,
  /// T, D] → [B, T, D].
  virtual torch::Tensor half(std::int64_t block, int half, const torch::Tensor& x,
                             const Pass& pass) const = 0;
  /// tokens: int64 [B, T] → [B, T, D].
  virtual torch::Tensor embed(const torch::Tensor& tokens, const Pass& pass) const = 0;
  /// Final norm. x: [B, T, D] → [B, T, D].
  virtual torch::Tensor final_norm(const torch::Tensor& x, const Pass& pass) const = 0;
  /// "output.weight", or "token_embd.weight" when tied
  virtual std::string head_name() const = 0;
  virtual std::string embedding_name() const = 0;  ///< "token_embd.weight"
  bool tied() const { return head_name() == embedding_name(); }
  virtual std::int64_t vocab_size() const = 0;
  virtual std::int64_t hidden_size() const = 0;
};

/// Makes the architecture a file names. Errors  Error(kBadInput) naming an unsupported one and the
/// supported, a missing key or tensor, or a tensor whose shape does not fit the hyper-parameters.
std::unique_ptr<Architecture> make_architecture(const gguf::File& file);

/// "cpu", "cuda", "cuda:1". Errors  Error(kBadUsage) for another name, or when there is no such
/// device.
torch::Device parse_device(const std::string& name);

struct ModelOptions {
  torch::Device device = torch::kCPU;
  torch::Dtype dtype = torch::kFloat32;  ///< compute type: kFloat32 or kBFloat16
};

/// A language model running from a GGUF file; differentiable with respect to activations and to
/// weights set().
///
///     auto file = gguf::File::open("model.gguf");
///     model::Model model(file);
///     auto logits = model.forward(tokens);        // int64 [B, T] → [B, T, V]
///
/// The file must outlive the Model. Block by block: x = embed(tokens); x = block(i, x) …; logits =
/// head(x).
class Model {
 public:
  explicit Model(const gguf::File& file, ModelOptions options = {});

  torch::Tensor forward(const torch::Tensor& tokens, const Tap* tap = nullptr);

  torch::Tensor embed(const torch::Tensor& tokens);
  torch::Tensor block(std::int64_t index, const torch::Tensor& x, const Tap* tap = nullptr,
                      BlockState* state = nullptr);
  torch::Tensor half(std::int64_t index, int half, const torch::Tensor& x,
                     const Tap* tap = nullptr);
  /// What weight_name reads in this half of block `index`; nothing behind it is computed. x: [B, T,
  /// D] → [B, T, cols].
  torch::Tensor input_of(const std::string& weight_name, std::int64_t index, int half,
                         const torch::Tensor& x);
  torch::Tensor final_norm(const torch::Tensor& x);
  /// hidden: output of final_norm [.., D] → logits [.., V].
  torch::Tensor head(const torch::Tensor& hidden, const Tap* tap = nullptr);

  Weights& weights() { return weights_; }
  const Architecture& architecture() const { return *architecture_; }
  torch::Device device() const { return options_.device; }
  torch::Dtype dtype() const { return options_.dtype; }

 private:
  ModelOptions options_;
  Weights weights_;
  std::unique_ptr<Architecture> architecture_;
};

/// Tokens of equal-length windows as an int64 tensor [B, T] on the device.
torch::Tensor to_tensor(const std::vector<std::vector<std::int32_t>>& windows, std::size_t first,
                        std::size_t count, torch::Device device);

}  // namespace spectralquant::model
