#pragma once
#include <fmt/format.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <type_traits>

#include "spectralquant/core/error.h"
#include "spectralquant/core/printable.h"
#include "spectralquant/core/progress.h"

namespace spectralquant::cli {

/// Writes a result that is complete as it is, JSON or a drawn table, to stdout.
void print_document(const std::string& text);

/// An argument of print() as it is shown: texts by printable(), all else as it is.
template <typename Part>
decltype(auto) shown(const Part& part) {
  if constexpr (std::is_convertible_v<const Part&, std::string_view>)
    return printable(part);
  else
    return (part);
}

/// Writes a result to stdout: print("{}: {} blocks\n", name, n).
///
/// Names and values from files cannot command the terminal or break lines; the format can.
template <typename... Parts>
void print(fmt::format_string<decltype(shown(std::declval<const Parts&>()))...> format,
           const Parts&... parts) {
  print_document(fmt::format(format, shown(parts)...));
}

/// Words for people, on stderr: a bar with rate and ETA on a terminal, plain lines elsewhere.
class Console {
 public:
  explicit Console(bool quiet = false);
  ~Console();

  /// What long jobs report to; a warning is a line of its own. Throws Interrupted after Ctrl-C, so
  /// that partial files are removed on the way out.
  Progress progress();

  /// A line of its own, printable(); a bar being drawn steps aside.
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
