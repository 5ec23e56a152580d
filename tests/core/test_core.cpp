#include <gtest/gtest.h>

#include <atomic>
#include <numeric>
#include <vector>

#include "spectralquant/core/error.h"
#include "spectralquant/core/hash.h"
#include "spectralquant/core/parallel.h"

namespace spectralquant {
namespace {

TEST(ErrorTest, SaysProblemPlaceAndFix) {
  const Error error = bad_input("it is broken", "model.gguf, tensor 3", "repair it");
  EXPECT_STREQ(error.what(), "it is broken\n    at:  model.gguf, tensor 3\n    fix: repair it");
  EXPECT_EQ(error.code(), ErrorCode::kBadInput);
}

TEST(ErrorTest, LeavesEmptyPartsOut) { EXPECT_STREQ(bad_input("broken").what(), "broken"); }

TEST(HashTest, IsXxh3AndDoesNotDependOnPieces) {
  // XXH3_128bits of the empty string, from xxHash's own test vectors
  EXPECT_EQ(hash_hex(""), "99aa06d3014798d86001c324468d497f");
  EXPECT_EQ(Hasher().update("spec").update("tral").hex(), hash_hex("spectral"));
}

TEST(HashTest, RefusesAMissingFile) { EXPECT_THROW(hash_file("/does/not/exist"), Error); }

TEST(ParallelForTest, VisitsEveryItemOnce) {
  for (int n_threads : {1, 2, 7}) {
    std::vector<std::atomic<int>> visits(1000);
    parallel_for(visits.size(), n_threads, [&](std::size_t i) { ++visits[i]; });
    for (auto& v : visits) ASSERT_EQ(v, 1);
  }
}

TEST(ParallelForTest, RethrowsTheFirstException) {
  EXPECT_THROW(parallel_for(100, 4,
                            [](std::size_t i) {
                              if (i == 37) throw bad_input("stop");
                            }),
               Error);
}

}  // namespace
}  // namespace spectralquant
