// Ids beside those of stock llama-tokenize, where it is installed.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <sstream>

#include "golden.h"
#include "spectralquant/gguf/writer.h"

namespace spectralquant::text {
namespace {

std::string find_llama_tokenize() {
  if (const char* folder = std::getenv("LLAMA_CPP_BIN"))
    return std::string(folder) + "/llama-tokenize";
  return std::system("command -v llama-tokenize >/dev/null 2>&1") == 0 ? "llama-tokenize" : "";
}

std::string read_file(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

std::vector<TokenId> ids_of_stock(const std::string& model, const std::string& path,
                                  const std::string& flags = {}) {
  const std::string command = find_llama_tokenize() + " -m '" + model + "' -f '" + path +
                              "' --ids --no-escape --log-disable " + flags + " 2>/dev/null";
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> pipe(popen(command.c_str(), "r"), &pclose);
  std::string out;
  char buffer[1 << 16];
  for (std::size_t n; (n = std::fread(buffer, 1, sizeof buffer, pipe.get())) > 0;)
    out.append(buffer, n);
  if (!out.starts_with("[")) throw std::runtime_error("llama-tokenize failed: " + command);
  return nlohmann::json::parse(out).get<std::vector<TokenId>>();
}

/// A model of a vocabulary only, which llama-tokenize loads.
void write_vocabulary(const std::string& path, gguf::Metadata metadata) {
  metadata.set("general.architecture", gguf::Value::of_string("llama"));
  for (const char* key : {"context_length", "embedding_length", "block_count",
                          "feed_forward_length", "attention.head_count"})
    metadata.set(std::string("llama.") + key, gguf::Value::of_u32(64));
  std::filesystem::remove(path);
  gguf::Writer(path, metadata, {}).commit();
}

/// Random pieces of the golden texts, with the special token of that text between.
std::string shuffled_texts(const nlohmann::json& cases, const std::string& separator) {
  constexpr int kTexts = 2000, kMostPieces = 5;
  constexpr std::size_t kMostBytes = 12;
  std::mt19937 random(18);
  const auto below = [&](std::size_t n) { return random() % n; };
  std::string out;
  for (int i = 0; i < kTexts; ++i) {
    for (std::size_t pieces = 1 + below(kMostPieces); pieces > 0; --pieces) {
      const std::string text = from_hex(cases[below(cases.size())]["hex"]);
      const std::size_t begin = below(text.size());
      out += text.substr(begin, 1 + below(kMostBytes));
    }
    out += separator;
  }
  return out;
}

/// Vocabularies of the test's own, on shuffled golden texts and a whole suite.
class LlamaTokenizeTest : public testing::TestWithParam<const char*> {};

TEST_P(LlamaTokenizeTest, AgreesOnShuffledTextsAndASuite) {
  if (find_llama_tokenize().empty())
    GTEST_SKIP() << "needs llama-tokenize on PATH or in LLAMA_CPP_BIN";
  const nlohmann::json golden = read_golden_file(std::string("vocabulary_") + GetParam());
  const std::string folder = testing::TempDir() + "sq_live_" + std::to_string(getpid());
  std::filesystem::create_directories(folder);
  const std::string model = folder + "/vocabulary.gguf", shuffled = folder + "/shuffled.txt",
                    suite = std::string(SQ_SOURCE_DIR) + "/suites/convergence60.jsonl";
  for (const auto& variant : golden["variants"]) {
    gguf::Metadata metadata = vocabulary_metadata(golden);
    set_keys(metadata, variant["keys"]);
    write_vocabulary(model, metadata);
    std::ofstream(shuffled, std::ios::binary) << shuffled_texts(variant["cases"], "<|im_end|>");
    const Tokenizer tokenizer = Tokenizer::from_metadata(metadata);
    for (const std::string& path : {shuffled, suite}) {
      const std::string text = read_file(path);
      EXPECT_TRUE(ids_of_stock(model, path) == tokenizer.encode(text)) << variant["keys"] << path;
      EXPECT_TRUE(ids_of_stock(model, path, "--no-parse-special") ==
                  tokenizer.encode(text, {.parse_special = false}))
          << variant["keys"] << path;
    }
  }
  std::filesystem::remove_all(folder);
}

INSTANTIATE_TEST_SUITE_P(Kinds, LlamaTokenizeTest, testing::Values("sentence_piece", "plain_bpe"));

/// SQ_SUITES: files or patterns with ':' between, tokenized whole as plain text by both; with
/// SQ_VOCABULARY by another model than the embedded one.
TEST(SlowLlamaTokenizeTest, AgreesOnFilesOfTheUser) {
  const char* suites = std::getenv("SQ_SUITES");
  if (!suites || find_llama_tokenize().empty())
    GTEST_SKIP() << "needs SQ_SUITES=FILE[:FILE…], and llama-tokenize on PATH or in LLAMA_CPP_BIN";
  const char* other = std::getenv("SQ_VOCABULARY");
  const std::string model = other ? other : kNano;
  const Tokenizer tokenizer = Tokenizer::from_metadata(gguf::File::open(model).metadata());
  std::stringstream list(suites);
  for (std::string path; std::getline(list, path, ':');) {
    ASSERT_TRUE(std::filesystem::is_regular_file(path)) << path;
    EXPECT_TRUE(ids_of_stock(model, path) == tokenizer.encode(read_file(path))) << path;
  }
}

}  // namespace
}  // namespace spectralquant::text
