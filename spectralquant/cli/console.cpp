#include "spectralquant/cli/console.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "spectralquant/core/warning.h"

namespace spectralquant::cli {
namespace {

volatile std::sig_atomic_t g_interrupted = 0;  // the one thing a signal handler may touch

void on_signal(int number) {
  if (g_interrupted) {
    std::signal(number, SIG_DFL);
    std::raise(number);
  }
  g_interrupted = 1;
}

int terminal_width(int fd) {
  winsize size{};
  if (ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  if (const char* columns = std::getenv("COLUMNS")) return std::max(40, std::atoi(columns));
  return 100;
}

bool has_color(int fd) {
  const char* term = std::getenv("TERM");
  return isatty(fd) && !std::getenv("NO_COLOR") && term && std::string(term) != "dumb";
}

std::string human_count(double n) {
  if (n >= 1e9) return fmt::format("{:.1f}G", n / 1e9);
  if (n >= 1e6) return fmt::format("{:.1f}M", n / 1e6);
  if (n >= 1e4) return fmt::format("{:.0f}k", n / 1e3);
  if (n >= 100 || n == static_cast<double>(static_cast<long>(n))) return fmt::format("{:.0f}", n);
  return fmt::format("{:.1f}", n);
}

/// Words for people may get lost where they cannot be written, a full disk under a log file; they
/// never stop a job, as fmt::print would.
template <typename... Parts>
void put(fmt::format_string<Parts...> text, Parts&&... parts) {
  std::fputs(fmt::format(text, std::forward<Parts>(parts)...).c_str(), stderr);
  std::fflush(stderr);
}

}  // namespace

// The caller sees at the end whether all of it was written (main.cpp).
void print_document(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); }

Console::Console(bool quiet)
    : quiet_(quiet), terminal_(isatty(STDERR_FILENO)), color_(has_color(STDERR_FILENO)) {}

Console::~Console() { clear_bar(); }

Progress Console::progress() {
  return [this](const ProgressEvent& event) {
    if (g_interrupted) throw Interrupted{};
    if (!quiet_) show(event);
  };
}

void Console::show(const ProgressEvent& event) {
  if (event.phase == kWarning) return say(fmt::format("{:<10} {}", kWarning, event.item));
  const auto now = Clock::now();
  const bool new_phase = event.phase != phase_;
  if (new_phase) {
    phase_ = event.phase;
    phase_begin_ = now;
    phase_finished_ = false;
    last_shown_ = now;
  }
  if (phase_finished_) return;
  const bool finished = event.total > 0 && event.done >= event.total;
  using namespace std::chrono_literals;
  if (finished) {
    clear_bar();
    print_line(event, true);
    phase_finished_ = true;
  } else if (terminal_) {
    if (new_phase || now - last_shown_ >= 100ms) draw_bar(event), last_shown_ = now;
  } else if (now - last_shown_ >= 10s) {
    print_line(event, false);
    last_shown_ = now;
  }
}

double Console::seconds_in_phase() const {
  return std::chrono::duration<double>(Clock::now() - phase_begin_).count();
}

std::string Console::rate_and_eta(const ProgressEvent& event) const {
  const double seconds = seconds_in_phase();
  if (event.done == 0 || seconds < 0.2) return "";
  const double rate = static_cast<double>(event.done) / seconds;
  std::string text = fmt::format("{} {}/s", human_count(rate), event.unit);
  if (event.total > event.done)
    text += fmt::format("  ETA {}", human_seconds((event.total - event.done) / rate));
  return text;
}

void Console::draw_bar(const ProgressEvent& event) {
  constexpr int kCells = 24;
  const double share =
      event.total ? std::min(1.0, static_cast<double>(event.done) / event.total) : 0.0;
  const int filled = static_cast<int>(share * kCells);
  std::string bar;
  for (int i = 0; i < kCells; ++i) bar += i < filled ? "━" : "─";
  if (color_) bar = "\x1b[36m" + bar + "\x1b[0m";
  const std::string head = fmt::format("{:<10} ", event.phase);
  std::string tail = fmt::format(" {:3.0f}%  {}", 100 * share, rate_and_eta(event));
  const int room = width() - static_cast<int>(head.size() + tail.size()) - kCells - 3;
  if (room > 8 && !event.item.empty())
    tail += fmt::format("  {}", beginning_of(printable(event.item), room));
  put("\r\x1b[K{}{}{}", head, bar, tail);
  bar_shown_ = true;
}

void Console::print_line(const ProgressEvent& event, bool finished) {
  const double seconds = seconds_in_phase();
  if (finished) {
    put("{:<10} {} {} in {}\n", event.phase, human_count(event.total), event.unit,
        human_seconds(seconds));
  } else {
    put("{:<10} {:3.0f}%  {}  {}\n", event.phase,
        event.total ? 100.0 * event.done / event.total : 0.0, rate_and_eta(event),
        printable(event.item));
  }
}

void Console::clear_bar() {
  if (!bar_shown_) return;
  put("\r\x1b[K");
  bar_shown_ = false;
}

void Console::say(const std::string& line) {
  if (quiet_) return;
  clear_bar();
  put("{}\n", printable(line));
}

void Console::print_error(const Error& error) {
  clear_bar();
  const char* red = color_ ? "\x1b[1;31m" : "";
  const char* bold = color_ ? "\x1b[1m" : "";
  const char* reset = color_ ? "\x1b[0m" : "";
  put("{}spectralquant:{} {}error:{} {}\n", bold, reset, red, reset, error.what());
}

int Console::width() const { return terminal_width(STDERR_FILENO); }

void install_signal_handlers() {
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
  // a file-size limit then shows as a failed write, which has a message
  std::signal(SIGXFSZ, SIG_IGN);
}

std::string human_bytes(std::uint64_t size_bytes) {
  if (size_bytes >= (1ull << 30)) return fmt::format("{:.2f} GiB", size_bytes / double(1ull << 30));
  if (size_bytes >= (1ull << 20)) return fmt::format("{:.1f} MiB", size_bytes / double(1ull << 20));
  return fmt::format("{:.1f} KiB", size_bytes / 1024.0);
}

std::string human_seconds(double seconds) {
  if (seconds < 10) return fmt::format("{:.1f} s", seconds);
  const long s = static_cast<long>(seconds + 0.5);
  if (s < 60) return fmt::format("{} s", s);
  if (s < 3600) return fmt::format("{} min {:02} s", s / 60, s % 60);
  return fmt::format("{} h {:02} min", s / 3600, s % 3600 / 60);
}

bool stdout_has_color() { return has_color(STDOUT_FILENO); }
int stdout_width() { return terminal_width(STDOUT_FILENO); }

}  // namespace spectralquant::cli
