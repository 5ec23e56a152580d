#include "spectralquant/evaluate/grid.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "spectralquant/core/markdown_text.h"
#include "spectralquant/core/printable.h"

namespace spectralquant::evaluate {
namespace {

std::size_t display_width(const std::string& text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

/// The grid's texts: cells of a column with a star in it end in a star or a space, so that its
/// figures stay under one another.
std::vector<std::vector<std::string>> starred(const Grid& grid) {
  std::vector<bool> has_star(grid.head.size(), false);
  for (const auto& row : grid.rows)
    for (std::size_t c = 0; c < row.size(); ++c) has_star[c] = has_star[c] || row[c].best;
  std::vector<std::vector<std::string>> rows;
  for (const auto& row : grid.rows) {
    rows.emplace_back();
    for (std::size_t c = 0; c < row.size(); ++c)
      rows.back().push_back(printable(row[c].text) + (row[c].best ? "*" : has_star[c] ? " " : ""));
  }
  return rows;
}

std::string aligned(const std::string& text, std::size_t width, bool left) {
  const std::string space(width > display_width(text) ? width - display_width(text) : 0, ' ');
  return left ? fmt::format("{}{}", text, space) : fmt::format("{}{}", space, text);
}

}  // namespace

std::string draw_terminal(const Grid& grid, int width, bool color) {
  const auto rows = starred(grid);
  std::vector<std::string> head;
  std::vector<std::size_t> widths;
  for (const auto& cell : grid.head) {
    head.push_back(printable(cell));
    widths.push_back(display_width(head.back()));
  }
  for (const auto& row : rows)
    for (std::size_t c = 0; c < row.size(); ++c)
      widths[c] = std::max(widths[c], display_width(row[c]));
  const auto is_left = [&](std::size_t c) {
    return c == 0 || std::find(grid.left.begin(), grid.left.end(), c) != grid.left.end();
  };
  std::string out;
  if (!grid.title.empty())
    out += fmt::format("{}{}{}\n", color ? "\x1b[1m" : "", printable(grid.title),
                       color ? "\x1b[0m" : "");
  std::size_t first = 1;
  while (first < widths.size()) {
    std::size_t last = first, used = widths[0];
    while (last < widths.size() &&
           (last == first || used + 2 + widths[last] <= static_cast<std::size_t>(width)))
      used += 2 + widths[last++];
    const auto line = [&](const std::vector<std::string>& cells) {
      std::string text = aligned(cells[0], widths[0], true);
      for (std::size_t c = first; c < last; ++c)
        text += fmt::format("  {}", aligned(cells[c], widths[c], is_left(c)));
      text.erase(text.find_last_not_of(' ') + 1);
      return text;
    };
    out += fmt::format("{}{}{}\n", color ? "\x1b[2m" : "", line(head), color ? "\x1b[0m" : "");
    for (const auto& row : rows) out += line(row) + "\n";
    first = last;
    if (first < widths.size()) out += "\n";
  }
  return out;
}

std::string draw_markdown(const Grid& grid) {
  const auto line = [](const std::vector<std::string>& cells) {
    return fmt::format("| {} |\n", fmt::join(cells, " | "));
  };
  std::string out;
  if (!grid.title.empty()) out += fmt::format("**{}**\n\n", markdown_text(grid.title));
  std::vector<std::string> head;
  for (const auto& cell : grid.head) head.push_back(markdown_text(cell));
  out += line(head);
  out += "|---|";
  for (std::size_t c = 1; c < grid.head.size(); ++c)
    out += std::find(grid.left.begin(), grid.left.end(), c) != grid.left.end() ? "---|" : "---:|";
  out += "\n";
  for (const auto& row : grid.rows) {
    std::vector<std::string> cells;
    for (const auto& cell : row) {
      const std::string text = markdown_text(cell.text);
      cells.push_back(cell.best ? "**" + text + "**" : text);
    }
    out += line(cells);
  }
  return out;
}

}  // namespace spectralquant::evaluate
