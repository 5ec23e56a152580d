// How far is a quantized file from its original? What is scored is the written file.
//   score_model model-bf16.gguf model-q4km.gguf texts.jsonl
#include <cstdio>

#include "spectralquant/core/error.h"
#include "spectralquant/evaluate/score.h"

int main(int argc, char** argv) try {
  if (argc != 4) return 2;
  using namespace spectralquant;
  const auto original = gguf::File::open(argv[1]), quantized = gguf::File::open(argv[2]);
  const auto tokenizer = text::Tokenizer::from_metadata(original.metadata());
  const auto suite =
      evaluate::load_suite(evaluate::parse_suite(std::string("texts=") + argv[3]), tokenizer,
                           text::ChatFormat::from_metadata(original.metadata()));
  model::Model reference(original), candidate(quantized);
  const auto hidden = evaluate::hidden_states(reference, suite);  // serves any number of candidates
  const auto score =
      evaluate::summarize(evaluate::compare(reference, hidden, candidate, suite), nullptr, nullptr);
  std::printf("loss %.4f, KLD %.4f (95 %%: %.4f to %.4f), same top token %.1f %%\n",
              score.loss.mean, score.kld.mean, score.kld.low, score.kld.high,
              100 * score.top1_agreement.mean);
  return 0;
} catch (const spectralquant::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
