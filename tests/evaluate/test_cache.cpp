// Results kept on the disk: found again, checked, never half.
#include <filesystem>
#include <fstream>

#include "evaluate_fixture.h"
#include "spectralquant/evaluate/cache.h"

namespace spectralquant::evaluate {
namespace {

namespace fs = std::filesystem;

class CacheTest : public calibrate::FolderTest {
 protected:
  std::string folder() const { return path("cache/below"); }
  std::vector<std::string> files() const {
    std::vector<std::string> out;
    for (const auto& entry : fs::directory_iterator(folder())) out.push_back(entry.path());
    return out;
  }
};

TEST_F(CacheTest, FindsWhatWasStored) {
  Cache cache(folder());
  const std::string bytes("a\0b\n", 4);
  EXPECT_FALSE(cache.find("scores", "key"));
  cache.store("scores", "key", bytes);
  cache.store("scores", "empty", "");
  EXPECT_EQ(cache.problem(), "");
  const Cache other(folder());
  EXPECT_EQ(other.find("scores", "key"), bytes);
  EXPECT_EQ(other.find("scores", "empty"), "");
  EXPECT_FALSE(other.find("scores", "another key"));
  EXPECT_FALSE(other.find("hidden", "key"));
}

TEST_F(CacheTest, ReplacesAnEntry) {
  Cache cache(folder());
  cache.store("scores", "key", "old");
  cache.store("scores", "key", "new one");
  EXPECT_EQ(cache.find("scores", "key"), "new one");
  EXPECT_EQ(files().size(), 1u);
}

TEST_F(CacheTest, ADamagedEntryCountsAsAbsent) {
  Cache cache(folder());
  cache.store("scores", "key", "the bytes of a result");
  const std::string file = files().at(0), whole = slurp(file);
  for (std::size_t at = 0; at < whole.size(); ++at) {
    std::string bent = whole;
    bent[at] ^= 1;
    spew(file, bent);
    EXPECT_FALSE(cache.find("scores", "key")) << "byte " << at;
  }
  for (std::size_t length = 0; length < whole.size(); ++length) {
    spew(file, whole.substr(0, length));
    EXPECT_FALSE(cache.find("scores", "key")) << "cut to " << length;
  }
  spew(file, whole + "x");
  EXPECT_FALSE(cache.find("scores", "key"));
  spew(file, whole);
  EXPECT_TRUE(cache.find("scores", "key"));
}

TEST_F(CacheTest, AnEntryUnderAnotherNameIsNotTaken) {
  Cache cache(folder());
  cache.store("scores", "key", "bytes");
  const std::string first = files().at(0);
  cache.store("scores", "other", "others");
  for (const auto& file : files())
    if (file != first) fs::copy_file(first, file, fs::copy_options::overwrite_existing);
  EXPECT_FALSE(cache.find("scores", "other"));
}

TEST_F(CacheTest, WhatAKilledRunLeftIsNoEntryAndIsReplaced) {
  Cache cache(folder());
  cache.store("scores", "key", "bytes");
  const std::string file = files().at(0);
  fs::rename(file, file + ".partial");
  EXPECT_FALSE(cache.find("scores", "key"));
  cache.store("scores", "key", "bytes");
  EXPECT_EQ(cache.find("scores", "key"), "bytes");
  EXPECT_EQ(files().size(), 1u);
}

TEST_F(CacheTest, AFolderThatCannotBeMadeIsAProblemToTellNotAnError) {
  spew(path("file"), "in the way");
  Cache cache(path("file") + "/cache");
  cache.store("scores", "key", "bytes");
  EXPECT_THAT(cache.problem(), testing::HasSubstr("cannot make the folder"));
  EXPECT_FALSE(cache.find("scores", "key"));
}

TEST_F(CacheTest, WithoutAFolderNothingIsKept) {
  Cache cache;
  cache.store("scores", "key", "bytes");
  EXPECT_FALSE(cache.find("scores", "key"));
  EXPECT_EQ(cache.problem(), "");
}

TEST_F(CacheTest, LivesWhereTheDesktopSpecificationSays) {
  const char *own = std::getenv("XDG_CACHE_HOME"), *home = std::getenv("HOME");
  const std::string kept_own = own ? own : "", kept_home = home ? home : "";
  setenv("HOME", "/home/someone", 1);
  setenv("XDG_CACHE_HOME", "/elsewhere", 1);
  EXPECT_EQ(default_cache_folder(), "/elsewhere/spectralquant");
  setenv("XDG_CACHE_HOME", "relative", 1);
  EXPECT_EQ(default_cache_folder(), "/home/someone/.cache/spectralquant");
  unsetenv("XDG_CACHE_HOME");
  EXPECT_EQ(default_cache_folder(), "/home/someone/.cache/spectralquant");
  unsetenv("HOME");
  EXPECT_EQ(default_cache_folder(), "");
  if (own) setenv("XDG_CACHE_HOME", kept_own.c_str(), 1);
  if (home) setenv("HOME", kept_home.c_str(), 1);
}

}  // namespace
}  // namespace spectralquant::evaluate
