// A dry run refuses what the run would refuse; places that cannot be written are found before work.
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
