#include "pipeline/pipeline_fixture.h"
#include "spectralquant/pipeline/solved_matrix.h"
#include "spectralquant/pipeline/work_folder.h"

namespace spectralquant::pipeline {
namespace {

using ::testing::HasSubstr;

namespace fs = std::filesystem;

class WorkFolderTest : public calibrate::FolderTest {
 protected:
  WorkFolder open(const std::string& key, bool start_over = false) {
    return WorkFolder(path("out.gguf"), key, R"({"seed": 3})", start_over);
  }
  std::string folder() const { return path("out.gguf.work"); }
};

TEST_F(WorkFolderTest, IsMadeByTheFirstFileAndFoundByTheSameJob) {
  WorkFolder first = open("a");
  EXPECT_FALSE(fs::exists(folder()));
  EXPECT_FALSE(first.continued());
  first.write("blk.0/weird", "bytes");
  EXPECT_THAT(slurp(folder() + "/job.json"), HasSubstr("\"seed\": 3"));
  // what this run wrote itself is no earlier run's
  EXPECT_EQ(first.read("blk.0/weird"), std::nullopt);

  WorkFolder again = open("a");
  EXPECT_TRUE(again.continued());
  EXPECT_EQ(again.read("blk.0/weird"), "bytes");
  EXPECT_EQ(again.find("other"), std::nullopt);
  again.write("blk.0_weird", "others");
  EXPECT_EQ(again.read("blk.0/weird"), "bytes");
  again.remove();
  EXPECT_FALSE(fs::exists(folder()));
  EXPECT_FALSE(again.continued());
}

TEST_F(WorkFolderTest, AnotherJobsWorkIsRefusedOrThrownAway) {
  open("a").write("file", "bytes");
  EXPECT_THAT(calibrate::refusal([&] { open("b"); }), HasSubstr("unfinished run"));
  EXPECT_TRUE(fs::exists(folder() + "/file"));
  WorkFolder other = open("b", true);
  EXPECT_FALSE(other.continued());
  EXPECT_FALSE(fs::exists(folder()));
}

TEST_F(WorkFolderTest, AFolderThatIsNoWorkFolder) {
  fs::create_directory(folder());
  EXPECT_FALSE(open("a").continued());  // empty: nothing is lost
  fs::create_directory(folder());
  spew(folder() + "/job.json", "{\"key\": 17");
  EXPECT_THAT(calibrate::refusal([&] { open("a"); }), HasSubstr("unfinished run"));
  fs::remove_all(folder());
  spew(folder(), "a file");
  EXPECT_THAT(calibrate::refusal([&] { open("a"); }), HasSubstr("in the way"));
}

TEST(SolvedMatrixTest, SurvivesTheTripAndKnowsItsOwn) {
  const format::Grid& grid = format::Q4_K::kGrid;
  SolvedMatrix m;
  m.report = {"blk.0.x", 2, 256, 0.1, 3, 2, 1.0 / 3, 0.5};
  m.report.token_share = 0.25;
  m.matrix = format::GridMatrix(format::Q4_K::kGrid, 2, 256);
  for (std::size_t i = 0; i < m.matrix.codes.size(); ++i)
    m.matrix.codes[i] = static_cast<std::int8_t>(i * 7 % 16);
  for (std::size_t i = 0; i < m.matrix.scales.size(); ++i)
    m.matrix.scales[i] = static_cast<std::int8_t>(i % 64);
  m.matrix.d = {0x3c00, 0x1234};
  const std::string bytes = m.to_bytes();
  const auto back = SolvedMatrix::from_bytes(bytes, grid, "blk.0.x", 2, 256);
  ASSERT_TRUE(back);
  EXPECT_EQ(back->report.objective, 1.0 / 3);
  EXPECT_EQ(back->report.token_share, 0.25);
  EXPECT_EQ(back->matrix.codes, m.matrix.codes);
  EXPECT_EQ(back->matrix.scales, m.matrix.scales);
  EXPECT_EQ(back->matrix.d, m.matrix.d);

  EXPECT_FALSE(SolvedMatrix::from_bytes(bytes, grid, "blk.1.x", 2, 256));
  EXPECT_FALSE(SolvedMatrix::from_bytes(bytes, grid, {"blk.0.x", 0}, 2, 256));
  EXPECT_FALSE(SolvedMatrix::from_bytes(bytes, grid, "blk.0.x", 1, 512));
  EXPECT_FALSE(
      SolvedMatrix::from_bytes(bytes.substr(0, bytes.size() - 1), grid, "blk.0.x", 2, 256));
  std::string flipped = bytes;
  flipped.back() ^= 1;
  EXPECT_FALSE(SolvedMatrix::from_bytes(flipped, grid, "blk.0.x", 2, 256));
  EXPECT_FALSE(SolvedMatrix::from_bytes("{\"name\": \"blk.0.x\"}\n", grid, "blk.0.x", 2, 256));
  EXPECT_FALSE(SolvedMatrix::from_bytes("", grid, "blk.0.x", 2, 256));
}

class ResumeTest : public PipelineTest {
 protected:
  struct Stop {};

  static std::map<std::string, double> objectives(const QuantizeReport& report) {
    std::map<std::string, double> out;
    for (const auto& matrix : report.matrices) out[matrix.id.text()] = matrix.objective;
    return out;
  }

  /// Runs until `n` matrices are solved, then stops as a killed run would.
  void run_until(const QuantizeOptions& o, std::size_t n) {
    std::size_t ended = 0;
    std::uint64_t done = 0;
    EXPECT_THROW(quantize_file(o,
                               [&](const ProgressEvent& event) {
                                 if (event.phase != "solve" || event.done == done) return;
                                 done = event.done;
                                 if (++ended == n) throw Stop{};
                               }),
                 Stop);
    EXPECT_FALSE(fs::exists(o.output));
    EXPECT_TRUE(fs::exists(o.output + ".work"));
  }
};

TEST_F(ResumeTest, AStoppedRunContinuesToTheSameBytes) {
  for (const bool sequential : {true, false}) {
    QuantizeOptions o = options();
    o.moments = sequential ? Moments::kSequential : Moments::kStatic;
    o.calibration.self_tokens = 128;
    const QuantizeReport whole = quantize_file(o);
    EXPECT_EQ(whole.resumed, 0);
    EXPECT_FALSE(fs::exists(o.output + ".work"));
    const std::string bytes = slurp(o.output);
    for (const std::size_t n : {std::size_t{1}, std::size_t{7}, whole.matrices.size()}) {
      fs::remove(o.output);
      run_until(o, n);
      std::vector<std::string> phases;
      const QuantizeReport report =
          quantize_file(o, [&](const ProgressEvent& event) { phases.emplace_back(event.phase); });
      EXPECT_EQ(report.resumed, static_cast<std::int64_t>(n));
      EXPECT_THAT(phases, ::testing::Contains("resume"));
      EXPECT_TRUE(slurp(o.output) == bytes) << n << " matrices were solved before";
      EXPECT_FALSE(fs::exists(o.output + ".work"));
      EXPECT_EQ(objectives(report), objectives(whole));
    }
  }
}

TEST_F(ResumeTest, OtherOptionsAreRefusedUnlessForced) {
  QuantizeOptions o = options();
  run_until(o, 3);
  o.seed = 5;
  o.overwrite = false;
  EXPECT_THAT(refusal([&] { quantize_file(o); }), HasSubstr("unfinished run"));
  o.overwrite = true;
  EXPECT_EQ(quantize_file(o).resumed, 0);
}

TEST_F(ResumeTest, ADamagedMatrixIsSolvedAgain) {
  QuantizeOptions o = options();
  quantize_file(o);
  const std::string bytes = slurp(o.output);
  fs::remove(o.output);
  run_until(o, 3);
  const std::string file = o.output + ".work/matrix.token_embd.weight";
  spew(file, slurp(file).substr(0, 100));
  EXPECT_EQ(quantize_file(o).resumed, 2);
  EXPECT_TRUE(slurp(o.output) == bytes);
}

}  // namespace
}  // namespace spectralquant::pipeline
