// What the program says of a file is true: strict or not, finite or not, loadable or not.
#include <cstring>
#include <nlohmann/json.hpp>
#include <tuple>

#include "cli_fixture.h"
#include "model/tiny_model.h"
#include "spectralquant/gguf/file.h"

namespace spectralquant::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class VerdictTest : public CliTest {
 protected:
  std::string tiny(const model::TinyOptions& options = {}) {
    return model::write_tiny_qwen35(path("tiny.gguf"), options);
  }
  Result plain(const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments{"quantize", path("tiny.gguf"), "-o",     out(),
                                       "--method", "plain",           "--force"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments);
  }
};

TEST_F(VerdictTest, AFallbackIsNotCalledStrict) {
  model::TinyOptions narrow;
  narrow.feed_forward = 288;
  tiny(narrow);
  const Result r = plain({"--fallback", "q8_0", "--json"});
  EXPECT_EQ(r.exit_code, 0) << r.err;
  EXPECT_THAT(r.err, AllOf(HasSubstr("not strict: 2 matrices are not Q4_K (first: "
                                     "blk.0.ffn_down.weight is Q8_0, not Q4_K)"),
                           Not(HasSubstr("every matrix"))));
  const auto report = nlohmann::json::parse(r.out);
  EXPECT_EQ(report.at("strict"), false);
  EXPECT_EQ(report.at("violations").size(), 2u);
  EXPECT_EQ(run({"inspect", out(), "--strict"}).exit_code, 1);
}

TEST_F(VerdictTest, StrictnessIsNotAskedOfTwoFilesAndLeftUnanswered) {
  tiny();
  ASSERT_EQ(plain().exit_code, 0);
  const Result r = run({"inspect", path("tiny.gguf"), out(), "--strict"});
  EXPECT_EQ(r.exit_code, 2);
  EXPECT_THAT(r.err, HasSubstr("inspect one file at a time"));
}

/// The parser of the command line refuses in the words of all other errors.
TEST_F(VerdictTest, WrongUsageHasOneForm) {
  for (const auto& [words, problem, help] :
       std::vector<std::tuple<std::vector<std::string>, std::string, std::string>>{
           {{"inspect", "--bogus\x1b[2J"}, "--bogus\\x1b[2J", "spectralquant inspect --help"},
           {{"quantize", "a.gguf", "--json", "--threads", "-1"}, "--threads", "quantize --help"},
           {{"quantize", "--json"}, "input is required", "quantize --help"},
           {{"quantize", "a.gguf", "--calibration", "self:1", "self:1099511627776"},
            "more than a model can write",
            "at most self:"},
           {{"bogus"}, "there is no verb bogus", "spectralquant --help"},
           {{"--bogus"}, "there is no option --bogus", "spectralquant --help"},
           {{}, "no verb", "spectralquant --help"}}) {
    const Result r = run(words);
    EXPECT_EQ(r.exit_code, 2) << testing::PrintToString(words);
    EXPECT_EQ(r.out, "");
    EXPECT_THAT(r.err, AllOf(testing::StartsWith("spectralquant: error: "), HasSubstr(problem),
                             HasSubstr("fix: "), HasSubstr(help)));
  }
}

TEST_F(VerdictTest, WarningsReachTheUserAndTheReport) {
  model::TinyOptions zeros;
  zeros.edit = [](auto&, auto& tensors) {
    for (auto& t : tensors)
      if (t.name == "blk.0.ffn_up.weight") std::ranges::fill(t.values, 0.0f);
  };
  tiny(zeros);
  const Result r = plain({"--json"});
  EXPECT_EQ(r.exit_code, 0) << r.err;
  EXPECT_THAT(r.err, AllOf(HasSubstr("warning    blk.0.ffn_up.weight is zero throughout"),
                           HasSubstr("strict Q4_K")));
  EXPECT_EQ(nlohmann::json::parse(r.out).at("warnings").size(), 1u);
  EXPECT_THAT(run({"inspect", out()}).out, HasSubstr("zeros: blk.0.ffn_up.weight is zero"));
}

TEST_F(VerdictTest, InspectFindsWhatIsNotFinite) {
  tiny();
  ASSERT_EQ(plain().exit_code, 0);
  EXPECT_EQ(run({"inspect", out(), "--strict"}).exit_code, 0);
  std::string bytes = read_file(out());
  {
    const gguf::File file = gguf::File::open(out());
    const gguf::Tensor& tensor = file.require("blk.1.ffn_up.weight");
    const std::string row(reinterpret_cast<const char*>(tensor.data), 144);
    const auto at = bytes.find(row);
    ASSERT_NE(at, std::string::npos);
    const std::uint16_t infinity = 0x7c00;
    std::memcpy(&bytes[at], &infinity, 2);  // the super-scale of the first super-block
  }
  write_file(out(), bytes);
  const Result r = run({"inspect", out(), "--strict"});
  EXPECT_EQ(r.exit_code, 1);
  EXPECT_THAT(r.out, AllOf(HasSubstr("not finite: blk.1.ffn_up.weight holds "),
                           HasSubstr("row 0, column 0 (256 values in 1 tensor)"),
                           HasSubstr("strict Q4_K: yes")));
  const auto report = nlohmann::json::parse(run({"inspect", out(), "--json"}).out);
  EXPECT_EQ(report.at("finite"), false);
  EXPECT_EQ(report.at("values_not_finite"), 256);
}

TEST_F(VerdictTest, InspectSaysWhatLlamaCppRefuses) {
  model::TinyOptions broken;
  broken.edit = [](auto& metadata, auto& tensors) {
    metadata.set("qwen35.context_length", gguf::Value::of_u64(4096));
    metadata.erase("tokenizer.ggml.merges");
    tensors.push_back({"v.blk.0.ln1.weight", {256}, std::vector<float>(256, 1.0f)});
  };
  tiny(broken);
  EXPECT_THAT(run({"inspect", path("tiny.gguf")}).out,
              AllOf(HasSubstr("llama.cpp refuses it: metadata key qwen35.context_length"),
                    HasSubstr("llama.cpp refuses it: metadata key tokenizer.ggml.merges")));
  expect_refused({"quantize", path("tiny.gguf"), "-o", out(), "--method", "plain"},
                 "qwen35.context_length is 4096 of type u64; llama.cpp reads type u32 only; and 1 "
                 "more");
  expect_refused({"quantize", path("tiny.gguf"), "-o", out(), "--method", "plain", "--dry-run"},
                 "qwen35.context_length");
}

}  // namespace
}  // namespace spectralquant::test
