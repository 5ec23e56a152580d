// What the binary refuses: exit 3, a message with place and fix, no output file, nothing lost.
#include <cmath>
#include <csignal>
#include <random>

#include "cli_fixture.h"
#include "gguf/gguf_bytes.h"
#include "model/tiny_model.h"

namespace spectralquant::test {
namespace {

using gguf::test::le;
using model::TinyOptions;
using model::TinyTensor;
using testing::AllOf;
using testing::HasSubstr;
using Edit = std::function<void(gguf::Metadata&, std::vector<TinyTensor>&)>;

class BadInputTest : public CliTest {
 protected:
  std::vector<std::string> plain(const std::string& input) const {
    return {"quantize", input, "-o", out(), "--method", "plain"};
  }
  std::vector<std::string> with_text(const std::string& input,
                                     const std::string& text = kSuite) const {
    return {"quantize", input, "-o", out(), "--calibration", text, "--max-tokens", "2048"};
  }

  /// A small random model with something wrong.
  std::string tiny(const Edit& edit, TinyOptions options = {}) {
    options.edit = edit;
    return model::write_tiny_qwen35(path("tiny.gguf"), options);
  }

  /// The embedded model with the first `from` behind `after` replaced by as many bytes.
  std::string patched(const std::string& from, const std::string& to,
                      const std::string& after = "GGUF") {
    std::string bytes = read_file(kModel);
    const auto at = bytes.find(from, bytes.find(after));
    EXPECT_NE(at, std::string::npos) << from;
    EXPECT_EQ(from.size(), to.size());
    bytes.replace(at, to.size(), to);
    write_file(path("patched.gguf"), bytes);
    return path("patched.gguf");
  }

  static TinyTensor& tensor(std::vector<TinyTensor>& tensors, const std::string& name) {
    return *std::find_if(tensors.begin(), tensors.end(),
                         [&](const TinyTensor& t) { return t.name == name; });
  }
};

TEST_F(BadInputTest, FilesThatAreNoModels) {
  write_file(path("text.gguf"), "this is a text, not a model");
  expect_refused(plain(path("text.gguf")), "not a GGUF file");
  write_file(path("empty.gguf"), "");
  expect_refused(plain(path("empty.gguf")), "not a GGUF file");
  expect_refused(plain(path("missing.gguf")), "missing.gguf");
  expect_refused(plain(folder_.path()), "a folder");
}

TEST_F(BadInputTest, TruncatedAnywhere) {
  const std::string whole = read_file(kModel);
  std::mt19937_64 random(7);
  // every byte of a small file: Header.TruncatedAnywhereIsAnError
  std::vector<std::size_t> cuts = {1, 24, whole.size() - 1};
  // in the header; anywhere
  for (const std::size_t limit : {200'000ul, 200'000ul, whole.size()})
    cuts.push_back(random() % limit);
  for (const std::size_t n : cuts) {
    SCOPED_TRACE(n);
    write_file(path("cut.gguf"), whole.substr(0, n));
    expect_refused(plain(path("cut.gguf")), "cut.gguf");
  }
}

TEST_F(BadInputTest, CountsLengthsAndTypesThatLie) {
  const std::string whole = read_file(kModel);
  const auto with = [&](std::size_t offset, const std::string& bytes) {
    std::string changed = whole;
    changed.replace(offset, bytes.size(), bytes);
    write_file(path("lie.gguf"), changed);
    return plain(path("lie.gguf"));
  };
  expect_refused(with(4, le<std::uint32_t>(9)), "version 9");
  expect_refused(with(8, le<std::uint64_t>(~0ull)), "more than the file can hold");
  expect_refused(with(16, le<std::uint64_t>(1ull << 61)), "more than the file can hold");
  expect_refused(with(24, le<std::uint64_t>(~0ull)), "lie.gguf");  // length of the first key
  const std::size_t name = whole.find("token_embd.weight");
  // behind the name: dimensions, two sizes, type, offset
  const std::size_t type = name + 17 + 4 + 2 * 8;
  expect_refused(with(type, le<std::uint32_t>(31)), "tensor type 31");
  expect_refused(with(type - 8, le<std::uint64_t>(1ull << 60)), "token_embd.weight");
  expect_refused(with(type + 4, le<std::uint64_t>(1ull << 40)), "token_embd.weight");
}

TEST_F(BadInputTest, UnknownArchitectureAndPreTokenizer) {
  EXPECT_THAT(expect_refused(with_text(patched("qwen35", "qwen99")), "qwen99"),
              AllOf(HasSubstr("supported: "), HasSubstr("qwen35")));
  EXPECT_THAT(
      expect_refused(with_text(patched("qwen35", "qwen77", "tokenizer.ggml.pre")), "qwen77"),
      HasSubstr("llama-bpe"));
}

TEST_F(BadInputTest, MissingTensorsAndKeys) {
  expect_refused(with_text(tiny([](auto&, auto& tensors) {
                   std::erase_if(tensors, [](auto& t) { return t.name == "blk.1.attn_q.weight"; });
                 })),
                 "blk.1.attn_q.weight");
  expect_refused(
      with_text(tiny([](auto& metadata, auto&) { metadata.erase("qwen35.ssm.state_size"); })),
      "qwen35.ssm.state_size");
  expect_refused(
      with_text(tiny([](auto& metadata, auto&) { metadata.erase("tokenizer.ggml.merges"); })),
      "tokenizer.ggml.merges");
}

TEST_F(BadInputTest, WrongShapes) {
  const auto shorten = [](auto&, auto& tensors) {
    auto& t = tensor(tensors, "blk.0.ffn_up.weight");
    t.shape[1] -= 1;
    t.values.resize(t.shape[0] * t.shape[1]);
  };
  EXPECT_THAT(expect_refused(with_text(tiny(shorten)), "blk.0.ffn_up.weight has shape"),
              HasSubstr("hyper-parameters"));
  TinyOptions narrow;
  narrow.feed_forward = 288;
  const std::string odd = tiny({}, narrow);
  EXPECT_THAT(expect_refused(plain(odd), "288 columns; Q4_K needs a multiple of 256"),
              HasSubstr("--fallback"));
}

TEST_F(BadInputTest, NotANumberAndInfinityWithTheirPlace) {
  const auto put = [&](float value, const std::string& name, std::size_t index) {
    return plain(tiny([=](auto&, auto& tensors) { tensor(tensors, name).values[index] = value; }));
  };
  expect_refused(put(NAN, "blk.1.ffn_gate.weight", 3 * 256 + 7),
                 "blk.1.ffn_gate.weight holds NaN at row 3, column 7");
  expect_refused(put(-INFINITY, "token_embd.weight", 256),
                 "token_embd.weight holds an infinity at row 1, column 0");
  expect_refused(put(NAN, "output_norm.weight", 5), "output_norm.weight holds NaN");
}

TEST_F(BadInputTest, UnusableCalibrationText) {
  write_file(path("empty.txt"), "");
  write_file(path("short.txt"), "too short");
  write_file(path("binary.txt"), std::string("\0\1\2\3", 4) + std::string(5000, '\xfe'));
  write_file(path("latin1.txt"), std::string(5000, '\xe9'));
  write_file(path("broken.jsonl"), "{\"text\": \"fine\"}\n{\"txt\": 1}\n");
  write_file(path("blank.jsonl"), "\n\n");
  for (const auto& [name, problem] :
       std::vector<std::pair<std::string, std::string>>{{"empty.txt", "is empty"},
                                                        {"short.txt", "one window needs 512"},
                                                        {"binary.txt", "binary"},
                                                        {"latin1.txt", "not UTF-8"},
                                                        {"none*.txt", "no file matches"},
                                                        {"gone.txt", "No such file"},
                                                        {"blank.jsonl", "blank.jsonl"},
                                                        {"broken.jsonl", "broken.jsonl:2"}}) {
    SCOPED_TRACE(name);
    expect_refused(with_text(kModel, path(name)), problem);
  }
  expect_refused({"calibrate", kModel, "-o", out(), "--calibration", path("binary.txt")}, "binary");
}

TEST_F(BadInputTest, SuitesThatCannotBeScored) {
  write_file(path("short.txt"), "too short");
  const auto eval = [&](const std::string& suite) {
    return std::vector<std::string>{"eval", "--reference", kModel, "--suite", suite};
  };
  expect_refused(eval("s=" + path("short.txt") + ":c512"), "short.txt");
  expect_refused(eval("s=" + path("gone.txt")), "gone.txt");
  EXPECT_EQ(run(eval("nothing")).exit_code, 2);
}

TEST_F(BadInputTest, AnOutputThatExists) {
  write_file(out(), "precious");
  for (const auto& verb : {"quantize", "calibrate"}) {
    const Result r = run({verb, kModel, "-o", out(), "--calibration", kSuite});
    EXPECT_EQ(r.exit_code, 3);
    EXPECT_THAT(r.err, HasSubstr("--force"));
  }
  EXPECT_EQ(read_file(out()), "precious");
  auto forced = plain(kModel);
  forced.push_back("--force");
  EXPECT_EQ(run(forced).exit_code, 0);
}

TEST_F(BadInputTest, AnOutputThatIsAnInput) {
  const std::string model = path("model.gguf"), text = path("text.txt"),
                    signals = path("signals.gguf");
  std::filesystem::copy(kModel, model);
  std::filesystem::create_symlink(model, path("link.gguf"));
  write_file(text, std::string(4000, 'a'));
  ASSERT_EQ(
      run({"calibrate", model, "-o", signals, "--calibration", kSuite, "--max-tokens", "1024"})
          .exit_code,
      0);
  const std::string model_bytes = read_file(model), signal_bytes = read_file(signals),
                    text_bytes = read_file(text);
  for (const auto& arguments : std::vector<std::vector<std::string>>{
           {"quantize", model, "-o", model, "--method", "plain", "--force"},
           {"quantize", model, "-o", path("link.gguf"), "--method", "plain", "--force"},
           {"quantize", model, "-o", text, "--calibration", text, "--force"},
           {"quantize", model, "-o", text, "--calibration", path("*.txt"), "--force"},
           {"quantize", model, "-o", signals, "--signals", signals, "--force"},
           {"calibrate", model, "-o", model, "--calibration", text, "--force"},
           {"calibrate", model, "--imatrix", text, "--calibration", text, "--force"},
           {"eval", "--reference", model, "--suite", "t=" + text, "--markdown-file", model},
           {"eval", "--reference", model, "--suite", "t=" + text, "--markdown-file", text},
           {"eval", "--reference", model, "--suite", "t=" + std::string(kSuite), "--choices",
            "c=" + text, "--markdown-file", text},
           {"eval", "--reference", model, "--suite", "t=" + std::string(kSuite),
            "--calibration-text", text, "--markdown-file", text}}) {
    const Result r = run(arguments);
    EXPECT_EQ(r.exit_code, 3) << testing::PrintToString(arguments) << r.err;
    EXPECT_THAT(r.err, AllOf(HasSubstr("is the input"), HasSubstr("fix:")));
  }
  EXPECT_TRUE(read_file(model) == model_bytes && read_file(signals) == signal_bytes &&
              read_file(text) == text_bytes);
}

TEST_F(BadInputTest, OutputsThatCannotBeWritten) {
  for (const auto& verb : {"quantize", "calibrate"}) {
    const Result r =
        run({verb, kModel, "-o", path("no/such/folder/out.gguf"), "--calibration", kSuite});
    EXPECT_EQ(r.exit_code, 3) << r.err;
    EXPECT_THAT(r.err, AllOf(HasSubstr("output's folder"), HasSubstr("does not exist")));
  }
  EXPECT_EQ(run({"calibrate", kModel, "-o", out(), "--imatrix", out(), "--calibration", kSuite})
                .exit_code,
            2);
}

TEST_F(BadInputTest, SignalsAndImatricesOfAnotherModel) {
  const std::string small = model::write_tiny_qwen35(path("small.gguf"), {});
  ASSERT_EQ(run({"calibrate", small, "-o", path("s.gguf"), "--imatrix", path("im.gguf"),
                 "--calibration", kSuite, "--max-tokens", "2048"})
                .exit_code,
            0);
  for (const auto* signals : {"s.gguf", "im.gguf"}) {
    expect_refused({"quantize", kModel, "-o", out(), "--signals", path(signals)},
                   "of another model");
  }
  expect_refused({"quantize", kModel, "-o", out(), "--signals", kModel}, "holds no signals");
}

TEST_F(BadInputTest, AFullDiskLeavesNothing) {
  const Result r = Process(plain(kModel), 1'000'000).wait();
  EXPECT_EQ(r.exit_code, 1) << r.err;
  EXPECT_THAT(r.err, HasSubstr("fix:"));
  EXPECT_FALSE(std::filesystem::exists(out()));
  EXPECT_FALSE(partial_left());
}

TEST_F(BadInputTest, AResultThatIsLostIsAFailure) {
  EXPECT_EQ(Process({"inspect", kModel, "--json"}, 0).wait().exit_code, 1);
}

TEST_F(BadInputTest, KilledAtAnyMomentLeavesTheOldFileOrTheNew) {
  auto arguments = plain(kModel);
  const auto start = std::chrono::steady_clock::now();
  ASSERT_EQ(run(arguments).exit_code, 0);
  const auto whole = std::chrono::duration_cast<std::chrono::microseconds>(
                         std::chrono::steady_clock::now() - start)
                         .count();
  const std::string complete = read_file(out());
  arguments.push_back("--force");
  std::mt19937_64 random(11);
  int n_old = 0;
  for (int i = 0; i < 10; ++i) {
    write_file(out(), "precious");
    Process process(arguments);
    std::this_thread::sleep_for(std::chrono::microseconds(random() % (whole + whole / 10)));
    process.signal(SIGKILL);
    process.wait();
    const std::string left = read_file(out());
    EXPECT_TRUE(left == "precious" || left == complete) << left.size() << " bytes";
    n_old += left == "precious";
  }
  EXPECT_GT(n_old, 0);
  EXPECT_EQ(run(arguments).exit_code, 0);  // what the killed runs left does not stand in the way
  EXPECT_TRUE(read_file(out()) == complete);
  EXPECT_FALSE(partial_left());
}

TEST_F(BadInputTest, InterruptedRemovesThePartialFile) {
  Process process({"quantize", kModel, "-o", out(), "--calibration", kSuite});
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  process.signal(SIGINT);
  EXPECT_EQ(process.wait().exit_code, 130);
  EXPECT_FALSE(partial_left());
  EXPECT_FALSE(std::filesystem::exists(out()));
}

}  // namespace
}  // namespace spectralquant::test
