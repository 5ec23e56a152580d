#pragma once
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "process.h"

namespace spectralquant::test {

inline const std::string kModel = SQ_SOURCE_DIR "/models/nano-qwen35-bf16.gguf";
inline const std::string kSuite = SQ_SOURCE_DIR "/suites/convergence60.jsonl";

class CliTest : public testing::Test {
 protected:
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  std::string out() const { return path("out.gguf"); }
  bool partial_left() const { return std::filesystem::exists(out() + ".partial"); }

  /// Refused: exit 3, the message holds `problem`, names a place and a fix, and no output file is
  /// left. Returns the message.
  std::string expect_refused(const std::vector<std::string>& arguments,
                             const std::string& problem) {
    using testing::HasSubstr;
    const Result r = run(arguments);
    EXPECT_EQ(r.exit_code, 3) << r.err;
    EXPECT_THAT(r.err, HasSubstr(problem));
    EXPECT_THAT(r.err, HasSubstr("at:"));
    EXPECT_THAT(r.err, HasSubstr("fix:"));
    EXPECT_EQ(r.out, "");
    EXPECT_FALSE(std::filesystem::exists(out()));
    EXPECT_FALSE(partial_left());
    return r.err;
  }

  TemporaryFolder folder_;
};

}  // namespace spectralquant::test
