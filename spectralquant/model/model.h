#pragma once
#include <torch/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "spectralquant/gguf/matrix.h"

namespace spectralquant::model {

using gguf::MatrixId;

// Shape letters of this room: B sequences, T tokens, D hidden size, V vocabulary.

/// Sees every matrix product y = x Wᵀ of a forward pass.
///
/// Shapes   input: [B, T, cols], of an expert the tokens routed to it: [n, cols]; output the same
///          with rows. For the head: input is the normed hidden state.
using Tap = std::function<void(const MatrixId& matrix, const torch::Tensor& input,
                               const torch::Tensor& output)>;

/// Weights of a model by id, decoded from the mapped file when first asked for.
///
/// A matrix, also one slice of a stack, becomes a torch tensor [rows, cols] of the compute type;
/// vectors (norms, biases) are float32 always. set() puts another tensor in a weight's place (a
/// quantized one, a differentiable one); the file is never touched. get() may be called from
/// several threads.
class Weights {
 public:
  Weights(const gguf::File& file, torch::Device device, torch::Dtype dtype);

  /// Error(kBadInput) naming the tensor if absent
  torch::Tensor get(const MatrixId& id);
  bool has(const std::string& tensor) const;
  /// value: [rows, cols] as get() gives; shape checked. Of a stack: [slices, rows, cols], each
  /// slice is set.
  void set(const MatrixId& id, const torch::Tensor& value);
  void reset(const MatrixId& id);  ///< back to the file's own
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
  std::map<MatrixId, torch::Tensor> cache_, overrides_;
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

/// Which experts of a part each token goes to.
struct Routing {
  torch::Tensor experts;  ///< int64 [B · T, experts used]
};

/// Thrown by Pass::linear() at Pass::stop_at; Model::inputs_of() catches it.
struct Stopped {
  std::vector<torch::Tensor> inputs;  ///< [B, T, cols], or of each expert [n, cols]
};

/// What a forward pass through a block is given beside its input.
struct Pass {
  Weights& weights;
  const Tap* tap = nullptr;
  /// set: continue from it and update it; unset: a whole sequence from its start
  BlockState* state = nullptr;
  /// a matrix: nothing from its product on is computed; its input, or those of all experts of its
  /// stack, is thrown as Stopped
  const MatrixId* stop_at = nullptr;
  /// of the router: if it holds experts, tokens go to them, else it is told where they go
  Routing* routing = nullptr;

  /// y = x Wᵀ with the tap told about it. x: [.., cols] → [.., rows].
  torch::Tensor linear(const MatrixId& matrix, const torch::Tensor& x) const;
  /// The same for one matrix of each expert. xs: of each expert the tokens it gets, [n, cols]; the
  /// tap is not told of experts that get none.
  std::vector<torch::Tensor> linear_each(const std::vector<MatrixId>& matrices,
                                         const std::vector<torch::Tensor>& xs) const;
};

/// Matrices that read one input, in the order in which the block computes them.
using Readers = std::vector<MatrixId>;
/// What a part computes side by side: the readers of one input, or those of each expert.
using Stage = std::vector<Readers>;

/// One update of the residual stream. A part computes its stages one after the other, each from
/// what the stages before it gave.
struct Part {
  /// E.g. {{{attn_q, attn_k, attn_v}}, {{attn_output}}}.
  std::vector<Stage> stages;
  /// The part returns x + y Wᵀ, W the only matrix of its last stage, y what W reads. False where
  /// anything follows that product (a bias, a norm, a factor) or where nothing is added to x.
  bool adds_last_product = true;
  /// What is computed for a token depends on the tokens before it.
  bool mixes_tokens = false;
};

/// One architecture: hyper-parameters read from metadata, blocks put together from model/layers.h.
/// docs/architecture.md says how to add one.
class Architecture {
 public:
  virtual ~Architecture() = default;
  virtual std::int64_t n_blocks() const = 0;
  /// What a block does to the residual stream, in order.
  virtual std::vector<Part> parts(std::int64_t block) const = 0;
  /// Part number `index` of a block. x: [B, T, D] → [B, T, D].
  virtual torch::Tensor part(std::int64_t block, std::size_t index, const torch::Tensor& x,
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
  /// Values that a token leaves in the key and value caches of all blocks.
  virtual std::int64_t cache_values() const = 0;

  /// Blocks that draft a further token (MTP). They follow the others, numbered from n_blocks(), and
  /// take no part in the model's own prediction.
  virtual std::int64_t n_draft_blocks() const { return 0; }
  /// What a draft block starts from: each hidden state beside the token that came after it.
  ///
  /// Shapes   tokens: int64 [B, T ≥ 2]; hidden: output of final_norm, [B, T, D]; returns [B, T − 1,
  ///          n], n columns of the first weight of its first part.
  virtual torch::Tensor draft_input(std::int64_t block, const torch::Tensor& tokens,
                                    const torch::Tensor& hidden, const Pass& pass) const;
};

/// The stages of all parts of a block, in order.
std::vector<Stage> stages_of(const Architecture& architecture, std::int64_t block);
/// The matrices that a forward pass multiplies by: those of all stages, then the head. Draft blocks
/// are left out.
std::vector<MatrixId> multiplied_weights(const Architecture& architecture);
/// All matrices whose inputs calibration sees: draft blocks are among them.
std::set<MatrixId> gathered_weights(const Architecture& architecture);

/// "blk.3.": what the names of a block's tensors begin with.
std::string block_prefix(std::int64_t block);
/// "blk.3.ffn_up.weight" → 3; −1 for a tensor outside of blocks.
std::int64_t block_of(std::string_view tensor_name);

/// Makes the architecture a file names. Errors  Error(kBadInput) naming an unsupported one and the
/// supported, a missing key or tensor, or a tensor whose shape does not fit the hyper-parameters.
std::unique_ptr<Architecture> make_architecture(const gguf::File& file);
/// True if make_architecture() knows the architecture that the file names.
bool is_supported(const gguf::File& file);

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
  torch::Tensor part(std::int64_t block, std::size_t index, const torch::Tensor& x,
                     const Tap* tap = nullptr, Routing* routing = nullptr);
  /// What the readers of a stage of this part of a block read; nothing behind it is computed.
  ///
  /// Shapes   x: [B, T, D]; returns one tensor for each of the stage's readers: [B, T, cols], or of
  ///          each expert the tokens routed to it, [n, cols].
  std::vector<torch::Tensor> inputs_of(const Stage& stage, std::int64_t block, std::size_t index,
                                       const torch::Tensor& x, Routing* routing = nullptr);
  /// See Architecture::draft_input().
  torch::Tensor draft_input(std::int64_t block, const torch::Tensor& tokens,
                            const torch::Tensor& hidden);
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
