#include "spectralquant/text/read_text.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "spectralquant/core/error.h"
#include "spectralquant/core/shell_word.h"
#include "spectralquant/core/utf8.h"
#include "spectralquant/text/foreign_format.h"
#include "spectralquant/text/unicode.h"

namespace spectralquant::text {
namespace {

constexpr std::string_view kGzipMagic = "\x1F\x8B";
// More would not fit into memory as tokens anyway, and gzip packs zeros a thousandfold.
constexpr std::size_t kLongestText = std::size_t{8} << 30;

std::string read_bytes(const std::string& path) {
  struct stat status;
  if (stat(path.c_str(), &status) != 0) {
    throw bad_input(fmt::format("cannot read {}: {}", path, std::strerror(errno)), path,
                    "check the path");
  }
  if (S_ISDIR(status.st_mode))
    throw bad_input(path + " is a folder", path,
                    "name files, or a pattern such as " + path + "/*.txt");
  std::ifstream stream(path, std::ios::binary);
  std::ostringstream content;
  if (stream) content << stream.rdbuf();
  if (!stream || stream.bad())
    throw bad_input(fmt::format("cannot read {}: {}", path, std::strerror(errno)), path,
                    "check its permissions");
  return std::move(content).str();
}

struct Inflater {
  z_stream stream{};
  // 16: gzip's header and checksum are read, nothing else
  Inflater() { inflateInit2(&stream, 16 + MAX_WBITS); }
  ~Inflater() { inflateEnd(&stream); }
  Inflater(const Inflater&) = delete;
};

/// All members of a gzip file, one after the other.
std::string unpack(std::string_view packed, const std::string& path) {
  const auto damaged = [&](std::string_view why) {
    return bad_input(
        fmt::format("{} is a damaged gzip file: {}", path, why), path,
        "get the file again; gzip -t " + shell_path(path) + " tells whether it is whole");
  };
  Inflater inflater;
  z_stream& stream = inflater.stream;
  std::string text, buffer(std::size_t{1} << 18, '\0');
  std::size_t done = 0;
  for (bool between_members = false;;) {
    if (between_members && !packed.substr(done).starts_with(kGzipMagic)) break;
    const std::size_t n = std::min<std::size_t>(packed.size() - done, std::size_t{1} << 30);
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data() + done));
    stream.avail_in = static_cast<uInt>(n);
    stream.next_out = reinterpret_cast<Bytef*>(buffer.data());
    stream.avail_out = static_cast<uInt>(buffer.size());
    const int result = inflate(&stream, Z_NO_FLUSH);
    done += n - stream.avail_in;
    text.append(buffer.data(), buffer.size() - stream.avail_out);
    if (text.size() > kLongestText)
      throw bad_input(path + " unpacks to more than 8 GiB", path, "give a part of it");
    between_members = result == Z_STREAM_END;
    if (between_members) {
      inflateReset(&stream);
    } else if (result == Z_BUF_ERROR) {
      throw damaged("it is cut off");
    } else if (result != Z_OK) {
      throw damaged(stream.msg ? stream.msg : "its data make no sense");
    }
  }
  // zeros fill the last block on some media
  if (packed.find_first_not_of('\0', done) != std::string_view::npos)
    throw damaged(fmt::format("other bytes follow at offset {}", done));
  return text;
}

void require_utf8(std::string_view text, const std::string& path) {
  if (const std::size_t at = text.find('\0'); at != std::string_view::npos) {
    throw bad_input(path + " is binary: it holds a NUL byte",
                    fmt::format("{}:{}", path, line_of(text, at)), "give plain text or JSONL");
  }
  if (const std::size_t at = find_invalid_utf8(text); at != std::string_view::npos) {
    throw bad_input(fmt::format("{} is not UTF-8: byte 0x{:02x} at offset {}", path,
                                static_cast<unsigned char>(text[at]), at),
                    fmt::format("{}:{}", path, line_of(text, at)),
                    fmt::format("convert it from what it is, e.g. iconv -f LATIN1 -t UTF-8 {} > {}",
                                shell_path(path), shell_path(path + ".utf8")));
  }
}

}  // namespace

std::size_t line_of(std::string_view text, std::size_t offset) {
  return 1 + static_cast<std::size_t>(std::count(
                 text.begin(), text.begin() + static_cast<std::ptrdiff_t>(offset), '\n'));
}

std::string read_text(const std::string& path) {
  std::string text = read_bytes(path);
  if (text.starts_with(kGzipMagic)) text = unpack(text, path);
  if (const auto foreign = recognise_foreign_format(text, path))
    throw bad_input(fmt::format("{} is {}, not UTF-8 text", path, foreign->name), path,
                    foreign->fix);
  if (text.starts_with(kByteOrderMark)) text.erase(0, kByteOrderMark.size());
  if (text.empty()) throw bad_input(path + " is empty", path, "give a file with text");
  require_utf8(text, path);
  return text;
}

}  // namespace spectralquant::text
