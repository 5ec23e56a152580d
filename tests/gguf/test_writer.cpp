#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "gguf/gguf_bytes.h"
#include "spectralquant/core/parallel.h"
#include "spectralquant/gguf/file.h"
#include "spectralquant/gguf/writer.h"

namespace spectralquant::gguf {
namespace {

using test::error_of;
using test::le;
using testing::HasSubstr;

/// Writes the metadata and tensors of a file to another.
void copy(const File& from, const std::string& to, WriteOptions options = {}) {
  std::vector<TensorPlan> plans;
  for (const Tensor& t : from.tensors()) plans.push_back({t.name, t.type, t.n_dims, t.shape});
  Writer writer(to, from.metadata(), plans, options, from.paths());
  for (std::size_t i = 0; i < plans.size(); ++i)
    writer.write(i, 0, from.tensors()[i].data, from.tensors()[i].size_bytes);
  writer.commit();
}

class WriterTest : public test::FolderTest {
 protected:
  std::string out() const { return path("out.gguf"); }
  bool has_partial() const { return std::filesystem::exists(out() + ".partial"); }
  static std::vector<TensorPlan> one_tensor(std::uint64_t n_values = 8) {
    return {{"w", Type::F32, 1, {n_values, 1, 1, 1}}};
  }
  Writer writer(WriteOptions options = {}, const std::vector<std::string>& inputs = {}) const {
    return Writer(out(), {}, one_tensor(), options, inputs);
  }
  Error refusal(const std::string& target, WriteOptions options = {},
                const std::vector<std::string>& inputs = {}) const {
    return error_of([&] { Writer(target, {}, one_tensor(), options, inputs); });
  }
  static constexpr float kValues[8] = {1, 2, 3, 4, 5, 6, 7, 8};
};

TEST_F(WriterTest, CopyOfTheEmbeddedModelIsTheSameFile) {
  const std::string nano = SQ_SOURCE_DIR "/models/nano-qwen35-bf16.gguf";
  copy(File::open(nano), out());
  EXPECT_EQ(slurp(out()), slurp(nano));
  EXPECT_FALSE(has_partial());
}

TEST_F(WriterTest, WritesV2AsV3AndOneFileFromParts) {
  test::HandMade made = test::small_file()
                            .key("split.no", 2, le<std::uint16_t>(0))
                            .key("split.count", 2, le<std::uint16_t>(1));
  made.version = 2;
  copy(File::open(put("in.gguf", made.bytes())), out());
  EXPECT_EQ(slurp(out()), test::small_file().bytes());
}

TEST_F(WriterTest, SaysTheAlignmentItUses) {
  Metadata metadata;
  metadata.set("general.alignment", Value::of_u32(64));
  Writer one(out(), metadata, one_tensor());
  one.write(0, 0, kValues, 32);
  one.commit();
  EXPECT_EQ(File::open(out()).alignment(), 32u);

  Writer two(out(), {}, {{"a", Type::F32, 1, {1, 1, 1, 1}}, {"b", Type::F32, 0, {1, 1, 1, 1}}},
             {.overwrite = true, .alignment = 256});
  two.write(0, 0, kValues, 4);
  two.write(1, 0, kValues + 1, 4);
  two.commit();
  const File file = File::open(out());
  EXPECT_EQ(file.alignment(), 256u);
  EXPECT_EQ(file.size_bytes() % 256, 0u);
  float value;
  decode(file.require("b"), 0, 1, &value);
  EXPECT_EQ(value, 2.0f);
}

TEST_F(WriterTest, TakesPiecesInAnyOrderFromManyThreads) {
  const std::uint64_t n = 100'000, piece = 1'000;
  std::vector<float> values(n);
  for (std::uint64_t i = 0; i < n; ++i) values[i] = static_cast<float>(i);
  Writer writer(out(), {}, one_tensor(n));
  parallel_for(n / piece, 4, [&](std::size_t i) {
    const std::uint64_t first = (n / piece - 1 - i) * piece;
    writer.write(0, first * 4, values.data() + first, piece * 4);
  });
  writer.write(0, 0, values.data(), piece * 4);  // the same piece again
  writer.commit();
  std::vector<float> again(n);
  decode(File::open(out()).require("w"), 0, 1, again.data());
  EXPECT_EQ(again, values);
}

TEST_F(WriterTest, RefusesToCommitWhatIsIncomplete) {
  Writer w = writer();
  w.write(0, 0, kValues, 12);
  w.write(0, 16, kValues, 16);
  const Error error = error_of([&] { w.commit(); });
  EXPECT_THAT(error.problem(),
              HasSubstr("tensor w was not written completely: byte 12 of 32 is missing"));
  EXPECT_EQ(error.code(), ErrorCode::kFailed);
  w.write(0, 12, kValues, 4);
  EXPECT_NO_THROW(w.commit());
  EXPECT_THROW(w.commit(), Error);
  EXPECT_THROW(w.write(0, 0, kValues, 4), Error);
}

TEST_F(WriterTest, RefusesPiecesThatOverlapOrStickOut) {
  Writer w = writer();
  w.write(0, 8, kValues, 8);
  EXPECT_THAT(error_of([&] { w.write(0, 4, kValues, 8); }).problem(), HasSubstr("overlap"));
  EXPECT_THAT(error_of([&] { w.write(0, 12, kValues, 8); }).problem(), HasSubstr("overlap"));
  EXPECT_THAT(error_of([&] { w.write(0, 8, kValues, 12); }).problem(), HasSubstr("overlap"));
  EXPECT_THROW(w.write(0, 28, kValues, 8), Error);
  EXPECT_THROW(w.write(0, ~std::uint64_t{0}, kValues, 8), Error);
  EXPECT_THROW(w.write(1, 0, kValues, 8), Error);
}

TEST_F(WriterTest, FindsDamageWhenReadingBack) {
  Writer w = writer();
  w.write(0, 0, kValues, 32);
  {
    std::fstream vandal(out() + ".partial", std::ios::in | std::ios::out | std::ios::binary);
    vandal.seekp(-1, std::ios::end);
    vandal.put('X');
  }
  EXPECT_THAT(error_of([&] { w.commit(); }).problem(), HasSubstr("w was read back differently"));
  EXPECT_FALSE(std::filesystem::exists(out()));
}

TEST_F(WriterTest, LeavesNothingWhenGivenUp) {
  {
    Writer w = writer();
    EXPECT_TRUE(has_partial());
  }
  EXPECT_FALSE(has_partial());
  EXPECT_TRUE(std::filesystem::is_empty(folder));
}

TEST_F(WriterTest, RefusesPlansThatAreNoFile) {
  const auto with = [&](TensorPlan plan) {
    return error_of([&] {
             Writer(out(), {}, {{"w", Type::F32, 1, {8, 1, 1, 1}}, plan});
           })
        .problem();
  };
  EXPECT_EQ(with({"w", Type::F32, 1, {8, 1, 1, 1}}), "tensor w is to be written twice");
  EXPECT_THAT(with({"", Type::F32, 1, {8, 1, 1, 1}}), HasSubstr("1 to 63 bytes"));
  EXPECT_EQ(with({"q", Type::Q4_K, 1, {100, 1, 1, 1}}),
            "q has 100 columns; Q4_K needs a multiple of 256");
  EXPECT_EQ(with({"q", Type::F32, 2, {100, 0, 1, 1}}), "dimension 1 of q is 0");
  EXPECT_EQ(with({"q", Type::F32, 1, {100, 2, 1, 1}}), "dimension 1 of q is 2");
  EXPECT_EQ(with({"q", Type::F32, 5, {1, 1, 1, 1}}), "q has 5 dimensions; at most 4 are allowed");
  EXPECT_EQ(with({"q", Type::F32, 2, {1 << 30, ~std::uint64_t{0}, 1, 1}}),
            "the size of q overflows");
  EXPECT_THAT(error_of([&] { Writer(out(), {}, one_tensor(), {.alignment = 33}); }).problem(),
              HasSubstr("no power of two"));
  EXPECT_TRUE(std::filesystem::is_empty(folder));
}

TEST_F(WriterTest, RefusesTargetsThatMustNotBeWritten) {
  put("out.gguf", "old");
  const Error exists = refusal(out());
  EXPECT_THAT(exists.problem(), HasSubstr("exists already"));
  EXPECT_THAT(exists.fix(), HasSubstr("--force"));
  EXPECT_EQ(exists.code(), ErrorCode::kBadInput);
  EXPECT_THAT(refusal(path("no/such/out.gguf")).fix(), HasSubstr("mkdir -p"));
  EXPECT_THAT(refusal(folder.string(), {.overwrite = true}).problem(), HasSubstr("is a folder"));
  EXPECT_THAT(refusal("/dev/null", {.overwrite = true}).problem(), HasSubstr("not a regular file"));
  EXPECT_THAT(refusal("").problem(), HasSubstr("no name"));
  std::filesystem::create_symlink(path("nowhere"), path("dangling"));
  EXPECT_THAT(refusal(path("dangling")).problem(), HasSubstr("symbolic link to nothing"));
  EXPECT_EQ(slurp(out()), "old");
}

TEST_F(WriterTest, NeverReplacesAnInput) {
  const std::string input = put("in.gguf", test::small_file().bytes());
  std::filesystem::create_symlink(input, path("soft.gguf"));
  std::filesystem::create_hard_link(input, path("hard.gguf"));
  for (const std::string& alias :
       {input, path("soft.gguf"), path("hard.gguf"), folder.string() + "/./in.gguf"}) {
    EXPECT_THAT(refusal(alias, {.overwrite = true}, {"absent", input}).problem(),
                HasSubstr("is the input"))
        << alias;
    EXPECT_THAT(refusal(input, {.overwrite = true}, {alias}).problem(), HasSubstr("is the input"))
        << alias;
  }
  const std::string odd = put("out.gguf.partial", "an input with an unlucky name");
  EXPECT_THAT(refusal(out(), {.overwrite = true}, {odd}).problem(), HasSubstr("is the input"));
  EXPECT_EQ(slurp(input), test::small_file().bytes());
}

TEST_F(WriterTest, WritesThroughALinkAndReplacesOnlyAtTheEnd) {
  const std::string old = put("real.gguf", "old");
  std::filesystem::create_symlink("real.gguf", path("out.gguf"));
  Writer w = writer({.overwrite = true});
  w.write(0, 0, kValues, 32);
  EXPECT_EQ(slurp(old), "old");
  w.commit();
  EXPECT_TRUE(std::filesystem::is_symlink(out()));
  EXPECT_EQ(File::open(old).tensors().size(), 1u);
}

TEST_F(WriterTest, DoesNotReplaceAFileThatAppearedMeanwhile) {
  Writer w = writer();
  w.write(0, 0, kValues, 32);
  put("out.gguf", "someone else's");
  EXPECT_THAT(error_of([&] { w.commit(); }).problem(), HasSubstr("in the meantime"));
  EXPECT_EQ(slurp(out()), "someone else's");
}

TEST_F(WriterTest, TwoRunsDoNotWriteTheSameFile) {
  Writer first = writer();
  EXPECT_THAT(refusal(out()).problem(), HasSubstr("another run is writing"));
  first.write(0, 0, kValues, 32);
  EXPECT_NO_THROW(first.commit());
}

TEST_F(WriterTest, NeverFollowsALinkUnderThePartialName) {
  const std::string precious = put("precious", "precious");
  std::filesystem::create_symlink(precious, out() + ".partial");
  { Writer w = writer(); }
  EXPECT_EQ(slurp(precious), "precious");
}

TEST_F(WriterTest, AnImpossibleSizeIsFoundBeforeAnythingIsWritten) {
  const std::vector<TensorPlan> huge{{"w", Type::F32, 2, {1u << 20, 1u << 30, 1, 1}}};  // 4 PiB
  const Error error = error_of([&] { Writer(out(), {}, huge); });
  EXPECT_EQ(error.code(), ErrorCode::kFailed);
  // the header's bytes follow
  EXPECT_THAT(error.problem(), HasSubstr("4503599.63 GB (45035996273"));
  EXPECT_FALSE(has_partial());
}

TEST_F(WriterTest, AFullDiskIsAnErrorThatSaysHowMuchIsNeeded) {
  enum Outcome { kPassed, kFailed, kNoMount };
  const pid_t child = ::fork();
  if (child == 0) {  // a disk of 64 KiB, in a mount namespace that goes away with the child
    const auto uid = ::getuid(), gid = ::getgid();
    if (::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) ::_exit(kNoMount);
    // without the three maps files cannot be created
    std::ofstream("/proc/self/setgroups") << "deny";
    std::ofstream("/proc/self/uid_map") << "0 " << uid << " 1";
    std::ofstream("/proc/self/gid_map") << "0 " << gid << " 1";
    if (::mount("tmpfs", folder.c_str(), "tmpfs", 0, "size=64k") != 0) ::_exit(kNoMount);
    try {
      Writer(out(), {}, one_tensor(100'000));
    } catch (const Error& error) {
      const bool clear =
          error.problem().starts_with("the disk is full: 400064 bytes are needed, ") &&
          error.code() == ErrorCode::kBadInput;
      if (!clear || has_partial()) std::fprintf(stderr, "%s\n", error.what());
      ::_exit(clear && !has_partial() ? kPassed : kFailed);
    }
    ::_exit(kFailed);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == kNoMount) GTEST_SKIP() << "no right to mount a small disk";
  EXPECT_EQ(WEXITSTATUS(status), kPassed);
}

TEST_F(WriterTest, TheUsersFileSizeLimitIsAnErrorNotASignal) {
  const pid_t child = ::fork();
  if (child == 0) {
    const struct rlimit limit { 4096, 4096 };
    ::setrlimit(RLIMIT_FSIZE, &limit);
    try {
      Writer(out(), {}, one_tensor(10'000));
    } catch (const Error& error) {
      ::_exit(error.fix().find("ulimit -f") != std::string::npos && !has_partial() ? 0 : 2);
    }
    ::_exit(1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(WriterTest, KilledHalfWayLeavesTheOldFile) {
  put("out.gguf", "old");
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    Writer w = writer({.overwrite = true});
    w.write(0, 0, kValues, 16);
    if (::write(ready[1], "x", 1) == 1) ::pause();
    ::_exit(1);
  }
  char signal;
  ASSERT_EQ(::read(ready[0], &signal, 1), 1);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ::close(ready[0]);
  ::close(ready[1]);
  EXPECT_EQ(slurp(out()), "old");
  EXPECT_TRUE(has_partial());

  Writer next = writer({.overwrite = true});  // the stale partial file is replaced
  next.write(0, 0, kValues, 32);
  next.commit();
  EXPECT_EQ(File::open(out()).tensors().size(), 1u);
  EXPECT_FALSE(has_partial());
}

}  // namespace
}  // namespace spectralquant::gguf
