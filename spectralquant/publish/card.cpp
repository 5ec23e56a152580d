#include "spectralquant/publish/card.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <initializer_list>
#include <limits>
#include <set>

#include "spectralquant/core/error.h"
#include "spectralquant/core/json_text.h"
#include "spectralquant/core/markdown_text.h"
#include "spectralquant/core/printable.h"
#include "spectralquant/core/shell_word.h"
#include "spectralquant/evaluate/report_json.h"
#include "spectralquant/gguf/strict.h"
#include "spectralquant/pipeline/quantize_command.h"

namespace spectralquant::publish {
namespace {

using nlohmann::json;

constexpr const char* kOpen = "# not in the file's metadata: ";

/// What the sections are written from.
struct Facts {
  const gguf::File& file;
  const gguf::Metadata& metadata;
  const CardOptions& options;
  gguf::Inventory inventory;
  json results;
  const json* row = nullptr;  ///< this file
  std::string file_name, stem, original;
};

std::string meta(const Facts& facts, const char* key) {
  return std::string(facts.metadata.string_or(key, ""));
}

/// A figure of a model on a suite, {"kld", "mean"} or {"kld_p99"}; NaN where there is none.
double figure(const json& model, const json& suite, std::initializer_list<const char*> path) {
  const json* at = &model["scores"];
  const auto step = [&at](const auto& key) {
    if (!at || !at->is_object()) return;
    const auto found = at->find(key);
    at = found == at->end() ? nullptr : &*found;
  };
  step(suite["name"].get<std::string>());
  for (const char* key : path) step(key);
  return at && at->is_number() ? at->get<double>() : std::numeric_limits<double>::quiet_NaN();
}

double number(const json& model, const char* key) {
  return model.contains(key) && model[key].is_number() ? model[key].get<double>()
                                                       : std::numeric_limits<double>::quiet_NaN();
}

bool flag(const json& model, const char* key) {
  return model.contains(key) && model[key].is_boolean() && model[key].get<bool>();
}

/// "–" for what is no number.
std::string shown(double x, int digits, const char* unit = "") {
  return std::isfinite(x) ? fmt::format("{:.{}f}{}", x, digits, unit) : std::string("–");
}

/// A YAML scalar on one line; JSON strings of printable text are YAML.
std::string yaml(const std::string& text) { return json_text(json(printable(text))); }

/// OWNER/NAME out of https://HOST/OWNER/NAME.
std::string repository_of(std::string url) {
  while (url.ends_with('/')) url.pop_back();
  const auto name = url.rfind('/');
  if (name == std::string::npos || name == 0) return "";
  const auto owner = url.rfind('/', name - 1);
  return owner == std::string::npos ? "" : url.substr(owner + 1);
}

/// The model this file is a quantization of.
std::string base_model(const Facts& facts) {
  if (!facts.options.base_model.empty()) return facts.options.base_model;
  for (const char* key :
       {"general.source.repo_url", "general.repo_url", "general.source.url", "general.url"})
    if (const auto repository = repository_of(meta(facts, key)); !repository.empty())
      return repository;
  return "";
}

/// The type of a strict file as llama.cpp names it: "Q4_K_M", "Q6_K".
std::string file_type_name(gguf::Type type) {
  const bool has_sizes =
      type == gguf::Type::Q3_K || type == gguf::Type::Q4_K || type == gguf::Type::Q5_K;
  return std::string(gguf::traits(type).name) + (has_sizes ? "_M" : "");
}

std::string tag_of(gguf::Type type) {
  std::string tag = file_type_name(type);
  for (char& c : tag) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return tag;
}

std::string header(const Facts& facts) {
  std::string out = "---\n";
  const auto license = meta(facts, "general.license"), base = base_model(facts);
  out += license.empty() ? fmt::format("{}license (the original's applies)\n", kOpen)
                         : fmt::format("license: {}\n", yaml(license));
  for (const char* key : {"name", "link"})
    if (const auto text = meta(facts, fmt::format("general.license.{}", key).c_str());
        !text.empty())
      out += fmt::format("license_{}: {}\n", key, yaml(text));
  out += base.empty() ? fmt::format("{}base_model (give it with --base-model OWNER/NAME)\n", kOpen)
                      : fmt::format("base_model: {}\nbase_model_relation: quantized\n", yaml(base));
  if (const auto* languages = facts.metadata.find("general.languages");
      languages && !languages->strings().empty()) {
    out += "language:\n";
    for (const auto language : languages->strings())
      out += fmt::format("- {}\n", yaml(std::string(language)));
  }
  out += fmt::format(
      "quantized_by: {}\n",
      yaml(facts.options.quantized_by.empty() ? "SpectralQuant" : facts.options.quantized_by));
  return out + "pipeline_tag: text-generation\ntags:\n- gguf\n- " +
         tag_of(facts.inventory.matrix_type) + "\n- llama.cpp\n- spectralquant\n---\n";
}

std::string counted(std::uint64_t n, const char* one, const char* many) {
  return fmt::format("{} {}", n, n == 1 ? one : many);
}

std::string what_it_is(const Facts& facts) {
  const auto& inventory = facts.inventory;
  const auto name = meta(facts, "general.name");
  std::string out = fmt::format("\n# {}\n\n", markdown_text(facts.stem));
  out += fmt::format("This is {} as GGUF for llama.cpp and everything built on it",
                     name.empty() ? markdown_text(facts.original) : markdown_text(name));
  const gguf::Type type = inventory.matrix_type;
  const auto type_name = gguf::traits(type).name;
  const std::uint64_t n_matrices =
      inventory.types.contains(type) ? inventory.types.at(type).n_tensors : 0;
  if (inventory.strict) {
    out += fmt::format(
        ", in strict {}: each of its {} is {}, {:.2f} bits a weight, with no matrix of another "
        "type beside them.\n",
        file_type_name(type), counted(n_matrices, "matrix", "matrices"), type_name,
        inventory.matrix_bpw);
  } else {
    out +=
        fmt::format(", in {} with exceptions: {} not {}.\n", file_type_name(type),
                    counted(inventory.violations.size(), "matrix is", "matrices are"), type_name);
    for (const auto& violation : inventory.violations)
      out += fmt::format("- {}\n", markdown_text(violation));
  }
  out += "\n| | |\n|---|---|\n";
  out += fmt::format("| file | {} |\n", markdown_code(facts.file_name));
  out +=
      fmt::format("| size | {:.2f} MiB, {:.2f} bits a weight over all {} weights |\n",
                  inventory.file_bytes / double(1 << 20), inventory.file_bpw, inventory.n_values);
  out +=
      fmt::format("| architecture | {}, {} kept in floating point (norms and other small ones) |\n",
                  markdown_text(facts.file.architecture()),
                  counted(inventory.kept.size(), "tensor", "tensors"));
  return out + fmt::format("| XXH3-128 | {} |\n", markdown_code(facts.file.hash()));
}

/// One row a file, smallest first, all suites side by side.
std::string table(const Facts& facts) {
  std::string head = "| file | BPW | MiB |", rule = "|---|---:|---:|";
  for (const auto& suite : facts.results["suites"]) {
    head += fmt::format(" {} KLD | 99 % | same top | loss |", markdown_text(suite["name"]));
    rule += "---:|---:|---:|---:|";
  }
  std::vector<const json*> models;
  for (const auto& model : facts.results["models"]) models.push_back(&model);
  const auto size = [](const json* model) {
    return std::isfinite(number(*model, "mebibytes")) ? number(*model, "mebibytes") : 0.0;
  };
  std::stable_sort(models.begin(), models.end(),
                   [&](const json* a, const json* b) { return size(a) < size(b); });
  std::string out = head + "\n" + rule + "\n";
  for (const json* model : models) {
    const bool is_reference = flag(*model, "reference");
    const std::string name = markdown_text((*model)["name"]);
    out += fmt::format("| {} | {} | {} |", model == facts.row ? fmt::format("**{}**", name) : name,
                       shown(number(*model, "file_bpw"), 2), shown(number(*model, "mebibytes"), 2));
    for (const auto& suite : facts.results["suites"]) {
      const auto cell = [&](std::initializer_list<const char*> path, int digits, double factor = 1,
                            const char* unit = "") {
        return is_reference ? std::string("–")
                            : shown(factor * figure(*model, suite, path), digits, unit);
      };
      out += fmt::format(" {} | {} | {} | {} |", cell({"kld", "mean"}, 4), cell({"kld_p99"}, 3),
                         cell({"same_top", "mean"}, 1, 100, " %"),
                         shown(figure(*model, suite, {"loss", "mean"}), 4));
    }
    out += "\n";
  }
  return out +
         "\nKLD: mean KL(original ‖ file), nats a token; 99 %: 99 tokens of 100 are below. Same "
         "top: both put the same token first. "
         "Loss: nats a token on the text itself. BPW: bits per weight of the whole file.\n";
}

std::string scores(const Facts& facts) {
  std::string out = "\n## How close it is to the original\n\n";
  for (const auto& suite : facts.results["suites"]) {
    const double mean = figure(*facts.row, suite, {"kld", "mean"});
    if (!std::isfinite(mean)) continue;
    out += fmt::format(
        "- {}: KL divergence to the original {:.4f} nats a token (95 %: {} to {}); the same token "
        "first at {} of {:.0f} positions.\n",
        markdown_text(suite["name"]), mean, shown(figure(*facts.row, suite, {"kld", "low"}), 4),
        shown(figure(*facts.row, suite, {"kld", "high"}), 4),
        shown(100 * figure(*facts.row, suite, {"same_top", "mean"}), 1, " %"),
        figure(*facts.row, suite, {"tokens"}));
  }
  return out + "\n" + table(facts);
}

/// Share of a source, where the metadata say it: own samples by number, texts by the rest.
std::string sources(const Facts& facts) {
  const auto description = meta(facts, "spectralquant.calibration");
  const auto tokens =
      static_cast<std::uint64_t>(facts.metadata.int_or("spectralquant.calibration_tokens", 0));
  if (description.empty() || tokens == 0) return "";
  std::vector<std::string> texts;
  std::uint64_t own = 0;
  for (std::size_t begin = 0; begin <= description.size();) {
    const auto end = std::min(description.find('+', begin), description.size());
    const auto part = description.substr(begin, end - begin);
    if (part.starts_with("self:"))
      own = std::strtoull(part.c_str() + 5, nullptr, 10);
    else if (!part.empty())
      texts.push_back(part);
    begin = end + 1;
  }
  std::string out = "\n| calibrated on | tokens | share |\n|---|---:|---:|\n";
  const auto line = [&](const std::string& what, std::uint64_t n) {
    out += fmt::format("| {} | {} | {:.0f} % |\n", what, n, 100.0 * n / tokens);
  };
  if (!texts.empty())
    line(markdown_text(fmt::format("{}", fmt::join(texts, ", "))), tokens - std::min(own, tokens));
  if (own > 0) line("text the model wrote itself", own);
  return out;
}

std::string how_it_was_made(const Facts& facts) {
  const auto method = meta(facts, "spectralquant.method");
  std::string out =
      fmt::format("\n## How it was made\n\nBy SpectralQuant {}, method {}. ",
                  markdown_text(meta(facts, "spectralquant.version")), markdown_code(method));
  if (method == "spectral")
    out +=
        "The rounding error of every matrix is shaped so that it falls where the original's output "
        "distribution hardly feels it. ";
  out += "What was used stands in the file's metadata:\n";
  out += sources(facts);
  out += "\n| key | value |\n|---|---|\n";
  for (const auto& [key, value] : facts.metadata.items())
    if (key.starts_with("spectralquant.")) {
      const auto text = value.as_string() ? std::string(*value.as_string()) : value.to_display();
      out += fmt::format("| {} | {} |\n", markdown_code(key), markdown_code(text));
    }
  return out;
}

/// A name that Ollama takes: letters, digits, dots and dashes.
std::string ollama_name(const std::string& stem) {
  std::string out;
  for (const char c : stem) {
    const auto byte = static_cast<unsigned char>(c);
    const bool kept = byte < 0x80 && (std::isalnum(byte) || c == '.' || c == '_' || c == '-');
    const char next = kept ? c : '-';
    if (next == '-' && (out.empty() || out.back() == '-')) continue;
    if (out.empty() && !std::isalnum(byte)) continue;
    out += next;
  }
  while (out.ends_with('-')) out.pop_back();
  return out.empty() ? "model" : out;
}

/// An option with its value, which may begin with a dash.
std::string option_of(const std::string& name, const std::string& value) {
  return value.starts_with('-') ? shell_word(fmt::format("{}={}", name, value))
                                : fmt::format("{} {}", name, shell_word(value));
}

std::string how_to_run(const Facts& facts) {
  const auto context = facts.metadata.int_or(facts.file.architecture() + ".context_length", 0);
  const bool chats = !meta(facts, "tokenizer.chat_template").empty();
  const auto file = shell_path(facts.file_name), name = shell_word(ollama_name(facts.stem));
  std::string out = "\n## How to run it\n\n";
  if (context > 0)
    out += fmt::format("The model was made for up to {} tokens of context.{}\n\n", context,
                       chats ? "" : " The file holds no chat template: it continues text.");
  out += "llama.cpp:\n\n";
  out += markdown_fence("sh", fmt::format("llama-cli -m {0}{1}\nllama-server -m {0} --port 8080\n",
                                          file, chats ? "" : " -p 'Once upon a time' -n 128"));
  out += "\nOllama, with a file named `Modelfile`:\n\n";
  out += markdown_fence("", fmt::format("FROM ./{}\n", printable(facts.file_name)));
  out += "\n";
  out +=
      markdown_fence("sh", fmt::format("ollama create {0} -f Modelfile\nollama run {0}\n", name));
  out += "\nLM Studio:\n\n";
  out += markdown_fence("sh", fmt::format("lms import {}\n", file));
  return out;
}

std::string limits(const Facts& facts) {
  std::string out =
      "\n## Limits\n\n- It is the original with less precision: what the original cannot do or "
      "gets wrong, this file cannot either. Its licence "
      "and terms apply.\n";
  for (const auto& suite : facts.results["suites"]) {
    const double p99 = figure(*facts.row, suite, {"kld_p99"});
    if (!std::isfinite(p99)) continue;
    out += fmt::format(
        "- On {}, {} of the positions have another token first than the original; one token in a "
        "hundred has a KL divergence above {:.3f}, "
        "the worst {}.\n",
        markdown_text(suite["name"]),
        shown(100 * (1 - figure(*facts.row, suite, {"same_top", "mean"})), 1, " %"), p99,
        shown(figure(*facts.row, suite, {"kld_max"}), 2));
  }
  if (const auto found = facts.results.find("overlap");
      found != facts.results.end() && found->is_array()) {
    std::set<std::string> said;
    for (const auto& overlap : *found)
      if (const auto label = overlap["label"].get<std::string>();
          label != "never seen" && said.insert(overlap["suite"]).second)
        out += fmt::format(
            "- The suite {} is no independent text: {} ({}).\n", markdown_text(overlap["suite"]),
            markdown_text(label),
            markdown_text(
                std::filesystem::path(overlap["calibration"].get<std::string>()).filename()));
  }
  return out +
         "- Scores are computed in float32 on the file's decoded weights. llama.cpp rounds "
         "activations too, which adds a little to every "
         "divergence, whatever the file.\n"
         "- Texts of another kind or language than the suites' were not scored.\n";
}

/// The command that scored the files, as far as the results say it.
std::string eval_command(const Facts& facts) {
  const auto name = [](const std::string& path) {
    return std::filesystem::path(path).filename().string();
  };
  // Predictions that were stored hold the text, too.
  const json* stored = nullptr;
  for (const auto& model : facts.results["models"])
    if (flag(model, "stored")) stored = &model;
  std::string command =
      stored ? fmt::format("spectralquant eval --reference-logits {}",
                           shell_path(name((*stored)["path"])))
             : fmt::format("spectralquant eval --reference {}", shell_path(facts.original));
  for (const auto& model : facts.results["models"])
    if (!flag(model, "reference")) command += fmt::format(" {}", shell_path(name(model["path"])));
  if (const auto baseline = facts.results.value("baseline", ""); !baseline.empty())
    command += fmt::format(" {}", option_of("--baseline", baseline));
  if (stored) return command + "\n";
  for (const auto& suite : facts.results["suites"]) {
    const std::string protocol = suite["protocol"];
    const std::string spec =
        fmt::format("{}={}{}", suite["name"].get<std::string>(), name(suite["file"]),
                    protocol == "documents" ? "" : fmt::format(":{}", protocol));
    command += fmt::format(" \\\n    {}", option_of("--suite", spec));
  }
  return command + "\n";
}

std::string how_to_reproduce(const Facts& facts) {
  std::string out = "\n## How to make it again\n\n";
  out += markdown_fence(
      "sh", pipeline::quantize_command(facts.metadata, facts.original, facts.file_name) + "\n");
  out += fmt::format("\nThe original has XXH3-128 {}",
                     markdown_code(meta(facts, "spectralquant.model_hash")));
  if (const auto hash = meta(facts, "spectralquant.calibration_hash"); !hash.empty())
    out += fmt::format(", the tokens calibrated on {}", markdown_code(hash));
  out += ". The same bytes come out on the same build and kind of processor. The table:\n\n";
  return out + markdown_fence("sh", eval_command(facts));
}

const json* find_candidate(const json& results, const std::string& hash) {
  for (const auto& model : results["models"])
    if (model["hash"] == hash && !flag(model, "reference")) return &model;
  return nullptr;
}

}  // namespace

std::string to_card(const gguf::File& model, const Source& results_source,
                    const CardOptions& options) {
  if (!model.metadata().find("spectralquant.version"))
    throw bad_input(
        "this file was not made by spectralquant quantize: it does not say how it was made",
        model.path(), "give a file that spectralquant quantize wrote");
  Facts facts{.file = model,
              .metadata = model.metadata(),
              .options = options,
              .inventory = gguf::take_inventory(model),
              .results = evaluate::parse_results(results_source.text, results_source.place),
              .file_name = std::filesystem::path(model.path()).filename().string(),
              .stem = std::filesystem::path(model.path()).stem().string(),
              .original = "ORIGINAL.gguf"};
  facts.row = find_candidate(facts.results, model.hash());
  if (!facts.row) {
    throw bad_input(
        fmt::format("the results have no scores of this file ({})", model.hash()),
        results_source.place,
        fmt::format("score it: spectralquant eval --reference ORIGINAL.gguf {} --suite ... --json",
                    shell_path(model.path())));
  }
  for (const auto& entry : facts.results["models"])
    if (flag(entry, "reference"))
      facts.original = std::filesystem::path(entry["path"].get<std::string>()).filename().string();
  return header(facts) + what_it_is(facts) + scores(facts) + how_it_was_made(facts) +
         how_to_run(facts) + limits(facts) + how_to_reproduce(facts);
}

}  // namespace spectralquant::publish
