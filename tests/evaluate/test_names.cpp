// Files are told apart by the shortest end of their path, and found by any end that means one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "spectralquant/core/error.h"
#include "spectralquant/evaluate/names.h"

namespace spectralquant::evaluate {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(NamesTest, AreTheShortestEndsThatDiffer) {
  EXPECT_THAT(shortest_names({"m/bf16.gguf", "m/q4.gguf", "x/plain.gguf"}),
              ElementsAre("bf16", "q4", "plain"));
  EXPECT_THAT(shortest_names({"m.gguf", "one/gguf/q.gguf", "two/gguf/q.gguf"}),
              ElementsAre("m", "one/gguf/q", "two/gguf/q"));
  EXPECT_THAT(shortest_names({"m.gguf", "a/x/q.gguf", "b/x/q.gguf", "b/y/q.gguf"}),
              ElementsAre("m", "a/x/q", "b/x/q", "y/q"));
}

TEST(NamesTest, AFileOfTheWorkingFolderHasNoSlash) {
  EXPECT_THAT(shortest_names({"bf16.gguf", "q.gguf", "other/q.gguf"}),
              ElementsAre("bf16", "q", "other/q"));
  EXPECT_THAT(shortest_names({"./bf16.gguf", "./q.gguf", "../q.gguf"}),
              ElementsAre("bf16", "q", "../q"));
  EXPECT_THAT(shortest_names({"q.gguf", "/q.gguf", "/data/q.gguf"}),
              ElementsAre("q", "/q", "data/q"));
}

TEST(NamesTest, OnlyTheKindOfFileIsLeftOut) {
  EXPECT_THAT(shortest_names({"model-v1.5", "model.Q4_K_M.gguf"}),
              ElementsAre("model-v1.5", "model.Q4_K_M"));
}

TEST(NamesTest, OnePathTwiceIsNumbered) {
  EXPECT_THAT(shortest_names({"m/p.gguf", "m/p.gguf", "m/a.gguf"}), ElementsAre("p", "p (2)", "a"));
}

class FindCandidateTest : public testing::Test {
 protected:
  std::size_t find(const std::string& text) const {
    return find_candidate(text, paths_, shortest_names(paths_), "--baseline");
  }
  Error refused(const std::string& text) const {
    try {
      find(text);
    } catch (const Error& error) {
      return error;
    }
    ADD_FAILURE() << "accepted: " << text;
    return Error(ErrorCode::kFailed, "");
  }
  std::vector<std::string> paths_ = {"m/bf16.gguf", "one/gguf/q.gguf", "two/gguf/q.gguf",
                                     "two/gguf/plain.gguf"};
};

TEST_F(FindCandidateTest, ByPathNameOrEnd) {
  EXPECT_EQ(find("one/gguf/q.gguf"), 1u);
  EXPECT_EQ(find("two/gguf/q"), 2u);
  EXPECT_EQ(find("./two/gguf/q.gguf"), 2u);
  EXPECT_EQ(find("plain"), 3u);
  EXPECT_EQ(find("gguf/plain.gguf"), 3u);
}

TEST_F(FindCandidateTest, SeveralAreListed) {
  const auto error = refused("q");
  EXPECT_EQ(error.code(), ErrorCode::kBadUsage);
  EXPECT_THAT(error.problem(), HasSubstr("one/gguf/q, two/gguf/q"));
  EXPECT_EQ(error.place(), "--baseline");
  EXPECT_THAT(refused("gguf/q.gguf").problem(), HasSubstr("2 candidates"));
}

TEST_F(FindCandidateTest, NoneListsWhatThereIs) {
  EXPECT_THAT(refused("z").fix(), HasSubstr("one/gguf/q, two/gguf/q, plain"));
  refused("bf16");  // the original is no candidate
  refused("lain");  // no whole part of a path
  refused("");
}

TEST_F(FindCandidateTest, AWholeNameIsMeantBeforeAnEnd) {
  paths_ = {"bf16.gguf", "q.gguf", "other/q.gguf"};
  EXPECT_EQ(find("q"), 1u);
  EXPECT_EQ(find("other/q"), 2u);
}

}  // namespace
}  // namespace spectralquant::evaluate
