#include "spectralquant/text/json_records.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <optional>
#include <tuple>

#include "spectralquant/core/error.h"
#include "spectralquant/core/json_text.h"
#include "spectralquant/core/shell_word.h"
#include "spectralquant/core/utf8.h"
#include "spectralquant/text/foreign_format.h"
#include "spectralquant/text/read_text.h"

namespace spectralquant::text {
namespace {

using Json = JsonRecord;

constexpr std::string_view kSpace = " \t\r\n";
constexpr std::string_view kLineFix =
    R"(a line is {"text": "…"} or {"messages": [{"role": "user", "content": "…"}, …]})";

/// Calls line(text, number) for each line that is not blank, until it returns false.
template <typename Line>
void for_each_line(std::string_view text, const Line& line) {
  std::size_t number = 0;
  for (std::size_t start = 0; start < text.size();) {
    const std::size_t end = std::min(text.find('\n', start), text.size());
    std::string_view content = text.substr(start, end - start);
    start = end + 1;
    ++number;
    // files that were joined with cat have marks inside
    if (content.starts_with(kByteOrderMark)) content.remove_prefix(kByteOrderMark.size());
    if (content.find_first_not_of(kSpace) == std::string_view::npos) continue;
    if (!line(content, number)) return;
  }
}

/// Copies JSON and replaces what Python writes but JSON does not know; keeps strings otherwise.
class Repair {
 public:
  explicit Repair(std::string_view json) : json_(json) { out_.reserve(json.size()); }

  std::string run() {
    while (at_ < json_.size()) {
      if (json_[at_] == '"') {
        copy_string();
      } else if (json_[at_] == '-' || std::isdigit(static_cast<unsigned char>(json_[at_])) ||
                 std::isalpha(static_cast<unsigned char>(json_[at_]))) {
        copy_word();
      } else {
        out_ += json_[at_++];
      }
    }
    return std::move(out_);
  }

 private:
  /// Number or name: all that is not finite becomes null.
  void copy_word() {
    const std::size_t start = at_;
    while (at_ < json_.size() && (std::isalnum(static_cast<unsigned char>(json_[at_])) ||
                                  json_[at_] == '-' || json_[at_] == '+' || json_[at_] == '.'))
      ++at_;
    const std::string_view word = json_.substr(start, at_ - start);
    double value = 0;
    const bool is_huge = std::from_chars(word.data(), word.data() + word.size(), value).ec ==
                             std::errc::result_out_of_range &&
                         std::isdigit(static_cast<unsigned char>(word.back()));
    out_ += word == "NaN" || word == "Infinity" || word == "-Infinity" || is_huge ? "null" : word;
  }

  /// Code unit of "\uXXXX" at `at`, none if there is no such escape.
  std::optional<unsigned> code_unit(std::size_t at) const {
    unsigned unit = 0;
    if (json_.substr(at, 2) != "\\u" || at + 6 > json_.size()) return std::nullopt;
    const auto [end, error] =
        std::from_chars(json_.data() + at + 2, json_.data() + at + 6, unit, 16);
    if (error != std::errc{} || end != json_.data() + at + 6) return std::nullopt;
    return unit;
  }

  void copy_string() {
    out_ += json_[at_++];
    while (at_ < json_.size() && json_[at_] != '"') {
      const auto unit = code_unit(at_);
      if (!unit) {
        const std::size_t length = json_[at_] == '\\' ? 2 : 1;
        out_ += json_.substr(at_, length);
        at_ += length;
        continue;
      }
      const bool high = *unit >= 0xD800 && *unit < 0xDC00, low = *unit >= 0xDC00 && *unit < 0xE000;
      const auto next = high ? code_unit(at_ + 6) : std::nullopt;
      const bool pair = next && *next >= 0xDC00 && *next < 0xE000;
      if (pair) {
        out_ += json_.substr(at_, 12);
      } else if (high || low) {
        out_ += "\\uFFFD";
      } else {
        out_ += json_.substr(at_, 6);
      }
      at_ += pair ? 12 : 6;
    }
    if (at_ < json_.size()) out_ += json_[at_++];
  }

  std::string_view json_;
  std::size_t at_ = 0;
  std::string out_;
};

/// What JSON does not know, but Python writes; a cheap look before the repair.
bool may_need_repair(std::string_view json) {
  for (std::string_view sign : {"NaN", "Infinity", "\\ud", "\\uD", "e", "E"})
    if (json.find(sign) != std::string_view::npos) return true;
  return json.size() > 300;  // so many digits make a number that no double holds
}

/// The value, discarded if the text is no JSON.
Json parse(std::string_view json) {
  Json value = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (value.is_discarded() && may_need_repair(json))
    value = Json::parse(Repair(json).run(), nullptr, /*allow_exceptions=*/false);
  return value;
}

/// Names that promise JSON: ".jsonl", ".JSON", ".ndjson.gz", …
bool is_named_json(std::string path) {
  for (char& c : path) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  if (path.ends_with(".gz")) path.resize(path.size() - 3);
  for (std::string_view end : {".json", ".jsonl", ".ndjson", ".jsonlines", ".jl"})
    if (path.ends_with(end)) return true;
  return false;
}

/// True if at least half of the first lines are objects; a line alone must be a record.
bool is_json_lines(std::string_view text) {
  constexpr int kLooked = 64;
  int n = 0, n_objects = 0, n_records = 0;
  for_each_line(text, [&](std::string_view line, std::size_t) {
    const bool may_be = line[line.find_first_not_of(kSpace)] == '{';
    if (may_be) {
      const Json value = parse(line);
      n_objects += value.is_object() && !value.empty();
      n_records += is_record(value);
    }
    return ++n < kLooked;
  });
  return n == 1 ? n_records == 1 : n_objects > 0 && 2 * n_objects >= n;
}

void visit_lines(std::string_view text, const std::string& path, const RecordVisitor& visit) {
  for_each_line(text, [&](std::string_view line, std::size_t number) {
    const std::string origin = fmt::format("{}:{}", path, number);
    const Json value = parse(line);
    if (!value.is_object())
      throw bad_input(value.is_discarded() ? "the line is no JSON" : "the line is no JSON object",
                      origin, std::string(kLineFix));
    visit(value, origin);
    return true;
  });
}

/// The command that makes a document of a whole file.
std::string as_plain_text(const std::string& path) {
  return fmt::format("as one plain text: jq -Rs '{{text: .}}' {} > {}", shell_path(path),
                     shell_path(path + ".jsonl"));
}

bool is_list_of_messages(const Json& value) {
  return value.is_array() && !value.empty() && std::all_of(value.begin(), value.end(), is_message);
}

void visit_array(const Json& array, const std::string& path, const std::string& origin,
                 const RecordVisitor& visit) {
  if (is_list_of_messages(array)) return visit(array, origin);
  std::size_t number = 0;
  for (const Json& item : array) {
    const std::string place = fmt::format("{}, item {}", origin, ++number);
    if (item.is_null()) continue;
    if (!item.is_object() && !item.is_string() && !is_list_of_messages(item))
      throw bad_input("the item is neither an object nor a text", place, as_plain_text(path));
    visit(item, place);
  }
}

bool holds_texts(std::string_view key) {
  for (std::string_view known : {"text", "texts", "data", "documents", "prompts"})
    if (key == known) return true;
  return false;
}

/// A file of one object: a record, or a wrapper around an array of them.
void visit_object(const Json& object, const std::string& path, const RecordVisitor& visit) {
  if (is_record(object)) return visit(object, path);
  std::vector<std::string> keys;
  for (const auto& [key, value] : object.items()) {
    if (!value.is_array() || value.empty()) continue;
    if (is_record(value[0]) || is_list_of_messages(value[0]) ||
        (value[0].is_string() && holds_texts(key)))
      keys.push_back(key);
  }
  if (keys.empty()) return visit(object, path);  // refused as a record without text
  if (keys.size() == 1)
    return visit_array(object[keys[0]], path, fmt::format("{}, \"{}\"", path, keys[0]), visit);
  throw bad_input(
      fmt::format("{} holds several lists of documents: {}", path, fmt::join(keys, ", ")), path,
      fmt::format("take one of them: jq -c {} {} > {}",
                  shell_word(fmt::format(".[{}][]", json_text(Json(keys[0])))), shell_path(path),
                  shell_path(path + ".jsonl")));
}

/// Where the parser gave up.
std::size_t offset_of_fault(std::string_view json) {
  try {
    std::ignore = Json::parse(json);
  } catch (const Json::parse_error& error) {
    return std::min(error.byte > 0 ? error.byte - 1 : 0, json.size());
  } catch (const Json::exception&) {
  }
  return 0;
}

}  // namespace

bool is_message(const Json& value) {
  return value.is_object() && (value.contains("role") || value.contains("from"));
}

bool is_record(const Json& value) {
  if (!value.is_object()) return false;
  if (const auto text = value.find(kTextKey); text != value.end()) return !text->is_array();
  return std::any_of(std::begin(kMessageKeys), std::end(kMessageKeys),
                     [&](auto key) { return value.contains(key); });
}

std::string spaced_json(const Json& value, int depth) {
  constexpr int kDeepest = 64;  // writing is recursive, and no real record is deeper
  if (!value.is_structured()) return json_text(value);
  if (depth == kDeepest) return "null";
  std::string text = value.is_object() ? "{" : "[";
  for (const auto& [key, item] : value.items()) {
    if (text.size() > 1) text += ", ";
    if (value.is_object()) text += json_text(Json(key)) + ": ";
    text += spaced_json(item, depth + 1);
  }
  return text + (value.is_object() ? "}" : "]");
}

bool begins_like_json(std::string_view text) {
  const std::size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos || (text[first] != '{' && text[first] != '[')) return false;
  const std::size_t second = text.find_first_not_of(kSpace, first + 1);
  return second != std::string_view::npos &&
         (text[second] == '"' || (text[first] == '[' && text[second] == '{'));
}

bool visit_json_records(std::string_view text, const std::string& path,
                        const RecordVisitor& visit) {
  const bool promised = is_named_json(path);
  const std::size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return promised;  // blank
  if (is_json_lines(text)) {
    visit_lines(text, path, visit);
    return true;
  }
  if (text[first] != '{' && text[first] != '[' && !promised) return false;
  const Json value = parse(text);
  if (value.is_array()) {
    visit_array(value, path, path, visit);
  } else if (!value.is_discarded()) {
    visit_object(value, path, visit);
  } else if (promised) {
    const std::size_t line = line_of(text, offset_of_fault(text));
    throw bad_input(path + " is named as JSON, but is none", fmt::format("{}:{}", path, line),
                    fmt::format("put each record on a line of its own: jq -c . {} > {} (its errors "
                                "name the place); or, if it is plain text, give it a name that "
                                "ends in .txt",
                                shell_path(path), shell_path(path + ".jsonl")));
  } else {
    return false;
  }
  return true;
}

}  // namespace spectralquant::text
