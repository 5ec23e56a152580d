#pragma once
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace spectralquant::text {

/// A value of a file; keys keep their order.
using JsonRecord = nlohmann::ordered_json;

/// Called with each record of a file and the place it has there: "a.jsonl:12", "a.json, item 3".
using RecordVisitor = std::function<void(const JsonRecord& record, const std::string& origin)>;

/// Visits the records of a text that is JSON; false, and nothing visited, if it is plain text.
///
/// JSON is recognised by content, whatever the file is called: JSON lines (at least half of the
/// first 64 lines are objects), an array, or an object that is a record itself or holds one array
/// of records. Records are objects, texts or lists of messages; null is none. A file whose name
/// promises JSON (.json, .jsonl, .ndjson, …) must be JSON.
///
/// NaN, Infinity and numbers that no double holds are read as null, half a surrogate pair as
/// U+FFFD: json.dumps of Python writes such, and a field that is not read must not cost the file.
/// Errors   Error(kBadInput) with file and line: a line among JSON lines that is no object, a file
///          named as JSON that is none, an object with several arrays of records.
bool visit_json_records(std::string_view text, const std::string& path, const RecordVisitor& visit);

/// True if a plain text begins as JSON does, so that its reader may have meant JSON.
bool begins_like_json(std::string_view text);

/// True for an object that has a text or messages under a name that is known.
bool is_record(const JsonRecord& value);

/// True for an object with role and content, or from and value.
bool is_message(const JsonRecord& value);

/// JSON as Jinja's tojson writes it: a space behind commas and colons. What lies deeper than 64
/// levels becomes null.
std::string spaced_json(const JsonRecord& value, int depth = 0);

/// Names under which records keep a text and their messages, in the order they are looked for.
inline constexpr std::string_view kTextKey = "text";
inline constexpr std::string_view kMessageKeys[] = {"messages", "conversations", "conversation"};

}  // namespace spectralquant::text
