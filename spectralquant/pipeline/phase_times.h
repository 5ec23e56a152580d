#pragma once
#include <chrono>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace spectralquant::pipeline {

inline double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Where the time of a job goes. One phase runs at a time; entering one ends the other.
class PhaseTimes {
 public:
  void enter(std::string_view phase) {
    leave();
    current_ = phase;
  }
  const std::string& current() const { return current_; }

  /// Seconds per phase in order of first appearance; ends the running one.
  std::vector<std::pair<std::string, double>> finish() {
    leave();
    current_.clear();
    return seconds_;
  }

 private:
  using Clock = std::chrono::steady_clock;

  void leave() {
    const auto now = Clock::now();
    if (!current_.empty()) {
      auto it = seconds_.begin();
      while (it != seconds_.end() && it->first != current_) ++it;
      if (it == seconds_.end()) it = seconds_.insert(it, {current_, 0.0});
      it->second += std::chrono::duration<double>(now - since_).count();
    }
    since_ = now;
  }

  std::string current_;
  Clock::time_point since_ = Clock::now();
  std::vector<std::pair<std::string, double>> seconds_;
};

}  // namespace spectralquant::pipeline
