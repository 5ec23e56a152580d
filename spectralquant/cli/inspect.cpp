// spectralquant inspect FILE [FILE2]: what a file is made of; whether it is strict; how two files
// differ. With --signals: inspect_signals.cpp.
#include <fmt/format.h>

#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>

#include "spectralquant/cli/common.h"
#include "spectralquant/cli/console.h"
#include "spectralquant/cli/inspect_signals.h"
#include "spectralquant/cli/verbs.h"
#include "spectralquant/core/json_text.h"
#include "spectralquant/gguf/diff.h"
#include "spectralquant/gguf/file.h"
#include "spectralquant/gguf/loadable.h"
#include "spectralquant/gguf/recipe.h"
#include "spectralquant/gguf/scan.h"
#include "spectralquant/gguf/strict.h"

namespace spectralquant::cli {
namespace {

using nlohmann::json;

struct InspectArguments {
  CommonOptions common;
  InspectSignals signals;
  std::vector<std::string> files;
  bool strict = false, tensors = false, metadata = false;
};

/// What a look at every value of a file finds.
struct Values {
  std::uint64_t n_not_finite = 0, n_tensors_not_finite = 0;
  std::string first;               ///< "blk.0.ffn_up.weight holds NaN at row 3, column 17"
  std::vector<std::string> zeros;  ///< matrices with long runs of zeros
};

Values look_at_values(const gguf::File& file, const CommonOptions& common) {
  Console console(common.quiet);
  const Progress progress = console.progress();
  const std::uint64_t n_tensors = file.tensors().size();
  Values values;
  for (std::uint64_t i = 0; i < n_tensors; ++i) {
    const gguf::Tensor& tensor = file.tensors()[i];
    if (!gguf::traits(tensor.type).decodable) continue;
    report(progress, {"read", tensor.name, i, n_tensors, "tensors"});
    const gguf::ValueScan scan = gguf::scan_values(tensor, common.n_threads, file.path());
    if (scan.n_not_finite > 0) {
      if (values.first.empty()) values.first = gguf::not_finite_text(tensor, scan);
      values.n_not_finite += scan.n_not_finite;
      values.n_tensors_not_finite += 1;
    }
    if (gguf::is_matrix_to_quantize(file.architecture(), tensor) &&
        gguf::is_suspiciously_zero(tensor, scan))
      values.zeros.push_back(gguf::zeros_text(tensor, scan));
  }
  return values;
}

json to_json(const gguf::File& file, const gguf::Inventory& inventory, const gguf::Recipe* recipe,
             const Values& values) {
  json out = {{"path", file.path()},
              {"gguf_version", file.version()},
              {"architecture", file.architecture()},
              {"hash", file.hash()},
              {"file_bytes", inventory.file_bytes},
              {"tensors", file.tensors().size()},
              {"parameters", inventory.n_values},
              {"file_bpw", inventory.file_bpw},
              {"matrix_bpw", inventory.matrix_bpw},
              {"strict", inventory.strict},
              {"recipe", recipe ? recipe->name : std::string_view()},
              {"matrix_type", gguf::traits(inventory.matrix_type).name},
              {"violations", inventory.violations},
              {"kept", inventory.kept},
              {"finite", values.n_not_finite == 0},
              {"values_not_finite", values.n_not_finite},
              {"first_not_finite", values.first},
              {"zero_runs", values.zeros},
              {"load_problems", gguf::load_refusals(file)}};
  for (const auto& [type, per] : inventory.types)
    out["types"][std::string(gguf::traits(type).name)] = {
        {"tensors", per.n_tensors}, {"parameters", per.n_values}, {"bytes", per.size_bytes}};
  for (const auto& tensor : file.tensors())
    out["tensor_list"].push_back({{"name", tensor.name},
                                  {"type", gguf::traits(tensor.type).name},
                                  {"shape", tensor.shape_text()}});
  for (const auto& [key, value] : file.metadata().items())
    out["metadata"][key] = value.to_display();
  return out;
}

void print_values(const Values& values) {
  if (values.n_not_finite > 0)
    print("not finite: {} ({} {} in {} {})\n", values.first, values.n_not_finite,
          values.n_not_finite == 1 ? "value" : "values", values.n_tensors_not_finite,
          values.n_tensors_not_finite == 1 ? "tensor" : "tensors");
  for (const std::string& text : values.zeros) print("zeros: {}\n", text);
}

void print_verdict(const gguf::Inventory& inventory, const gguf::Recipe* recipe) {
  const auto type = gguf::traits(inventory.matrix_type).name;
  if (inventory.strict) {
    print(
        "strict {}: yes, every matrix; {} tensors stay in floating point by rule (norms, conv1d, "
        "biases)\n",
        type, inventory.kept.size());
    return;
  }
  if (recipe) {
    print("recipe {}: yes, every matrix has the type that llama-quantize gives it\n", recipe->name);
    return;
  }
  print("strict {}: no\n", type);
  constexpr std::size_t kShown = 12;
  for (std::size_t i = 0; i < std::min(kShown, inventory.violations.size()); ++i)
    print("  {}\n", inventory.violations[i]);
  if (inventory.violations.size() > kShown)
    print("  and {} more\n", inventory.violations.size() - kShown);
}

void print_file(const gguf::File& file, const gguf::Inventory& inventory,
                const gguf::Recipe* recipe, const Values& values,
                const InspectArguments& arguments) {
  print("{}\n", file.path());
  print("GGUF v{}, {}, {}\n", file.version(),
        file.architecture().empty() ? "no architecture" : file.architecture(),
        human_bytes(inventory.file_bytes));
  if (file.paths().size() > 1) print("{} files\n", file.paths().size());
  print("{} {}, {} parameters, {:.2f} bits a weight ({:.2f} in matrices)\n\n",
        file.tensors().size(), file.tensors().size() == 1 ? "tensor" : "tensors",
        inventory.n_values, inventory.file_bpw, inventory.matrix_bpw);
  for (const auto& [type, per] : inventory.types)
    print("{:<8} {:>5} {:<7} {:>13} parameters {:>12}\n", gguf::traits(type).name, per.n_tensors,
          per.n_tensors == 1 ? "tensor" : "tensors", per.n_values, human_bytes(per.size_bytes));
  print("\n");
  if (arguments.tensors) {
    for (const auto& tensor : file.tensors())
      print("{:<36} {:<6} {}\n", tensor.name, gguf::traits(tensor.type).name, tensor.shape_text());
    print("\n");
  }
  if (arguments.metadata) {
    for (const auto& [key, value] : file.metadata().items())
      print("{} = {}\n", key, value.to_display());
    print("\n");
  }
  print_values(values);
  for (const std::string& text : gguf::load_refusals(file))
    print("llama.cpp refuses it: {}\n", text);
  print_verdict(inventory, recipe);
}

json to_json(const gguf::Difference& difference) {
  const auto text = [](const std::optional<std::string>& side) {
    return side ? json(*side) : json(nullptr);
  };
  json out = {{"identical", difference.identical()},
              {"keys_equal", difference.n_keys_equal},
              {"tensors_equal", difference.n_tensors_equal},
              {"keys", json::array()},
              {"tensors", json::array()}};
  for (const auto& key : difference.keys)
    out["keys"].push_back({{"key", key.key}, {"left", text(key.left)}, {"right", text(key.right)}});
  for (const auto& t : difference.tensors)
    out["tensors"].push_back({{"name", t.name},
                              {"left", text(t.left)},
                              {"right", text(t.right)},
                              {"blocks", t.n_blocks},
                              {"blocks_different", t.n_blocks_different},
                              {"bytes", t.n_bytes},
                              {"bytes_different", t.n_bytes_different}});
  return out;
}

void print_difference(const gguf::Difference& difference) {
  const auto text = [](const std::optional<std::string>& side) {
    return side ? *side : std::string("(absent)");
  };
  for (const auto& key : difference.keys)
    print("{}: {} -> {}\n", key.key, text(key.left), text(key.right));
  for (const auto& t : difference.tensors) {
    if (t.same_layout()) {
      print("{}: {}, {} of {} blocks differ ({:.2f}%)\n", t.name, *t.left, t.n_blocks_different,
            t.n_blocks, 100.0 * t.n_blocks_different / t.n_blocks);
    } else {
      print("{}: {} -> {}\n", t.name, text(t.left), text(t.right));
    }
  }
  print("{} keys and {} tensors are the same, {} keys and {} tensors differ\n",
        difference.n_keys_equal, difference.n_tensors_equal, difference.keys.size(),
        difference.tensors.size());
}

void run(const InspectArguments& arguments) {
  if (!arguments.signals.signals.empty())
    return inspect_signals(arguments.signals, arguments.common);
  if (arguments.files.empty() || arguments.files.size() > 2)
    throw Error(ErrorCode::kBadUsage, fmt::format("{} files to inspect", arguments.files.size()),
                "inspect", "name one, or two to compare; or give --signals");
  if (arguments.files.size() == 2 && (arguments.strict || arguments.tensors || arguments.metadata))
    throw Error(ErrorCode::kBadUsage, "of two files only the differences are shown",
                "--strict, --tensors, --metadata", "inspect one file at a time");
  const auto first = gguf::File::open(arguments.files[0]);
  const auto inventory = gguf::take_inventory(first);
  if (arguments.files.size() == 2) {
    const auto second = gguf::File::open(arguments.files[1]);
    const auto difference = gguf::compare(first, second);
    if (arguments.common.json)
      print_document(json_text(to_json(difference), 2) + "\n");
    else
      print_difference(difference);
    return;
  }
  const gguf::Recipe* recipe = gguf::matching_recipe(first);
  const Values values = look_at_values(first, arguments.common);
  if (arguments.common.json)
    print_document(json_text(to_json(first, inventory, recipe, values), 2) + "\n");
  else
    print_file(first, inventory, recipe, values, arguments);
  const bool as_named = inventory.strict || recipe;
  if (arguments.strict && (!as_named || values.n_not_finite > 0)) throw CLI::RuntimeError(1);
}

}  // namespace

void add_inspect(CLI::App& app) {
  auto arguments = std::make_shared<InspectArguments>();
  auto* verb = app.add_subcommand("inspect",
                                  "Show what a GGUF file is made of, whether it is strict (every "
                                  "matrix of one quantized type), how two files differ, or where "
                                  "errors lie");
  verb->add_option("files", arguments->files,
                   "GGUF file (of a split set, its first part); a second one: print the "
                   "differences; with --signals: any number of quantized files")
      ->type_name("FILE");
  verb->add_flag(
      "--strict", arguments->strict,
      "exit with 1 unless every matrix is of one quantized type, or all are of the types "
      "of one of llama-quantize's mixes, and every value is finite");
  verb->add_flag("--tensors", arguments->tensors, "list every tensor");
  verb->add_flag("--metadata", arguments->metadata, "list every metadata key");
  add_inspect_signals(*verb, arguments->signals);
  add_common(*verb, arguments->common, true);
  verb->footer(
      "Examples:\n"
      "  spectralquant inspect model-q4km.gguf --strict       # exits with 1 and names the "
      "matrices if it is not strict\n"
      "  spectralquant inspect ours.gguf theirs.gguf          # keys and tensors that differ, and "
      "by how many blocks\n"
      "  spectralquant calibrate model-bf16.gguf -o model.signals.gguf --output-moments\n"
      "  spectralquant inspect ours.gguf --signals model.signals.gguf --reference model-bf16.gguf "
      "--measure suites/heldout120.jsonl");
  verb->callback([arguments] {
    arguments->signals.candidates = arguments->files;
    run(*arguments);
  });
}

}  // namespace spectralquant::cli
