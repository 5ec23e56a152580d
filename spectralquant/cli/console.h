#pragma once
#include <chrono>
#include <cstdint>
#include <string>

#include "spectralquant/core/error.h"
#include "spectralquant/core/progress.h"

namespace spectralquant::cli {

/// Words for people, on stderr: a bar with rate and ETA on a terminal, plain lines elsewhere.
class Console {
 public:
  explicit Console(bool quiet = false);
  ~Console();

  /// What long jobs report to; an event of the phase "note" is a line of its own. Throws
  /// Interrupted after Ctrl-C, so that partial files are removed on the way out.
  Progress progress();

  /// A line of its own; a bar being drawn steps aside.
  void say(const std::string& line);
  void print_error(const Error& error);

  bool is_terminal() const { return terminal_; }
  int width() const;

 private:
  using Clock = std::chrono::steady_clock;
  void show(const ProgressEvent& event);
  void draw_bar(const ProgressEvent& event);
  void print_line(const ProgressEvent& event, bool finished);
  void clear_bar();
  double seconds_in_phase() const;
  std::string rate_and_eta(const ProgressEvent& event) const;

  bool quiet_, terminal_, color_;
  bool bar_shown_ = false;
  std::string phase_;
  bool phase_finished_ = false;
  Clock::time_point phase_begin_, last_shown_;
};

/// Ctrl-C or SIGTERM, seen at the next progress report.
struct Interrupted {};

/// Makes SIGINT and SIGTERM end the run at the next progress report, with partial files removed; a
/// second one ends it at once.
void install_signal_handlers();

/// "1.2 GiB", "415.7 MiB"; "3 min 20 s".
std::string human_bytes(std::uint64_t size_bytes);
std::string human_seconds(double seconds);

/// True if stdout is a terminal that shows colours (NO_COLOR unset).
bool stdout_has_color();
int stdout_width();

}  // namespace spectralquant::cli
