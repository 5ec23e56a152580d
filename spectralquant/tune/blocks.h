#pragma once
#include "spectralquant/tune/distill.h"

namespace spectralquant::tune {

/// Tunes block by block, for models that do not fit whole: each block learns to give what the
/// original's gives, from what the tuned part in front of it gives.
///
/// Loss: mean over tokens of ‖x_q − x_f‖² / ‖x_f‖², x_q and x_f being the residual streams behind
/// the block in the tuned and in the original model. Each block is trained on all of
/// options.tokens; its best state on the text held aside is kept. Embedding, head and final norm
/// stay as solved. If in the end KL on the text held aside is not below its start, everything does.
///
/// report      best_step and steps_done count blocks; the curve has each block's loss on the text
///             held aside.
/// Memory      one block as in distill(), the residual streams of all windows in main memory, and
///             the head at the end.
/// Errors      Error(kBadUsage) without text to train on or to hold aside.
TensorBytes distill_blocks(const gguf::File& original, const gguf::File& solved, const Text& text,
                           const DistillOptions& options, torch::Device device,
                           DistillReport& report, const Progress& progress = {});

}  // namespace spectralquant::tune
