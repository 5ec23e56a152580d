#include <algorithm>

#include "spectralquant/text/pretokenizer.h"

// The pre-tokenizers of llama.cpp that are patterns and nothing else.
// Source: the models' tokenizer.json, and llama-vocab.cpp for names, order and flags.
namespace spectralquant::text {
namespace {

#define SQ_CONTRACTION "'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"
#define SQ_NEWLINES_AND_SPACES R"(|\s*[\r\n]+|\s+(?!\S)|\s+)"
#define SQ_LETTERS_AND(numbers)                          \
  SQ_CONTRACTION R"(|[^\r\n\p{L}\p{N}]?\p{L}+|)" numbers \
                 R"(| ?[^\s\p{L}\p{N}]+[\r\n]*)" SQ_NEWLINES_AND_SPACES

constexpr std::string_view kGpt2 =
    R"('(?:[stmd]|re|ve|ll)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2 = SQ_LETTERS_AND(R"(\p{N})");
constexpr std::string_view kQwen35 = SQ_CONTRACTION
    R"(|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*)" SQ_NEWLINES_AND_SPACES;
constexpr std::string_view kLlama3 = SQ_LETTERS_AND(R"(\p{N}{1,3})");

// \p{K}: U+4E00-9FA5, U+3040-30FF (the kana and ideographs DeepSeek cuts out first).
constexpr std::string_view kDeepseekCjk = R"([\p{K}]+)";
constexpr std::string_view kDeepseek =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*)" SQ_NEWLINES_AND_SPACES;

// llama.cpp has no upper and lower case outside ASCII: such a letter (\p{A}) counts as both.
#define SQ_UPPER R"([A-Z\p{A}])"
#define SQ_LOWER R"([a-z\p{A}])"
#define SQ_CASED_WORDS(suffix)                                                               \
  R"([^\r\n\p{L}\p{N}]?)" SQ_UPPER "*" SQ_LOWER "+" suffix R"(|[^\r\n\p{L}\p{N}]?)" SQ_UPPER \
  "+" SQ_LOWER "*" suffix
constexpr std::string_view kTekken =
    SQ_CASED_WORDS("") R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*)" SQ_NEWLINES_AND_SPACES;
constexpr std::string_view kGpt4o = SQ_CASED_WORDS(
    "(?:" SQ_CONTRACTION ")?") R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*)" SQ_NEWLINES_AND_SPACES;
constexpr std::string_view kSeedCoder = SQ_CONTRACTION
    R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+)" SQ_NEWLINES_AND_SPACES;
constexpr std::string_view kBailing = SQ_CONTRACTION
    R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)";

const std::vector<PretokenizerSpec>& all_specs() {
  static const std::vector<PretokenizerSpec> specs = {
      {"qwen2",
       {"qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan",
        "solar-open", "grok-2"},
       {kQwen2}},
      {"qwen35", {"qwen35"}, {kQwen35}},
      {"llama-bpe",
       {"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"},
       {kLlama3},
       /*ignore_merges=*/true,
       /*add_bos=*/true},
      {"dbrx", {"dbrx", "smaug-bpe"}, {kLlama3}},
      {"chatglm-bpe", {"chatglm-bpe", "glm4"}, {kLlama3}, false, false, /*has_default_bos=*/false},
      {"gpt-2",
       {"gpt-2", "phi-2", "gigachat", "a.x-4.0", "mellum", "mpt", "olmo", "jais", "trillion",
        "granite-docling", "exaone4"},
       {kGpt2}},
      {"smollm",
       {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"},
       {R"(\p{N})", kGpt2}},
      {"default", {"default"}, {R"([\p{P}$+<=>\^~|]+)", kGpt2, R"(\p{N}+)", "[0-9][0-9][0-9]"}},
      {"falcon", {"falcon"}, {R"([\p{P}$+<=>\^~|`]+)", kGpt2, "[0-9][0-9][0-9]"}},
      {"deepseek-v3",
       {"deepseek-v3", "hunyuan-dense", "joyai-llm"},
       {R"(\p{N}{1,3})", kDeepseekCjk, kDeepseek}},
      {"tekken", {"tekken"}, {kTekken}, /*ignore_merges=*/true, /*add_bos=*/true},
      {"gpt-4o", {"gpt-4o", "llama4", "kanana2", "minimax-m2"}, {kGpt4o}},
      {"seed-coder", {"seed-coder"}, {kSeedCoder}},
      {"bailingmoe", {"bailingmoe", "bailingmoe2", "llada-moe"}, {kBailing}},
  };
  return specs;
}

}  // namespace

const PretokenizerSpec* find_pretokenizer(std::string_view name) {
  if (name.empty()) name = "default";
  for (const PretokenizerSpec& spec : all_specs()) {
    if (std::find(spec.names.begin(), spec.names.end(), name) != spec.names.end()) return &spec;
  }
  return nullptr;
}

std::string supported_pretokenizers() {
  std::string text;
  for (const PretokenizerSpec& spec : all_specs()) {
    for (std::string_view name : spec.names) text += (text.empty() ? "" : ", ") + std::string(name);
  }
  return text;
}

}  // namespace spectralquant::text
