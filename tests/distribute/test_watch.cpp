#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "spectralquant/distribute/watch.h"

namespace spectralquant::distribute {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

/// A board in memory that can be taken away.
struct FakeBoard {
  std::mutex mutex;
  std::map<std::string, std::int64_t> counters;
  std::map<std::string, std::string> texts;
  bool gone = false;

  Board board() {
    const auto guard = [this] {
      std::unique_lock lock(mutex);
      if (gone) throw std::runtime_error("connection reset");
      return lock;
    };
    return {.add =
                [this, guard](const std::string& key, std::int64_t n) {
                  auto lock = guard();
                  return counters[key] += n;
                },
            .write =
                [this, guard](const std::string& key, const std::string& text) {
                  auto lock = guard();
                  texts[key] = text;
                },
            .read = [this, guard](const std::string& key) -> std::optional<std::string> {
              auto lock = guard();
              const auto it = texts.find(key);
              return it == texts.end() ? std::nullopt : std::optional(it->second);
            }};
  }
};

constexpr WatchOptions kQuick{.beat = 5ms, .patience = 20, .grace = 20ms};

TEST(WatchTest, NobodyIsMissedWhileAllLiveNorAfterTheEnd) {
  FakeBoard board;
  Watch a(board.board(), 0, 2, kQuick);
  {
    Watch b(board.board(), 1, 2, kQuick);
    std::this_thread::sleep_for(300ms);
    EXPECT_FALSE(a.loss());
    EXPECT_FALSE(b.loss());
    a.stop();
  }
  EXPECT_FALSE(a.wait_for_loss(200ms));
}

TEST(WatchTest, ASilentProcessIsNamedToAll) {
  FakeBoard board;
  Watch a(board.board(), 0, 3, kQuick), c(board.board(), 2, 3, kQuick);
  { Watch b(board.board(), 1, 3, kQuick); }  // leaves without a word, as a killed process does
  for (const Watch* watch : {&a, &c})
    EXPECT_THAT(watch->wait_for_loss(5s).value_or(""), HasSubstr("process 1 of 3 was lost"));
}

TEST(WatchTest, AFailureIsToldWithItsReason) {
  FakeBoard board;
  Watch a(board.board(), 0, 2, kQuick), b(board.board(), 1, 2, kQuick);
  b.report("process 1 of 2 failed: the disk is full");
  EXPECT_THAT(a.wait_for_loss(5s).value_or(""), HasSubstr("the disk is full"));
}

TEST(WatchTest, WithoutTheBoardTheFirstProcessIsLost) {
  FakeBoard board;
  Watch b(board.board(), 1, 2, kQuick);
  {
    const std::lock_guard lock(board.mutex);
    board.gone = true;
  }
  EXPECT_THAT(b.wait_for_loss(5s).value_or(""), HasSubstr("process 0 of 2 was lost"));
}

TEST(WatchTest, EndsAProcessThatDoesNotNotice) {
  FakeBoard board;
  std::mutex mutex;
  std::string last_word;
  std::atomic<bool> ended = false;
  {
    Watch a(board.board(), 0, 2, kQuick);
    a.when_lost([&](const std::string& loss) {
      last_word = loss;
      ended = true;
    });
    ASSERT_TRUE(a.wait_for_loss(5s));
  }  // the Watch is gone, its thread is not
  for (int i = 0; i < 500 && !ended; ++i) std::this_thread::sleep_for(10ms);
  ASSERT_TRUE(ended);
  EXPECT_THAT(last_word, HasSubstr("process 1 of 2 was lost"));
}

}  // namespace
}  // namespace spectralquant::distribute
