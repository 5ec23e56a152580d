#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <thread>

#include "distribute/processes.h"
#include "spectralquant/distribute/group.h"

namespace spectralquant::distribute {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

TEST(GroupTest, AloneNothingHappens) {
  Group group;
  EXPECT_TRUE(group.alone());
  EXPECT_TRUE(group.leads());
  EXPECT_EQ(group.size(), 1);
  torch::Tensor x = torch::ones({3});
  group.sum(x);
  group.broadcast(x, 0);
  group.barrier();
  group.check();
  group.fail("nobody hears it");
  EXPECT_EQ(group.broadcast("text", 0), "text");
  EXPECT_TRUE(torch::equal(x, torch::ones({3})));
  EXPECT_EQ(group.share(7), (std::pair<std::size_t, std::size_t>{0, 7}));
  group.leave();
}

TEST(GroupTest, SumsAndBroadcastsReachEveryone) {
  for (const int size : {2, 4}) {
    const auto codes = run_processes(size, [size](Group& group) {
      const int r = group.rank();
      bool right = group.size() == size && !group.alone() && group.leads() == (r == 0);
      torch::Tensor doubles = torch::full({3, 5}, 0.1 * (r + 1), torch::kFloat64);
      group.sum(doubles);
      right = right && std::abs(doubles[2][4].item<double>() - 0.05 * size * (size + 1)) < 1e-12;
      // not contiguous
      torch::Tensor transposed = torch::arange(6, torch::kInt64).reshape({2, 3}).t();
      group.sum(transposed);
      right = right &&
              torch::equal(transposed, torch::arange(6, torch::kInt64).reshape({2, 3}).t() * size);
      torch::Tensor floats = torch::full({1000}, static_cast<float>(r));
      group.broadcast(floats, size - 1);
      right = right && floats.min().item<float>() == static_cast<float>(size - 1);
      const std::string text =
          group.broadcast(r == 1 ? std::string("a\0b", 3) : "of another length", 1);
      right = right && text == std::string("a\0b", 3);
      right = right && group.broadcast(r == 0 ? "" : "x", 0).empty();
      torch::Tensor covered = torch::zeros({7}, torch::kInt64);
      const auto [begin, end] = group.share(7);
      covered.slice(0, static_cast<std::int64_t>(begin), static_cast<std::int64_t>(end)) += 1;
      group.sum(covered);
      right = right && torch::equal(covered, torch::ones({7}, torch::kInt64));
      group.leave();
      return right ? 0 : 1;
    });
    EXPECT_THAT(codes, Each(0)) << size << " processes";
  }
}

/// Exit code of a process that got the Error it should.
int expect_loss(const std::function<void()>& operation, const std::string& text) {
  const auto start = std::chrono::steady_clock::now();
  try {
    operation();
  } catch (const Error& error) {
    const bool told = std::string(error.what()).find(text) != std::string::npos &&
                      error.fix().find("same command") != std::string::npos;
    if (!told) std::fprintf(stderr, "%s\n", error.what());
    return told && std::chrono::steady_clock::now() - start < std::chrono::seconds(12) ? 0 : 2;
  }
  return 3;
}

TEST(GroupTest, AKilledProcessIsNamedByTheOthers) {
  for (const int victim : {0, 2}) {
    const auto codes = run_processes(3, [victim](Group& group) {
      group.barrier();
      if (group.rank() == victim) std::raise(SIGKILL);
      return expect_loss([&] { group.barrier(); },
                         "process " + std::to_string(victim) + " of 3 was lost");
    });
    for (int r = 0; r < 3; ++r)
      EXPECT_EQ(codes[static_cast<std::size_t>(r)], r == victim ? 128 + SIGKILL : 0)
          << "process " << r;
  }
}

TEST(GroupTest, AFailureEndsThoseWhoComputeToo) {
  const auto codes = run_processes(2, [](Group& group) {
    group.barrier();
    if (group.rank() == 1) {
      group.fail("the cat ate it");
      return 0;
    }
    return expect_loss(
        [&] {
          for (int i = 0; i < 1000; ++i) {
            group.check();
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
          }
        },
        "process 1 of 2 failed: the cat ate it");
  });
  EXPECT_THAT(codes, Each(0));
}

}  // namespace
}  // namespace spectralquant::distribute
