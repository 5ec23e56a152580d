#include "spectralquant/pipeline/work_folder.h"

#include "pipeline/pipeline_fixture.h"

namespace spectralquant::pipeline {
namespace {

using ::testing::HasSubstr;

namespace fs = std::filesystem;

class WorkFolderTest : public calibrate::FolderTest {
 protected:
  WorkFolder open(const std::string& key, bool start_over = false) { return WorkFolder(path("out.gguf"), key, R"({"seed": 3})", start_over); }
  std::string folder() const { return path("out.gguf.work"); }
};

TEST_F(WorkFolderTest, IsMadeByTheFirstFileAndFoundByTheSameJob) {
  WorkFolder first = open("a");
  EXPECT_FALSE(fs::exists(folder()));
  EXPECT_FALSE(first.continued());
  first.write("blk.0/weird", "bytes");
  EXPECT_THAT(slurp(folder() + "/job.json"), HasSubstr("\"seed\": 3"));
  EXPECT_EQ(first.read("blk.0/weird"), std::nullopt);  // what this run wrote itself is no earlier run's

  WorkFolder again = open("a");
  EXPECT_TRUE(again.continued());
  EXPECT_EQ(again.read("blk.0/weird"), "bytes");
  EXPECT_EQ(again.find("other"), std::nullopt);
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

}  // namespace
}  // namespace spectralquant::pipeline
