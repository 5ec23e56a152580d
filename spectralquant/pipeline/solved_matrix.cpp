#include "spectralquant/pipeline/solved_matrix.h"

#include <nlohmann/json.hpp>

#include "spectralquant/core/hash.h"
#include "spectralquant/core/json_text.h"

namespace spectralquant::pipeline {

std::string SolvedMatrix::to_bytes() const {
  const std::vector<std::byte> blocks = matrix.to_bytes();
  const std::string_view body(reinterpret_cast<const char*>(blocks.data()), blocks.size());
  nlohmann::ordered_json head = {{"tensor", report.id.tensor},
                                 {"slice", report.id.slice},
                                 {"type", format::name_of(*matrix.grid)},
                                 {"rows", matrix.rows},
                                 {"cols", matrix.cols},
                                 {"relative_error", report.relative_error},
                                 {"plain_objective", report.plain_objective},
                                 {"imatrix_objective", report.imatrix_objective},
                                 {"objective", report.objective},
                                 {"seconds", report.seconds},
                                 {"hash", hash_hex(body)}};
  if (report.token_share) head["token_share"] = *report.token_share;
  return json_text(head) + "\n" + std::string(body);
}

std::optional<SolvedMatrix> SolvedMatrix::from_bytes(std::string_view bytes,
                                                     const format::Grid& grid,
                                                     const gguf::MatrixId& id, std::int64_t rows,
                                                     std::int64_t cols) {
  const std::size_t line = bytes.find('\n');
  if (line == std::string_view::npos) return std::nullopt;
  const auto head =
      nlohmann::json::parse(bytes.substr(0, line), nullptr, /*allow_exceptions=*/false);
  const std::string_view body = bytes.substr(line + 1);
  SolvedMatrix out;
  try {  // a head without one of the values is as good as none
    out.report = {gguf::MatrixId(head.at("tensor"), head.at("slice").get<std::int64_t>()),
                  head.at("rows"),
                  head.at("cols"),
                  head.at("relative_error"),
                  head.at("plain_objective"),
                  head.at("imatrix_objective"),
                  head.at("objective"),
                  head.at("seconds")};
    if (head.contains("token_share")) out.report.token_share = head.at("token_share");
    if (head.at("hash") != hash_hex(body) || head.at("type") != format::name_of(grid))
      return std::nullopt;
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  }
  const std::size_t n_blocks =
      static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols / grid.super_block);
  if (out.report.id != id || out.report.rows != rows || out.report.cols != cols ||
      body.size() != n_blocks * gguf::traits(grid.type).block_bytes)
    return std::nullopt;
  out.matrix = format::GridMatrix::from_bytes(grid, reinterpret_cast<const std::byte*>(body.data()),
                                              rows, cols);
  return out;
}

}  // namespace spectralquant::pipeline
