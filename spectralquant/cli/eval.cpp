// spectralquant eval: reference and candidates over suites, one table.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>

#include "spectralquant/cli/console.h"
#include "spectralquant/cli/verbs.h"
#include "spectralquant/evaluate/score.h"
#include "spectralquant/evaluate/table.h"
#include "spectralquant/gguf/file.h"
#include "spectralquant/gguf/partial_file.h"
#include "spectralquant/gguf/strict.h"
#include "spectralquant/model/model.h"

namespace spectralquant::cli {
namespace {

struct Arguments {
  CommonOptions common;
  std::string reference, baseline, markdown_file;
  std::vector<std::string> candidates, suites;
  evaluate::EvaluateOptions options;
  bool markdown = false;
};

evaluate::Row describe(const gguf::File& file) {
  const auto inventory = gguf::take_inventory(file);
  evaluate::Row row;
  row.path = file.path();
  row.name = std::filesystem::path(file.path()).stem().string();
  row.hash = file.hash();
  row.file_bpw = inventory.file_bpw;
  row.matrix_bpw = inventory.matrix_bpw;
  row.mebibytes = inventory.file_bytes / double(1 << 20);
  row.strict = inventory.strict;
  return row;
}

/// A candidate may leave out the tokenizer's words but must split text alike: token ids are compared position by position.
void require_same_tokenizer(const text::Tokenizer& reference, const gguf::File& candidate) {
  if (text::Tokenizer::from_metadata(candidate.metadata()).hash() != reference.hash())
    throw bad_input("its tokenizer is not the reference's", candidate.path(), "compare quantizations of one model only");
}

struct Candidate {
  evaluate::Row row;
  std::vector<evaluate::Positions> positions;  ///< one per suite
};


/// `name` is a candidate's path or file name without ".gguf".
const Candidate* find_baseline(const std::vector<Candidate>& all, const std::string& name) {
  for (const auto& c : all)
    if (!c.row.is_reference && (c.row.name == name || c.row.path == name)) return &c;
  return nullptr;
}

void require_baseline(const Arguments& arguments) {
  const auto& name = arguments.baseline;
  const auto fits = [&](const std::string& path) { return path == name || std::filesystem::path(path).stem().string() == name; };
  if (name.empty() || std::any_of(arguments.candidates.begin(), arguments.candidates.end(), fits)) return;
  throw Error(ErrorCode::kBadUsage, "the baseline '" + name + "' is none of the candidates", "--baseline", "give the file name of a candidate");
}

/// Two files of one name in different folders are told apart by their folder.
void make_names_unique(std::vector<Candidate>& all) {
  for (auto& c : all)
    for (auto& other : all)
      if (&c != &other && c.row.name == other.row.name) c.row.name = std::filesystem::path(c.row.path).parent_path().filename().string() + "/" + c.row.name;
}

evaluate::Table make_table(std::vector<Candidate>& all, const std::vector<evaluate::Suite>& suites, const Candidate* baseline,
                           const evaluate::EvaluateOptions& options) {
  evaluate::Table table;
  for (const auto& suite : suites) {
    table.suites.push_back(suite.spec);
    table.suite_tokens.push_back(suite.n_scored);
    table.suite_hashes.push_back(suite.hash);
  }
  if (baseline) table.baseline = baseline->row.name;
  for (auto& c : all) {
    c.row.is_baseline = &c == baseline;
    for (std::size_t s = 0; s < suites.size(); ++s) {
      const bool recovers = baseline && !c.row.is_reference;
      c.row.scores.push_back(
          evaluate::summarize(c.positions[s], recovers ? &all[0].positions[s] : nullptr, recovers ? &baseline->positions[s] : nullptr, options));
    }
    table.rows.push_back(c.row);
  }
  return table;
}

/// The file for the table, made before the long work; nothing if none is asked for. It replaces an older table, never a file that is read.
std::optional<gguf::PartialFile> open_markdown(const Arguments& arguments, const std::vector<evaluate::SuiteSpec>& specs) {
  if (arguments.markdown_file.empty()) return std::nullopt;
  std::vector<std::string> inputs = arguments.candidates;
  inputs.push_back(arguments.reference);
  for (const auto& spec : specs) {
    for (auto& path : text::expand_patterns({spec.pattern})) inputs.push_back(std::move(path));
  }
  return std::make_optional<gguf::PartialFile>(arguments.markdown_file, true, inputs);
}

void run(const Arguments& arguments) {
  Console console(arguments.common.quiet);
  prepare_engine(arguments.common, console);
  std::vector<evaluate::SuiteSpec> specs;
  for (const auto& text : arguments.suites) specs.push_back(evaluate::parse_suite(text));
  const auto reference_file = gguf::File::open(arguments.reference);
  const auto tokenizer = text::Tokenizer::from_metadata(reference_file.metadata());
  const auto chat = text::ChatFormat::from_metadata(reference_file.metadata());
  // Everything that can be refused is refused before the first long computation.
  require_baseline(arguments);
  auto markdown_file = open_markdown(arguments, specs);
  std::vector<gguf::File> files;
  for (const auto& path : arguments.candidates) {
    files.push_back(gguf::File::open(path));
    require_same_tokenizer(tokenizer, files.back());
  }
  std::vector<evaluate::Suite> suites;
  for (const auto& spec : specs) suites.push_back(evaluate::load_suite(spec, tokenizer, chat));

  const model::ModelOptions model_options{.device = model::parse_device(arguments.common.device)};
  model::Model reference(reference_file, model_options);
  console.say("reference  " + reference_file.path());
  std::vector<evaluate::ReferenceRun> runs;
  std::vector<Candidate> all = {{.row = describe(reference_file), .positions = {}}};
  all[0].row.is_reference = true;
  for (const auto& suite : suites) {
    runs.push_back(evaluate::measure(reference, suite, arguments.options, console.progress()));
    all[0].positions.push_back(runs.back().positions);
  }
  for (const auto& file : files) {
    console.say("candidate  " + file.path());
    model::Model candidate(file, model_options);
    Candidate scored{.row = describe(file), .positions = {}};
    for (std::size_t s = 0; s < suites.size(); ++s) {
      scored.positions.push_back(evaluate::compare(reference, runs[s], candidate, suites[s], arguments.options, console.progress()));
    }
    all.push_back(std::move(scored));
  }
  const Candidate* baseline = arguments.baseline.empty() ? nullptr : find_baseline(all, arguments.baseline);
  make_names_unique(all);
  const auto table = make_table(all, suites, baseline, arguments.options);
  if (markdown_file) {
    const std::string text = evaluate::to_markdown(table);
    markdown_file->reserve(text.size());
    markdown_file->write(0, text.data(), text.size());
    markdown_file->sync();
    markdown_file->rename_to_target();
  }
  if (arguments.common.json) fmt::print("{}", evaluate::to_json(table));
  else if (arguments.markdown) fmt::print("{}", evaluate::to_markdown(table));
  else fmt::print("{}", evaluate::to_terminal(table, stdout_width(), stdout_has_color()));
}

}  // namespace

void add_eval(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  auto* verb = app.add_subcommand("eval", "Score GGUF files against their original: prompt loss, KL divergence, agreement, in one table");
  verb->add_option("candidates", arguments->candidates, "GGUF files to score, of any type llama.cpp users have")->type_name("FILE");
  verb->add_option("--reference", arguments->reference, "the original: BF16, F16 or F32 GGUF")->required()->type_name("FILE");
  verb->add_option("--suite", arguments->suites,
                   "text to score on: NAME=FILE (every document by itself), NAME=FILE:64x256 (first 64 windows of 256 tokens), "
                   "NAME=FILE:c512 (as llama-perplexity -c 512)")
      ->required()
      ->type_name("NAME=FILE[:PROTOCOL]");
  verb->add_option("--baseline", arguments->baseline, "candidate that gap recovery is measured against: (baseline − model) / (baseline − reference)")
      ->type_name("FILE");
  verb->add_option("--bootstrap", arguments->options.bootstrap_samples, "resamples for the 95 % intervals")->capture_default_str()->check(CLI::Range(0, 1000000).description(""));
  verb->add_flag("--markdown", arguments->markdown, "print Markdown");
  verb->add_option("--markdown-file", arguments->markdown_file, "also write the table as Markdown to this file")->type_name("FILE");
  add_common(*verb, arguments->common, true);
  verb->footer(
      "What is scored is the written file: its bytes are decoded as llama.cpp decodes them.\n"
      "Example:\n"
      "  spectralquant eval --reference model-bf16.gguf ours.gguf pure.gguf --baseline pure \\\n"
      "      --suite held=suites/heldout120.jsonl --suite wiki=wiki.test.raw:c512");
  verb->callback([arguments] {
    arguments->options.seed = arguments->common.seed;
    run(*arguments);
  });
}

}  // namespace spectralquant::cli
