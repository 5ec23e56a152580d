#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "spectralquant/core/printable.h"
#include "spectralquant/spectra/report.h"

namespace spectralquant::spectra {
namespace {

constexpr std::size_t kSparkWidth = 14;
constexpr std::size_t kBarWidth = 24;
/// below a millionth of the largest, eigenvalues are float32 noise of the sums
constexpr double kSparkDecades = 6;

using Cells = std::vector<std::string>;

std::size_t display_width(const std::string& text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

/// Rows of cells under each other; the first `n_left` columns aligned left, the others right. Rows
/// may be shorter than others.
std::string align(std::vector<Cells> rows, std::size_t n_left) {
  for (Cells& row : rows)
    for (std::string& cell : row) cell = printable(cell);
  std::vector<std::size_t> widths;
  for (const Cells& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t c = 0; c < row.size(); ++c)
      widths[c] = std::max(widths[c], display_width(row[c]));
  }
  std::string out;
  for (const Cells& row : rows) {
    std::string line;
    for (std::size_t c = 0; c < row.size(); ++c) {
      const std::string space(widths[c] - display_width(row[c]), ' ');
      line += (c ? "  " : "") + (c < n_left ? row[c] + space : space + row[c]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

std::string title(const std::string& text, bool color) {
  return color ? fmt::format("\n\x1b[1m{}\x1b[0m\n", text) : fmt::format("\n{}\n", text);
}

std::string short_name(const std::string& name) {
  constexpr std::string_view kSuffix = ".weight";
  return name.ends_with(kSuffix) ? name.substr(0, name.size() - kSuffix.size()) : name;
}

/// KL in thousandths of a nat.
std::string milli(double kl) { return std::isfinite(kl) ? fmt::format("{:.3f}", 1000 * kl) : "–"; }
std::string percent(double share) {
  return std::isfinite(share) ? fmt::format("{:.1f} %", 100 * share) : "–";
}

/// Eighths of a character.
std::string bar(double share) {
  static constexpr const char* kEighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  const auto eighths =
      static_cast<std::size_t>(std::lround(std::clamp(share, 0.0, 1.0) * 8 * kBarWidth));
  std::string out;
  for (std::size_t i = 0; i < eighths / 8; ++i) out += "█";
  return out + kEighths[eighths % 8];
}

void add_spectrum(Cells& row, const std::optional<Spectrum>& spectrum) {
  if (!spectrum) {
    row.insert(row.end(), {"–", "–", "–"});
    return;
  }
  const std::int64_t count = top_count(kTopShares[1], spectrum->size);
  const bool known = count <= static_cast<std::int64_t>(spectrum->eigenvalues.size());
  row.insert(row.end(), {sparkline(*spectrum, kSparkWidth),
                         fmt::format("{}{:.1f}/{}", spectrum->estimated ? "≤" : "",
                                     spectrum->effective_rank, spectrum->size),
                         known ? percent(spectrum->share_of_top(count)) : "–"});
}

/// Indices of matrices, most expensive first: by the last variant, which is a file if there is one.
std::vector<std::size_t> order_of(const Report& report) {
  std::vector<std::size_t> order(report.matrices.size());
  std::iota(order.begin(), order.end(), 0);
  if (report.variants.empty()) return order;
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) {
    return report.matrices[a].errors.back().predicted_kl >
           report.matrices[b].errors.back().predicted_kl;
  });
  return order;
}

std::string spectra_table(const Report& report, const std::vector<std::size_t>& order) {
  std::vector<Cells> rows = {
      {"matrix", "shape", "inputs (H)", "rank", "top 5 %", "outputs (G)", "rank", "top 5 %"}};
  for (const std::size_t i : order) {
    const MatrixReport& matrix = report.matrices[i];
    Cells row = {short_name(matrix.id.text()), fmt::format("{}×{}", matrix.rows, matrix.cols)};
    add_spectrum(row, matrix.spectra.input);
    add_spectrum(row, matrix.spectra.output);
    rows.push_back(std::move(row));
    if (!matrix.spectra.lookup) continue;
    Cells lookup = {"  as lookup (C)", ""};
    add_spectrum(lookup, matrix.spectra.lookup);
    rows.push_back(std::move(lookup));
  }
  return align(rows, 3);
}

/// Columns of every variant: predicted, alone (if measured), as a share of white noise.
std::string cost_table(const Report& report, const std::vector<std::size_t>& order) {
  const bool measured = !report.measured_text.empty();
  Cells names = {""}, head = {"matrix"};
  for (const VariantReport& variant : report.variants) {
    names.push_back(variant.name);
    head.push_back("predicted");
    if (measured) names.emplace_back(), head.push_back("alone");
    names.emplace_back(), head.push_back("of white");
  }
  head.push_back("");
  std::vector<Cells> rows = {names, head};
  const double largest = report.matrices[order[0]].errors.back().predicted_kl;
  for (const std::size_t i : order) {
    const MatrixReport& matrix = report.matrices[i];
    Cells row = {short_name(matrix.id.text())};
    for (std::size_t v = 0; v < matrix.errors.size(); ++v) {
      row.push_back(milli(matrix.errors[v].predicted_kl));
      if (measured) row.push_back(milli(matrix.measured_kl[v]));
      row.push_back(percent(matrix.errors[v].white_kl > 0
                                ? matrix.errors[v].predicted_kl / matrix.errors[v].white_kl
                                : 0));
    }
    const std::string drawn = bar(largest > 0 ? matrix.errors.back().predicted_kl / largest : 0);
    row.push_back(drawn + std::string(kBarWidth - display_width(drawn), ' '));
    rows.push_back(std::move(row));
  }
  return align(rows, 1);
}

/// Mean over matrices of the share of ‖E‖² in the top directions.
std::string shares_table(const Report& report) {
  std::vector<Cells> rows = {{"", "inputs (H)", "", "", "outputs (G)", "", ""},
                             {"", "top 1 %", "5 %", "20 %", "top 1 %", "5 %", "20 %"}};
  const auto mean = [&](auto value_of) {
    double sum = 0;
    int n = 0;
    for (const MatrixReport& matrix : report.matrices) {
      const double value = value_of(matrix);
      if (std::isfinite(value)) sum += value, ++n;
    }
    return percent(n ? sum / n : kNotMeasured);
  };
  Cells white = {"white noise"};
  for (const bool input : {true, false}) {
    for (const double share : kTopShares) {
      white.push_back(mean([&](const MatrixReport& m) {
        const auto& spectrum = input ? m.spectra.input : m.spectra.output;
        return spectrum ? static_cast<double>(top_count(share, spectrum->size)) /
                              static_cast<double>(spectrum->size)
                        : kNotMeasured;
      }));
    }
  }
  rows.push_back(std::move(white));
  for (std::size_t v = 0; v < report.variants.size(); ++v) {
    Cells row = {report.variants[v].name};
    for (const bool input : {true, false}) {
      for (std::size_t s = 0; s < kTopShares.size(); ++s) {
        row.push_back(mean([&](const MatrixReport& m) {
          const auto& shares = input ? m.errors[v].input : m.errors[v].output;
          return shares ? shares->energy[s] : kNotMeasured;
        }));
      }
    }
    rows.push_back(std::move(row));
  }
  return align(rows, 1);
}

/// Blocks and files: predicted beside measured.
std::string block_table(const Report& report) {
  const bool measured = !report.measured_text.empty();
  Cells names = {""}, head = {"block"};
  for (const VariantReport& variant : report.variants) {
    names.push_back(variant.name);
    head.push_back("predicted");
    if (measured) names.emplace_back(), head.push_back("alone");
  }
  std::vector<Cells> rows = {names, head};
  for (const BlockReport& block : report.blocks) {
    Cells row = {short_name(block.name)};
    for (std::size_t v = 0; v < block.predicted_kl.size(); ++v) {
      row.push_back(milli(block.predicted_kl[v]));
      if (measured) row.push_back(milli(block.measured_kl[v]));
    }
    rows.push_back(std::move(row));
  }
  Cells sum = {"sum"}, whole = {"whole model"}, correlation = {"rank correlation"};
  for (const VariantReport& variant : report.variants) {
    sum.push_back(milli(variant.predicted_kl));
    if (!measured) continue;
    sum.push_back(milli(variant.measured_sum_kl));
    whole.insert(whole.end(), {"", milli(variant.measured_kl)});
    correlation.insert(correlation.end(), {"", std::isfinite(variant.rank_correlation)
                                                   ? fmt::format("{:.3f}", variant.rank_correlation)
                                                   : "–"});
  }
  rows.push_back(std::move(sum));
  if (measured) rows.insert(rows.end(), {whole, correlation});
  return align(rows, 1);
}

}  // namespace

std::string sparkline(const Spectrum& spectrum, std::size_t width) {
  static constexpr const char* kHeights[] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  const double largest = spectrum.eigenvalues.empty() ? 0 : spectrum.eigenvalues[0],
               n = static_cast<double>(spectrum.eigenvalues.size());
  std::string out;
  for (std::size_t i = 0; i < width; ++i) {
    const double position = width > 1 ? static_cast<double>(i) / static_cast<double>(width - 1) : 0;
    const auto rank = static_cast<std::size_t>(std::llround(std::pow(std::max(1.0, n), position)));
    const double value = largest > 0 ? spectrum.eigenvalues[rank - 1] / largest : 0;
    // 1 at the largest, 0 six decades below
    const double height = value > 0 ? 1 + std::log10(value) / kSparkDecades : 0;
    out += kHeights[std::lround(8 * std::clamp(height, 0.0, 1.0))];
  }
  return out;
}

std::string to_terminal(const Report& report, std::size_t n_rows, bool color) {
  std::vector<std::size_t> order = order_of(report);
  const std::size_t n_hidden = n_rows > 0 && order.size() > n_rows ? order.size() - n_rows : 0;
  order.resize(order.size() - n_hidden);
  const std::string more = n_hidden ? fmt::format("and {} more: --top 0\n", n_hidden) : "";
  std::string out = fmt::format("signals of {} tokens of {}, {} matrices\n", report.signals_tokens,
                                printable(report.signals_text), report.matrices.size());
  out += title(
      "Spectra: eigenvalues from the largest to the smallest (log ranks, six decades high), "
      "effective rank, share of the top 5 %",
      color);
  out += spectra_table(report, order) + more;
  if (report.variants.empty() || order.empty()) return out;
  out += title(
      "What errors cost: KL in millinats per token" +
          std::string(report.measured_text.empty()
                          ? ""
                          : fmt::format("; alone: measured on {} tokens of {}",
                                        report.measured_tokens, printable(report.measured_text))),
      color);
  out += cost_table(report, order) + more;
  out += title("Where errors lie: share of ‖E‖² in the top directions, mean over matrices", color) +
         shares_table(report);
  out += title("By block, KL in millinats per token", color) + block_table(report);
  return out;
}

}  // namespace spectralquant::spectra
