#pragma once
#include <string>
#include <vector>

namespace spectralquant::evaluate {

struct Cell {
  std::string text;
  bool best = false;  ///< of its column: bold in Markdown, a star in the terminal
  Cell(std::string t, bool b = false) : text(std::move(t)), best(b) {}
  Cell(const char* t) : text(t) {}
};

/// Columns of text, ready for any of the printed forms. The first column is aligned left, the
/// others right.
struct Grid {
  std::string title;
  std::vector<std::string> head;
  std::vector<std::vector<Cell>> rows;
  std::vector<std::size_t> left;  ///< further columns that are aligned left: words
};

/// A grid wider than the terminal is broken into groups of columns, the first column repeated.
std::string draw_terminal(const Grid& grid, int width, bool color);
std::string draw_markdown(const Grid& grid);

}  // namespace spectralquant::evaluate
