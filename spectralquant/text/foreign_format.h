#pragma once
#include <optional>
#include <string>
#include <string_view>

namespace spectralquant::text {

/// A file that is no UTF-8 text, and the command that makes one of it.
struct ForeignFormat {
  std::string name;  ///< "a Parquet table", "UTF-16 (little-endian)"
  std::string fix;   ///< a command, or what to do where there is none
};

/// Names the format of a file by its first bytes, where it is known and is not plain text.
///
/// bytes is the whole file; path appears in the command, quoted for a shell.
/// Known: UTF-16 and UTF-32 (with or without byte-order mark), compressed files, archives,
/// Parquet, Arrow, NumPy, HDF5, SQLite, GGUF, safetensors, pickles, images, PDF, RTF.
std::optional<ForeignFormat> recognise_foreign_format(std::string_view bytes,
                                                      const std::string& path);

/// True for a text that begins as a web page does.
bool begins_like_html(std::string_view text);

}  // namespace spectralquant::text
