#pragma once
#include "calibrate/calibrate_fixture.h"
#include "spectralquant/format/round.h"
#include "spectralquant/gguf/strict.h"
#include "spectralquant/tune/distill.h"

namespace spectralquant::tune {

using calibrate::difference;
using calibrate::random_windows;
using calibrate::refusal;

/// A tiny model and a poor quantization of it: the plain Q4_K rounding of four fifths of its
/// weights. Random weights and a few steps leave little to gain over a good one.
class TuneTest : public calibrate::FolderTest {
 protected:
  void open(const model::TinyOptions& options = {}) {
    original_ = std::make_unique<gguf::File>(
        gguf::File::open(model::write_tiny_qwen35(path("tiny.gguf"), options)));
    std::vector<gguf::TensorPlan> plans;
    for (const gguf::Tensor& t : original_->tensors()) {
      plans.push_back(
          {t.name, gguf::is_matrix_to_quantize("qwen35", t) ? gguf::Type::Q4_K : gguf::Type::F32,
           t.n_dims, t.shape});
    }
    gguf::WriteOptions write;
    write.overwrite = true;
    gguf::Writer writer(path("solved.gguf"), original_->metadata(), plans, write);
    for (std::size_t i = 0; i < plans.size(); ++i) {
      const gguf::Tensor& t = original_->tensors()[i];
      std::vector<float> values(t.n_values());
      gguf::decode(t, 0, t.n_rows(), values.data());
      if (plans[i].type == gguf::Type::Q4_K) {
        for (float& value : values) value *= 0.8f;
      }
      if (plans[i].type == gguf::Type::F32) {
        writer.write(i, 0, values.data(), values.size() * sizeof(float));
        continue;
      }
      const auto blocks =
          format::round_like_llama(format::Q4_K::kGrid, values.data(),
                                   static_cast<std::int64_t>(t.n_rows()),
                                   static_cast<std::int64_t>(t.n_cols()), nullptr, 1)
              .to_bytes();
      writer.write(i, 0, blocks.data(), blocks.size());
    }
    writer.commit();
    solved_ = std::make_unique<gguf::File>(gguf::File::open(path("solved.gguf")));
  }

  std::unique_ptr<gguf::File> original_, solved_;
};

/// Text and options of a short run.
class ShortRunTest : public TuneTest {
 protected:
  explicit ShortRunTest(std::int64_t n_steps) {
    text_.files = random_windows(12, 32, 1);
    text_.own = random_windows(12, 32, 2);
    text_.held_aside = random_windows(4, 32, 3);
    options_.tokens = n_steps * 128;
    options_.batch_tokens = 128;
    options_.moment_tokens = 512;
    options_.start = Start::kOriginal;
  }

  Text text_;
  DistillOptions options_;
};

}  // namespace spectralquant::tune
