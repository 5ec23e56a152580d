// spectralquant tokenize MODEL FILE: token ids as stock llama-tokenize prints them.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>

#include "spectralquant/cli/common.h"
#include "spectralquant/cli/console.h"
#include "spectralquant/cli/verbs.h"
#include "spectralquant/core/error.h"
#include "spectralquant/core/json_text.h"
#include "spectralquant/gguf/file.h"
#include "spectralquant/text/tokenizer.h"

namespace spectralquant::cli {
namespace {

struct TokenizeArguments {
  CommonOptions common;
  std::string model, file;
  bool pieces = false, plain_special = false, no_bos = false;
};

std::string read_all(const std::string& path) {
  if (path == "-") return {std::istreambuf_iterator<char>(std::cin), {}};
  std::ifstream in(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(in), {}};
  if (!in) throw bad_input("cannot read " + path, path, "check the path and its permissions");
  return text;
}

void run(const TokenizeArguments& arguments) {
  const auto file = gguf::File::open(arguments.model);
  const auto tokenizer = text::Tokenizer::from_metadata(file.metadata());
  const auto ids = tokenizer.encode(
      read_all(arguments.file),
      {.add_special = !arguments.no_bos, .parse_special = !arguments.plain_special});
  if (arguments.common.json) {
    nlohmann::json out = {{"n_tokens", ids.size()}, {"ids", ids}};
    if (arguments.pieces) {
      for (auto id : ids) out["pieces"].push_back(tokenizer.decode({id}));
    }
    print_document(json_text(out) + "\n");
  } else if (arguments.pieces) {
    for (auto id : ids) print("{:7} '{}'\n", id, tokenizer.decode({id}));
  } else {
    print("[{}]\n", fmt::join(ids, ", "));
  }
}

}  // namespace

void add_tokenize(CLI::App& app) {
  auto arguments = std::make_shared<TokenizeArguments>();
  auto* verb =
      app.add_subcommand("tokenize", "Print the token ids of a text, as stock llama-tokenize does");
  verb->add_option("model", arguments->model, "GGUF with the tokenizer")
      ->required()
      ->type_name("FILE");
  verb->add_option("file", arguments->file, "text file; - for stdin")
      ->required()
      ->type_name("FILE");
  verb->add_flag("--pieces", arguments->pieces, "one token a line, with its text");
  verb->add_flag("--no-parse-special", arguments->plain_special,
                 "<|im_start|> is read as letters, not as the special token");
  verb->add_flag("--no-bos", arguments->no_bos,
                 "no beginning-of-text token, even if the model asks for one");
  add_common(*verb, arguments->common, false);
  verb->footer(
      "The ids are those of: llama-tokenize -m MODEL -f FILE --ids --no-escape\n"
      "Examples:\n"
      "  spectralquant tokenize model.gguf text.txt --pieces\n"
      "  echo -n 'Hello' | spectralquant tokenize model.gguf -");
  verb->callback([arguments] { run(*arguments); });
}

}  // namespace spectralquant::cli
