#include "spectralquant/distribute/watch.h"

#include <fmt/format.h>

#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace spectralquant::distribute {
namespace {

constexpr const char* kLossKey = "loss";

std::string beat_key(int rank) { return fmt::format("beat/{}", rank); }

}  // namespace

struct Watch::State {
  Board board;
  int rank, size;
  WatchOptions options;

  mutable std::mutex mutex;
  mutable std::condition_variable changed;
  bool stopped = false;
  std::optional<std::string> loss, own_failure;
  std::function<void(const std::string&)> end;
  std::thread thread;

  /// One look at the others. Returns what was lost.
  std::optional<std::string> look(std::vector<std::int64_t>& counters, std::vector<int>& silent) {
    board.add(beat_key(rank), 1);
    if (auto text = board.read(kLossKey)) return text;
    const int last = rank == 0 ? size : 1;
    for (int other = 0; other < last; ++other) {
      if (other == rank) continue;
      const std::int64_t counter = board.add(beat_key(other), 0);
      silent[other] = counter == counters[other] ? silent[other] + 1 : 0;
      counters[other] = counter;
      if (silent[other] < options.patience) continue;
      const std::string text =
          fmt::format("process {} of {} was lost: it gives no sign of life", other, size);
      board.write(kLossKey, text);
      return text;
    }
    return std::nullopt;
  }

  void run() {
    std::vector<std::int64_t> counters(static_cast<std::size_t>(size), 0);
    std::vector<int> silent(static_cast<std::size_t>(size), 0);
    std::unique_lock lock(mutex);
    while (!stopped && !loss) {
      const auto failure = std::exchange(own_failure, std::nullopt);
      lock.unlock();
      std::optional<std::string> found;
      try {
        if (failure) board.write(kLossKey, *failure);
        found = look(counters, silent);
      } catch (const std::exception&) {
        found = rank == 0 ? "the meeting point of the processes was lost"
                          : fmt::format("process 0 of {} was lost: it cannot be reached", size);
      }
      lock.lock();
      if (found && !stopped) {
        loss = found;
        changed.notify_all();
        break;
      }
      changed.wait_for(lock, options.beat, [&] { return stopped || own_failure; });
    }
    if (stopped) return;
    changed.wait_for(lock, options.grace, [&] { return stopped; });
    if (stopped || !end) return;
    const auto last_word = end;
    lock.unlock();
    last_word(*loss);
  }
};

Watch::Watch(Board board, int rank, int size, WatchOptions options)
    : state_(std::make_shared<State>()) {
  state_->board = std::move(board);
  state_->rank = rank;
  state_->size = size;
  state_->options = options;
  state_->thread = std::thread([state = state_] { state->run(); });
}

Watch::~Watch() { stop(); }

void Watch::stop() {
  std::unique_lock lock(state_->mutex);
  if (!state_->thread.joinable()) return;
  if (state_->loss) {
    state_->thread.detach();
    return;
  }
  state_->stopped = true;
  state_->changed.notify_all();
  lock.unlock();
  state_->thread.join();
}

std::optional<std::string> Watch::loss() const {
  const std::lock_guard lock(state_->mutex);
  return state_->loss;
}

std::optional<std::string> Watch::wait_for_loss(std::chrono::milliseconds limit) const {
  std::unique_lock lock(state_->mutex);
  state_->changed.wait_for(lock, limit, [&] { return state_->loss.has_value(); });
  return state_->loss;
}

void Watch::report(const std::string& reason) {
  std::unique_lock lock(state_->mutex);
  if (state_->loss) return;
  state_->own_failure = reason;
  state_->changed.notify_all();
  // Until the board has it: this process is about to end, and the board may end with it.
  state_->changed.wait_for(lock, 4 * state_->options.beat,
                           [&] { return state_->loss.has_value(); });
}

void Watch::when_lost(std::function<void(const std::string&)> end) {
  const std::lock_guard lock(state_->mutex);
  state_->end = std::move(end);
}

}  // namespace spectralquant::distribute
