// A dry run refuses what the run would refuse; places that cannot be written are found before work.
#include <cmath>
#include <nlohmann/json.hpp>

#include "cli_fixture.h"
#include "model/tiny_model.h"

namespace spectralquant::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;
using Words = std::vector<std::string>;

class DryRunTest : public CliTest {
 protected:
  void SetUp() override {
    model::write_tiny_qwen35(path("in.gguf"), {});
    std::string text;
    for (int i = 0; i < 500; ++i) text += "the river runs to a sea of stone ";
    write_file(path("text.txt"), text);
  }

  Words quantize(const Words& more) const {
    Words words = {"quantize", path("in.gguf"), "--window", "32"};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }

  /// Refused alike with and without --dry-run; returns the message.
  std::string expect_refused_alike(Words words, int exit_code) {
    const Result real = run(words);
    words.push_back("--dry-run");
    const Result dry = run(words);
    EXPECT_EQ(real.exit_code, exit_code) << real.err;
    EXPECT_EQ(dry.exit_code, exit_code) << dry.err;
    EXPECT_EQ(dry.err, real.err);
    EXPECT_EQ(dry.out, "");
    return dry.err;
  }
};

TEST_F(DryRunTest, RefusesWhatTheRunRefuses) {
  const std::string text = path("text.txt");
  write_file(path("there.gguf"), "precious");
  write_file(path("short.txt"), "a");
  const auto with = [&](const std::string& source, const Words& more = {}) {
    Words words = quantize({"-o", out(), "-q", "--calibration", source});
    words.insert(words.end(), more.begin(), more.end());
    return words;
  };
  expect_refused_alike(with(path("gone.txt")), 3);
  expect_refused_alike(with(path("short.txt")), 3);
  expect_refused_alike(with(text, {"--signals", path("in.gguf")}), 2);
  expect_refused_alike(with(text, {"--self-temperature", "20"}), 2);
  expect_refused_alike(with(text, {"--tune", "64", "--max-tokens", "32"}), 2);
  expect_refused_alike(with(text, {"--fallback", "q5_k"}), 2);
  for (const auto* device : {"cuda:99", "cuda:-1", "cuda:x", "gpu", "meta"})
    EXPECT_THAT(expect_refused_alike(with(text, {"--device", device}), 2), HasSubstr("device"));
  expect_refused_alike(quantize({"-o", out(), "-q", "--signals", path("in.gguf")}), 3);
  expect_refused_alike(quantize({"-o", path("there.gguf"), "--method", "plain", "-q"}), 3);
  expect_refused_alike(quantize({"-o", path("no/folder.gguf"), "--method", "plain", "-q"}), 3);
  std::filesystem::create_directory(out() + ".work");
  write_file(out() + ".work/job.json", R"({"key": "another job"})");
  EXPECT_THAT(expect_refused_alike(with(text), 3), HasSubstr("unfinished run"));
  EXPECT_TRUE(std::filesystem::exists(out() + ".work/job.json"));
}

/// The same checks stand before calibrate: quantize would refuse the model afterwards.
TEST_F(DryRunTest, RefusesModelsThatLlamaCppRefuses) {
  model::TinyOptions options;
  options.edit = [](gguf::Metadata& metadata, auto&) { metadata.erase("qwen35.context_length"); };
  model::write_tiny_qwen35(path("in.gguf"), options);
  const std::string text = path("text.txt"), problem = "qwen35.context_length is missing";
  EXPECT_THAT(expect_refused_alike(quantize({"-o", out(), "-q", "--calibration", text}), 3),
              HasSubstr(problem));
  expect_refused({"calibrate", path("in.gguf"), "-o", out(), "--calibration", text}, problem);
}

TEST_F(DryRunTest, RefusesWeightsThatNoScaleHolds) {
  for (const float value : {1e8f, -5e6f}) {
    model::TinyOptions options;
    options.edit = [&](auto&, std::vector<model::TinyTensor>& tensors) {
      for (auto& tensor : tensors)
        if (tensor.name == "blk.1.ffn_up.weight") tensor.values.at(2 * 256 + 5) = value;
    };
    model::write_tiny_qwen35(path("in.gguf"), options);
    EXPECT_THAT(expect_refused_alike(quantize({"-o", out(), "-q", "--method", "plain"}), 3),
                HasSubstr("blk.1.ffn_up.weight cannot be rounded to Q4_K"));
  }
}

TEST_F(DryRunTest, LeavesTheWorkOfAnotherRunAloneEvenWithForce) {
  std::filesystem::create_directory(out() + ".work");
  write_file(out() + ".work/job.json", R"({"key": "another job"})");
  const Result r = run(
      quantize({"-o", out(), "--calibration", path("text.txt"), "--force", "--dry-run", "--json"}));
  EXPECT_EQ(r.exit_code, 0) << r.err;
  EXPECT_EQ(json::parse(r.out)["calibration_tokens"].get<int>() % 32, 0);
  EXPECT_TRUE(std::filesystem::exists(out() + ".work/job.json"));
  EXPECT_FALSE(std::filesystem::exists(out()));
}

TEST_F(DryRunTest, PlacesThatCannotBeWrittenAreFoundBeforeSampling) {
  const auto as_nobody = [](const Words& words) {
    return Process(words, RLIM_INFINITY, {}, /*as_nobody=*/true).wait();
  };
  std::filesystem::create_directory(path("locked"));
  namespace fs = std::filesystem;
  const auto readable = fs::perms::owner_read | fs::perms::owner_exec | fs::perms::group_read |
                        fs::perms::group_exec | fs::perms::others_read | fs::perms::others_exec;
  fs::permissions(path("locked"), readable);
  fs::permissions(folder_.path(), readable);
  if (as_nobody({"--version"}).exit_code != 0) GTEST_SKIP() << "nobody cannot run the binary";
  const std::string there = path("locked/out.gguf"), imatrix = path("locked/im.gguf");
  for (const Words& words : std::vector<Words>{
           quantize({"-o", there, "--calibration", "self:64"}),
           quantize({"-o", there, "--calibration", "self:64", "--dry-run"}),
           quantize({"-o", there, "--method", "plain"}),
           {"calibrate", path("in.gguf"), "-o", there, "--calibration", "self:64"},
           {"calibrate", path("in.gguf"), "--imatrix", imatrix, "--calibration", "self:64"},
           {"eval", "--reference", path("in.gguf"), "--suite", "t=" + path("text.txt") + ":c32",
            "--markdown-file", path("locked/out.md")}}) {
    const Result r = as_nobody(words);
    EXPECT_EQ(r.exit_code, 3) << testing::PrintToString(words) << r.err;
    EXPECT_THAT(r.err, HasSubstr("Permission denied"));
    EXPECT_THAT(r.err, Not(HasSubstr("sample")));
    EXPECT_THAT(r.err, Not(HasSubstr("score")));
  }
  fs::permissions(folder_.path(), fs::perms::owner_all);
}

/// Also for root, who may write anywhere that can be written.
TEST_F(DryRunTest, PlacesThatNobodyCanWriteAreFoundBeforeWork) {
  write_file(path("file"), "precious");
  write_file(path("results.json"), "{}");
  const std::string model = path("in.gguf"), results = path("results.json");
  const auto expect_refused_at_once = [&](const Words& words, const std::string& problem) {
    const Result r = run(words);
    EXPECT_EQ(r.exit_code, 3) << testing::PrintToString(words) << r.err;
    EXPECT_THAT(r.err, HasSubstr(problem)) << testing::PrintToString(words);
    EXPECT_THAT(r.err, Not(HasSubstr("sample")));
    EXPECT_THAT(r.err, Not(HasSubstr("score")));
  };
  const std::string place = "/proc/out";
  for (const Words& words :
       {quantize({"-o", place, "--calibration", "self:64"}),
        Words{"calibrate", model, "-o", place, "--calibration", "self:64", "--window", "32"},
        Words{"eval", "--reference", model, "--suite", "t=" + path("text.txt") + ":c32",
              "--markdown-file", place},
        Words{"report", results, "-o", place},
        Words{"card", model, "--results", results, "-o", place}})
    expect_refused_at_once(words, "cannot create");
  for (const auto& [odd, problem] : std::vector<std::pair<std::string, std::string>>{
           {path("file/out"), "is a file"},
           {path("file/deeper/out"), "a part of the path is a file"},
           {path(std::string(250, 'a')), "File name too long"}})
    expect_refused_at_once(quantize({"-o", odd, "--method", "plain", "--dry-run"}), problem);
  EXPECT_EQ(read_file(path("file")), "precious");
}

TEST_F(DryRunTest, CalibrateRefusesWhatNoSignalsComeOf) {
  const auto calibrate = [&](const std::string& name, std::size_t at, float value) {
    model::TinyOptions options;
    options.edit = [&](auto&, std::vector<model::TinyTensor>& tensors) {
      for (auto& tensor : tensors)
        if (tensor.name == name) tensor.values.at(at) = value;
    };
    model::write_tiny_qwen35(path("odd.gguf"), options);
    return expect_refused({"calibrate", path("odd.gguf"), "-o", out(), "--calibration",
                           path("text.txt"), "--window", "32", "--max-tokens", "64"},
                          "");
  };
  EXPECT_THAT(calibrate("blk.1.ffn_gate.weight", 3 * 256 + 7, NAN),
              HasSubstr("blk.1.ffn_gate.weight holds NaN at row 3, column 7"));
  EXPECT_THAT(calibrate("blk.1.post_attention_norm.weight", 5, 1e25f), HasSubstr("overflow"));
}

TEST_F(DryRunTest, SaysAndKeepsWhatIsLeftOutOfTexts) {
  std::string lines = "{\"text\": null}\n";
  for (int i = 0; i < 20; ++i) lines += "{\"text\": \"the river runs to a sea of stone\"}\n";
  write_file(path("t.jsonl"), lines);
  Words words =
      quantize({"-o", out(), "--calibration", path("t.jsonl"), "--json", "--method", "imatrix"});
  for (const bool dry : {true, false}) {
    if (dry) words.push_back("--dry-run");
    const Result r = run(words);
    EXPECT_EQ(r.exit_code, 0) << r.err;
    EXPECT_THAT(r.err, HasSubstr("warning    " + path("t.jsonl") + ": left out 1 record"));
    EXPECT_THAT(json::parse(r.out)["warnings"].dump(), HasSubstr("left out 1 record"));
    if (dry) words.pop_back();
  }
}

TEST_F(DryRunTest, NamesThatAreNotUtf8StandInValidJson) {
  const std::string folder = path("mod\xe8les");
  std::filesystem::create_directory(folder);
  const std::string input = folder + "/in.gguf", output = folder + "/out.gguf",
                    text = folder + "/t\xe9xt.txt";
  std::filesystem::copy_file(path("in.gguf"), input);
  std::filesystem::copy_file(path("text.txt"), text);
  const Words words = {"quantize",      input, "-o",       output, "--method",     "imatrix",
                       "--calibration", text,  "--window", "32",   "--max-tokens", "64",
                       "--json"};
  Words dry = words;
  dry.push_back("--dry-run");
  for (const Words& each : {dry, words, Words{"inspect", output, "--json"},
                            Words{"calibrate", input, "-o", folder + "/s.gguf", "--calibration",
                                  text, "--window", "32", "--json"},
                            Words{"inspect", folder + "/s.gguf", "--json"}}) {
    const Result r = run(each);
    EXPECT_EQ(r.exit_code, 0) << r.err;
    EXPECT_TRUE(json::accept(r.out)) << r.out;
  }
  const gguf::File file = gguf::File::open(output);
  EXPECT_EQ(file.metadata().require_string("spectralquant.calibration"), "t\xef\xbf\xbdxt.txt");
}

}  // namespace
}  // namespace spectralquant::test
