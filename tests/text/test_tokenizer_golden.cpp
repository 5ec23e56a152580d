#include <gtest/gtest.h>

#include "golden.h"

namespace spectralquant::text {
namespace {

class GoldenTest : public testing::TestWithParam<const char*> {};

TEST_P(GoldenTest, IdsAreThoseOfLlamaTokenize) {
  const nlohmann::json golden = read_golden(GetParam());
  gguf::Metadata metadata = nano_metadata();
  metadata.set("tokenizer.ggml.pre", gguf::Value::of_string(golden["pre"].get<std::string>()));
  if (is_probe(GetParam())) set_probe_vocabulary(metadata);
  if (golden.contains("edits")) {
    const nlohmann::json& edits = golden["edits"];
    const std::vector<std::string_view> old = metadata.find("tokenizer.ggml.tokens")->strings();
    std::vector<std::string> tokens(old.begin(), old.end());
    const std::vector<double> old_kinds = metadata.find("tokenizer.ggml.token_type")->numbers();
    std::vector<std::int32_t> kinds(old_kinds.begin(), old_kinds.end());
    for (const auto& edit : edits["tokens"]) {
      tokens[edit[0].get<std::size_t>()] = edit[1].get<std::string>();
      kinds[edit[0].get<std::size_t>()] = edit[2].get<std::int32_t>();
    }
    metadata.set("tokenizer.ggml.tokens", gguf::Value::of_strings(tokens));
    metadata.set("tokenizer.ggml.token_type", of_i32_array(kinds));
    metadata.set("general.name", gguf::Value::of_string(edits["general.name"].get<std::string>()));
    for (const char* key : {"tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token"}) {
      metadata.set(key, gguf::Value::of_bool(edits[key].get<bool>()));
    }
  }
  const Tokenizer tokenizer = Tokenizer::from_metadata(metadata);
  const std::vector<GoldenCase> cases = golden_cases(GetParam());
  EXPECT_GE(cases.size(), 60u);
  for (const GoldenCase& c : cases) {
    EXPECT_EQ(tokenizer.encode(c.text), c.ids) << c.text.substr(0, 200);
    EXPECT_EQ(tokenizer.encode(c.text, {.add_special = true, .parse_special = false}), c.ids_plain)
        << c.text.substr(0, 200);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Variants, GoldenTest,
    testing::Values("qwen35", "gpt-2", "edited", "probe-qwen35", "probe-qwen2", "probe-gpt-2",
                    "probe-llama-bpe", "probe-chatglm-bpe", "probe-glm4", "probe-smollm",
                    "probe-default", "probe-falcon", "probe-deepseek-v3", "probe-tekken",
                    "probe-gpt-4o", "probe-seed-coder", "probe-bailingmoe", "probe-minicpm5",
                    "probe-deepseek-llm", "probe-deepseek-coder", "probe-spark2_5", "probe-youtu",
                    "probe-jais-2", "probe-bloom", "probe-viking", "probe-exaone-moe",
                    "probe-chameleon", "probe-granite-embed-multi-97m", "probe-tiny_aya",
                    "probe-superbpe", "probe-kimi-k2", "probe-ufakzeka", "probe-afmoe",
                    "probe-laguna", "probe-k2-horizon"));

/// Vocabularies of the test's own, in every variant of their keys.
class VocabularyGoldenTest : public testing::TestWithParam<const char*> {};

TEST_P(VocabularyGoldenTest, IdsAreThoseOfLlamaTokenize) {
  const nlohmann::json golden = read_golden_file(std::string("vocabulary_") + GetParam());
  for (const auto& variant : golden["variants"]) {
    gguf::Metadata metadata = vocabulary_metadata(golden);
    set_keys(metadata, variant["keys"]);
    const Tokenizer tokenizer = Tokenizer::from_metadata(metadata);
    EXPECT_GE(variant["cases"].size(), 60u);
    for (const auto& item : variant["cases"]) {
      const GoldenCase c = to_case(item);
      EXPECT_EQ(tokenizer.encode(c.text), c.ids) << variant["keys"] << c.text.substr(0, 200);
      EXPECT_EQ(tokenizer.encode(c.text, {.parse_special = false}), c.ids_plain)
          << variant["keys"] << c.text.substr(0, 200);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, VocabularyGoldenTest,
                         testing::Values("sentence_piece", "plain_bpe"));

}  // namespace
}  // namespace spectralquant::text
