#include "spectralquant/pipeline/solved_matrix.h"

#include <nlohmann/json.hpp>

#include "spectralquant/core/hash.h"
#include "spectralquant/core/json_text.h"

namespace spectralquant::pipeline {

std::string SolvedMatrix::to_bytes() const {
  const std::vector<std::byte> blocks = matrix.to_bytes();
  const std::string_view body(reinterpret_cast<const char*>(blocks.data()), blocks.size());
  const nlohmann::ordered_json head = {{"name", report.name},
                                       {"type", format::name_of(*matrix.grid)},
                                       {"rows", matrix.rows},
                                       {"cols", matrix.cols},
                                       {"relative_error", report.relative_error},
                                       {"plain_objective", report.plain_objective},
                                       {"imatrix_objective", report.imatrix_objective},
                                       {"objective", report.objective},
                                       {"seconds", report.seconds},
                                       {"hash", hash_hex(body)}};
  return json_text(head) + "\n" + std::string(body);
}

std::optional<SolvedMatrix> SolvedMatrix::from_bytes(std::string_view bytes,
                                                     const format::Grid& grid,
                                                     std::string_view name, std::int64_t rows,
                                                     std::int64_t cols) {
  const std::size_t line = bytes.find('\n');
  if (line == std::string_view::npos) return std::nullopt;
  const auto head =
      nlohmann::json::parse(bytes.substr(0, line), nullptr, /*allow_exceptions=*/false);
  const std::string_view body = bytes.substr(line + 1);
  SolvedMatrix out;
  try {  // a head without one of the values is as good as none
    out.report = {head.at("name"),
                  head.at("rows"),
                  head.at("cols"),
                  head.at("relative_error"),
                  head.at("plain_objective"),
                  head.at("imatrix_objective"),
                  head.at("objective"),
                  head.at("seconds")};
    if (head.at("hash") != hash_hex(body) || head.at("type") != format::name_of(grid))
      return std::nullopt;
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  }
  const std::size_t n_blocks =
      static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols / grid.super_block);
  if (out.report.name != name || out.report.rows != rows || out.report.cols != cols ||
      body.size() != n_blocks * gguf::traits(grid.type).block_bytes)
    return std::nullopt;
  out.matrix = format::GridMatrix::from_bytes(grid, reinterpret_cast<const std::byte*>(body.data()),
                                              rows, cols);
  return out;
}

}  // namespace spectralquant::pipeline
