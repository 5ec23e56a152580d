#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <sstream>

#include "golden.h"
#include "spectralquant/text/corpus.h"

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

INSTANTIATE_TEST_SUITE_P(Variants, GoldenTest,
                         testing::Values("qwen35", "gpt-2", "edited", "probe-qwen35", "probe-qwen2",
                                         "probe-gpt-2", "probe-llama-bpe", "probe-chatglm-bpe",
                                         "probe-smollm", "probe-default", "probe-falcon",
                                         "probe-deepseek-v3", "probe-tekken", "probe-gpt-4o",
                                         "probe-seed-coder", "probe-bailingmoe"));

std::string find_llama_tokenize() {
  if (const char* folder = std::getenv("LLAMA_CPP_BIN"))
    return std::string(folder) + "/llama-tokenize";
  return std::system("command -v llama-tokenize >/dev/null 2>&1") == 0 ? "llama-tokenize" : "";
}

/// SQ_SUITES: files or patterns with ':' between, tokenized whole as plain text by both.
TEST(SlowLlamaTokenizeTest, AgreesOnFilesOfTheUser) {
  const char* suites = std::getenv("SQ_SUITES");
  const std::string program = find_llama_tokenize();
  if (!suites || program.empty())
    GTEST_SKIP() << "needs SQ_SUITES=FILE[:FILE…], and llama-tokenize on PATH or in LLAMA_CPP_BIN";
  const Tokenizer tokenizer = Tokenizer::from_metadata(nano_metadata());
  std::stringstream list(suites);
  for (std::string path; std::getline(list, path, ':');) {
    std::ifstream stream(path, std::ios::binary);
    ASSERT_TRUE(stream) << path;
    std::ostringstream text;
    text << stream.rdbuf();
    const std::string command = program + " -m '" + kNano + "' -f '" + path +
                                "' --ids --no-escape --log-disable 2>/dev/null";
    std::unique_ptr<std::FILE, int (*)(std::FILE*)> pipe(popen(command.c_str(), "r"), &pclose);
    ASSERT_TRUE(pipe);
    std::string out;
    char buffer[1 << 16];
    for (std::size_t n; (n = std::fread(buffer, 1, sizeof buffer, pipe.get())) > 0;)
      out.append(buffer, n);
    ASSERT_EQ(out.substr(0, 1), "[") << "llama-tokenize failed: " << command;
    EXPECT_TRUE(nlohmann::json::parse(out).get<std::vector<TokenId>>() ==
                tokenizer.encode(text.str()))
        << path;
  }
}

}  // namespace
}  // namespace spectralquant::text
