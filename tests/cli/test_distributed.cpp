// Several processes of the real binary on one machine, as a launcher would start them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <memory>
#include <nlohmann/json.hpp>

#include "distribute/free_port.h"
#include "model/tiny_model.h"
#include "process.h"
#include "spectralquant/gguf/file.h"

namespace spectralquant::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

/// Share of the bytes of all tensors that differ.
double difference(const std::string& one, const std::string& other) {
  const gguf::File a = gguf::File::open(one), b = gguf::File::open(other);
  std::size_t different = 0, all = 0;
  for (const gguf::Tensor& tensor : a.tensors()) {
    const auto *x = reinterpret_cast<const char*>(tensor.data),
               *y = reinterpret_cast<const char*>(b.require(tensor.name).data);
    for (std::size_t i = 0; i < tensor.size_bytes; ++i) different += x[i] != y[i];
    all += tensor.size_bytes;
  }
  return static_cast<double>(different) / static_cast<double>(all);
}

double sum_of(const json& report, const char* what) {
  double sum = 0;
  for (const auto& matrix : report["matrices"]) sum += matrix[what].get<double>();
  return sum;
}

class DistributedTest : public testing::Test {
 protected:
  void make_model(std::uint32_t n_blocks) {
    model::TinyOptions options;
    options.n_blocks = n_blocks;
    model::write_tiny_qwen35(folder_ / "in.gguf", options);
    std::string text;
    std::mt19937_64 random(5);
    for (int i = 0; i < 1500; ++i)
      text += std::vector<std::string>{"the ", "river ", "runs ", "to ",
                                       "a ",   "sea ",   "of ",   "stone, "}[random() % 8];
    write_file(folder_ / "text.txt", text);
  }

  std::string out() const { return (folder_ / "out.gguf").string(); }
  std::string work() const { return out() + ".work"; }
  std::vector<std::string> arguments(int n_threads) const {
    return {"quantize",
            folder_ / "in.gguf",
            "-o",
            out(),
            "--calibration",
            folder_ / "text.txt",
            "self:512",
            "--window",
            "64",
            "--threads",
            std::to_string(n_threads),
            "--effort",
            "fast",
            "--json"};
  }

  using Group = std::vector<std::unique_ptr<Process>>;

  /// Starts all processes of a job.
  Group start(int size, const std::vector<std::string>& arguments) {
    Group group;
    const std::string port = std::to_string(distribute::free_port());
    for (int rank = 0; rank < size; ++rank) {
      const std::string r = std::to_string(rank), n = std::to_string(size);
      group.push_back(
          std::make_unique<Process>(arguments, RLIM_INFINITY,
                                    std::map<std::string, std::string>{{"RANK", r},
                                                                       {"WORLD_SIZE", n},
                                                                       {"LOCAL_RANK", r},
                                                                       {"LOCAL_WORLD_SIZE", n},
                                                                       {"MASTER_ADDR", "127.0.0.1"},
                                                                       {"MASTER_PORT", port}}));
    }
    return group;
  }

  static std::vector<Result> wait(const Group& group) {
    std::vector<Result> results;
    for (const auto& process : group) results.push_back(process->wait());
    return results;
  }

  /// Files in the work folder, without its job.json.
  int n_kept() const {
    std::error_code ignored;
    int n = 0;
    for (const auto& entry : std::filesystem::directory_iterator(work(), ignored))
      n += entry.path().extension() == ".weight";
    return n;
  }

  /// The job in `size` processes and in one with as many threads: as good a file, only process 0
  /// speaks, nothing is left behind.
  void expect_the_same(int size) {
    make_model(2);
    const Result alone = run(arguments(size));
    ASSERT_EQ(alone.exit_code, 0) << alone.err;
    const json expected = json::parse(alone.out);
    std::filesystem::rename(out(), folder_ / "alone.gguf");
    const auto results = wait(start(size, arguments(1)));
    for (int rank = 0; rank < size; ++rank) {
      EXPECT_EQ(results[rank].exit_code, 0) << results[rank].err;
      if (rank > 0) {
        EXPECT_EQ(results[rank].out + results[rank].err, "") << "only the first process speaks";
      }
    }
    const json report = json::parse(results[0].out);
    ASSERT_EQ(report["matrices"].size(), expected["matrices"].size());
    EXPECT_EQ(report["calibration_tokens"], expected["calibration_tokens"]);
    EXPECT_NEAR(sum_of(report, "objective") / sum_of(expected, "objective"), 1, 1e-3);
    // Moments in another order of summation: the same to the last bits of a double, which a float
    // rarely sees.
    EXPECT_LT(difference(folder_ / "alone.gguf", out()), 0.01);
    EXPECT_EQ(run({"inspect", out(), "--strict"}).exit_code, 0);
    EXPECT_FALSE(std::filesystem::exists(work()));
    EXPECT_FALSE(std::filesystem::exists(out() + ".partial"));
  }

  TemporaryFolder folder_;
};

TEST_F(DistributedTest, TwoProcessesDoWhatOneDoes) { expect_the_same(2); }

class SlowDistributedTest : public DistributedTest {};

TEST_F(SlowDistributedTest, FourProcessesDoWhatOneDoes) { expect_the_same(4); }

TEST_F(DistributedTest, UnderTheSameSignalsTheSameBytes) {
  make_model(2);
  const std::string signals = folder_ / "signals.gguf";
  for (const bool output_moments : {false, true}) {  // rows by process, matrices by process
    std::vector<std::string> gather = {"calibrate",     folder_ / "in.gguf",  "-o",       signals,
                                       "--calibration", folder_ / "text.txt", "--window", "64",
                                       "--force"};
    if (output_moments) gather.push_back("--output-moments");
    ASSERT_EQ(run(gather).exit_code, 0);
    const std::vector<std::string> quantize = {"quantize", folder_ / "in.gguf", "-o",
                                               out(),      "--signals",         signals,
                                               "--force",  "--threads",         "1"};
    ASSERT_EQ(run(quantize).exit_code, 0);
    std::filesystem::rename(out(), folder_ / "alone.gguf");
    for (const Result& result : wait(start(3, quantize)))
      EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(difference(folder_ / "alone.gguf", out()), 0);
    EXPECT_EQ(gguf::File::open(out()).metadata().require_int("spectralquant.processes"), 3);
  }
}

TEST_F(DistributedTest, AKilledProcessEndsAllAndTheSameCommandContinues) {
  make_model(8);
  for (const int victim : {1, 0}) {
    const int before = n_kept();
    const Group group = start(2, arguments(1));
    const auto deadline = Clock::now() + 120s;
    while (n_kept() < before + 2 && Clock::now() < deadline) std::this_thread::sleep_for(5ms);
    group[static_cast<std::size_t>(victim)]->signal(SIGKILL);
    const auto killed = Clock::now();
    const auto results = wait(group);
    EXPECT_LT(Clock::now() - killed, 20s);
    EXPECT_EQ(results[victim].exit_code, 128 + SIGKILL);
    EXPECT_EQ(results[1 - victim].exit_code, 1);
    EXPECT_THAT(results[1 - victim].err,
                HasSubstr("process " + std::to_string(victim) + " of 2 was lost"));
    EXPECT_THAT(results[1 - victim].err, HasSubstr("same command"));
    EXPECT_FALSE(std::filesystem::exists(out()));
    EXPECT_GE(n_kept(), before + 2);
  }
  const auto again = wait(start(2, arguments(1)));
  EXPECT_EQ(again[0].exit_code, 0) << again[0].err;
  EXPECT_EQ(again[1].exit_code, 0) << again[1].err;
  EXPECT_THAT(again[0].err, HasSubstr("resume"));
  EXPECT_EQ(run({"inspect", out(), "--strict"}).exit_code, 0);
  EXPECT_FALSE(std::filesystem::exists(work()));
}

TEST_F(DistributedTest, AnErrorInOneEndsTheOthers) {
  make_model(2);
  write_file(out(), "precious");
  const auto results = wait(start(2, arguments(1)));
  EXPECT_EQ(results[0].exit_code, 3);
  EXPECT_THAT(results[0].err, HasSubstr("--force"));
  EXPECT_EQ(results[1].exit_code, 1);
  EXPECT_THAT(results[1].err, HasSubstr("process 0 of 2 failed"));
  EXPECT_EQ(read_file(out()), "precious");
}

TEST_F(DistributedTest, HalfALaunchIsWrongUsage) {
  make_model(2);
  const Result r = Process(arguments(1), RLIM_INFINITY, {{"RANK", "0"}}).wait();
  EXPECT_EQ(r.exit_code, 2);
  EXPECT_THAT(r.err, HasSubstr("RANK is set, WORLD_SIZE is not"));
}

}  // namespace
}  // namespace spectralquant::test
