#include "spectralquant/text/foreign_format.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>

#include "spectralquant/core/shell_word.h"

namespace spectralquant::text {
namespace {

using namespace std::string_view_literals;

/// A format that its bytes at one offset give away. In `fix`, {0} is the file and {1} a JSONL file
/// beside it, as shell words.
struct Signature {
  std::size_t offset;
  std::string_view bytes, name, fix;
};

constexpr std::string_view kGiveTexts = "it holds no text: give text files";
constexpr std::string_view kImageFix =
    "it is a picture: read its text with OCR, e.g. tesseract {0} out";

constexpr Signature kSignatures[] = {
    {0, "\x28\xB5\x2F\xFD"sv, "compressed with zstd", "zstd -d {0}"},
    {0,
     "\xFD"
     "7zXZ\0"sv,
     "compressed with xz", "xz -dk {0}"},
    {0, "BZh"sv, "compressed with bzip2", "bzip2 -dk {0}"},
    {0, "\x04\x22\x4D\x18"sv, "compressed with lz4", "lz4 -d {0}"},
    {0, "\x1F\x8B"sv, "compressed with gzip twice", "gzip -d -c {0} > unpacked.gz"},
    {0, "PK\x03\x04"sv, "a zip archive (Word, Excel and EPUB files are such, too)",
     "unzip {0}, and give the texts in it"},
    {0, "7z\xBC\xAF\x27\x1C"sv, "a 7z archive", "7z x {0}, and give the texts in it"},
    {0, "Rar!\x1A\x07"sv, "a RAR archive", "unrar x {0}, and give the texts in it"},
    {257, "ustar"sv, "a tar archive", "tar -xf {0}, and give the texts in it"},
    {0, "ARROW1\0\0"sv, "an Arrow table",
     "python3 -c 'import sys, pandas; pandas.read_feather(sys.argv[1]).to_json(sys.argv[2], "
     "orient=\"records\", lines=True)' {0} {1}"},
    {0, "PAR1"sv, "a Parquet table",
     "python3 -c 'import sys, pandas; pandas.read_parquet(sys.argv[1]).to_json(sys.argv[2], "
     "orient=\"records\", lines=True)' {0} {1}"},
    {0, "SQLite format 3\0"sv, "a SQLite database",
     "sqlite3 -json {0} 'SELECT text FROM my_table' > {1}"},
    {0, "\x93NUMPY"sv, "a NumPy array", kGiveTexts},
    {0, "\x89HDF\r\n\x1A\n"sv, "an HDF5 file", kGiveTexts},
    {0, "GGUF"sv, "a GGUF model", kGiveTexts},
    {0, "\x89PNG\r\n\x1A\n"sv, "a PNG image", kImageFix},
    {0, "\xFF\xD8\xFF"sv, "a JPEG image", kImageFix},
    {0, "GIF8"sv, "a GIF image", kImageFix},
    {8, "WEBP"sv, "a WebP image", kImageFix},
    {0, "II*\0"sv, "a TIFF image", kImageFix},
    {0, "MM\0*"sv, "a TIFF image", kImageFix},
    {0, "%PDF-"sv, "a PDF document", "pdftotext {0}"},
    {0, "\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1"sv, "an old Office document",
     "soffice --headless --convert-to txt:Text {0}"},
    {0, "{\\rtf"sv, "an RTF document", "soffice --headless --convert-to txt:Text {0}"},
    {0,
     "\x7F"
     "ELF"sv,
     "a program", kGiveTexts},
    {0, "\x80\x02"sv, "a pickle", kGiveTexts},
    {0, "\x80\x03"sv, "a pickle", kGiveTexts},
    {0, "\x80\x04"sv, "a pickle", kGiveTexts},
    {0, "\x80\x05"sv, "a pickle", kGiveTexts},
};

/// "UTF-16" and so on, as iconv calls it, by the mark in front; empty if there is none.
std::string_view marked_encoding(std::string_view bytes) {
  if (bytes.starts_with("\xFF\xFE\0\0"sv) || bytes.starts_with("\0\0\xFE\xFF"sv)) return "UTF-32";
  if (bytes.starts_with("\xFF\xFE"sv) || bytes.starts_with("\xFE\xFF"sv)) return "UTF-16";
  return {};
}

/// UTF-16 without a mark: where at least a third of a text is Latin, every second byte is NUL
/// there, and the others hardly ever are.
std::string_view unmarked_encoding(std::string_view bytes) {
  constexpr std::size_t kLooked = 4096, kFewest = 3;
  const std::string_view start = bytes.substr(0, kLooked);
  std::size_t nuls[2] = {0, 0};
  for (std::size_t i = 0; i < start.size(); ++i) nuls[i % 2] += start[i] == '\0';
  const std::size_t pairs = start.size() / 2;
  if (nuls[0] + nuls[1] < kFewest || bytes.size() % 2 != 0) return {};
  if (nuls[1] * 3 >= pairs && nuls[0] * 20 <= pairs) return "UTF-16LE";
  if (nuls[0] * 3 >= pairs && nuls[1] * 20 <= pairs) return "UTF-16BE";
  return {};
}

ForeignFormat wide_text(std::string_view encoding, const std::string& path) {
  return {std::string(encoding) + " text",
          fmt::format("iconv -f {} -t UTF-8 {} > {}", encoding, shell_path(path),
                      shell_path(path + ".utf8"))};
}

/// A header of its own length in 8 bytes, then JSON.
bool is_safetensors(std::string_view bytes) {
  if (bytes.size() < 10 || bytes[8] != '{') return false;
  std::uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | static_cast<unsigned char>(bytes[i]);
  return length > 1 && length <= bytes.size() - 8 && bytes[7 + length] == '}';
}

std::string fill_in(std::string_view fix, const std::string& path) {
  return fmt::format(fmt::runtime(fix), shell_path(path), shell_path(path + ".jsonl"));
}

}  // namespace

bool begins_like_html(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return false;
  const auto begins_with = [&](std::string_view tag) {
    const std::string_view start = text.substr(first, tag.size());
    return std::equal(start.begin(), start.end(), tag.begin(), tag.end(),
                      [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a + 32 : a) == b; });
  };
  return begins_with("<!doctype html") || begins_with("<html");
}

std::optional<ForeignFormat> recognise_foreign_format(std::string_view bytes,
                                                      const std::string& path) {
  if (const std::string_view encoding = marked_encoding(bytes); !encoding.empty())
    return wide_text(encoding, path);
  for (const Signature& signature : kSignatures) {
    if (bytes.size() >= signature.offset &&
        bytes.substr(signature.offset).starts_with(signature.bytes))
      return ForeignFormat{std::string(signature.name), fill_in(signature.fix, path)};
  }
  if (is_safetensors(bytes)) return ForeignFormat{"a safetensors model", std::string(kGiveTexts)};
  if (const std::string_view encoding = unmarked_encoding(bytes); !encoding.empty())
    return wide_text(encoding, path);
  return std::nullopt;
}

}  // namespace spectralquant::text
