#pragma once
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

namespace spectralquant::distribute {

/// What a Watch needs of the meeting point: a small key-value store that all processes see. Any of
/// it throws when it is gone.
struct Board {
  /// counter += amount; returns it
  std::function<std::int64_t(const std::string& key, std::int64_t amount)> add;
  std::function<void(const std::string& key, const std::string& text)> write;
  /// nullopt if nobody wrote it
  std::function<std::optional<std::string>(const std::string& key)> read;
};

struct WatchOptions {
  std::chrono::milliseconds beat{250};  ///< how often a process shows that it lives
  /// Beats in a row without a sign of life after which a process is taken for lost: 6 s of a busy
  /// machine's standing still are none yet.
  int patience = 24;
  std::chrono::milliseconds grace{10000};  ///< see Group::when_lost()
};

/// Looks after the other processes of a group in a thread of its own.
///
/// Every process counts up at the board. Process 0 looks at all counters, the others at its;
/// whoever finds one standing still, or fails itself, writes it to the board, where everyone reads
/// it at the next beat. A board that is gone means that process 0 is.
class Watch {
 public:
  Watch(Board board, int rank, int size, WatchOptions options = {});
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  /// what happened; nullopt: all live
  std::optional<std::string> loss() const;
  /// the same, for whoever lost a connection
  std::optional<std::string> wait_for_loss(std::chrono::milliseconds limit) const;
  /// this process failed
  void report(const std::string& reason);
  void when_lost(std::function<void(const std::string& loss)> end);
  void stop();  ///< the job is done: nobody is missed any more

 private:
  struct State;
  /// outlives the Watch after a loss: its thread ends the process if nobody else does
  std::shared_ptr<State> state_;
};

}  // namespace spectralquant::distribute
