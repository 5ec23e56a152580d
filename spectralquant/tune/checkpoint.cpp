#include "spectralquant/tune/checkpoint.h"

#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "spectralquant/core/error.h"
#include "spectralquant/core/json_text.h"
#include "spectralquant/gguf/writer.h"

namespace spectralquant::tune {
namespace {

constexpr const char* kType = "spectralquant-tuning";
constexpr const char* kBest = "best/";

nlohmann::json to_json(const DistillReport& report) {
  return {{"n_steps", report.n_steps},           {"steps_done", report.steps_done},
          {"best_step", report.best_step},       {"n_tokens", report.n_tokens},
          {"batch_tokens", report.batch_tokens}, {"calibration_start", report.calibration_start},
          {"held_start", report.held_start},     {"curve", report.curve}};
}

DistillReport from_json(const nlohmann::json& json) {
  DistillReport report;
  json.at("n_steps").get_to(report.n_steps);
  json.at("steps_done").get_to(report.steps_done);
  json.at("best_step").get_to(report.best_step);
  json.at("n_tokens").get_to(report.n_tokens);
  json.at("batch_tokens").get_to(report.batch_tokens);
  json.at("calibration_start").get_to(report.calibration_start);
  json.at("held_start").get_to(report.held_start);
  json.at("curve").get_to(report.curve);
  return report;
}

/// The three tensors of a parameter, with the name each has in the file.
template <typename Visit>
void visit(const std::string& name, Parameter& parameter, const Visit& see) {
  see(name, parameter.value);
  see(name + ".mean", parameter.mean);
  see(name + ".square", parameter.square);
}

}  // namespace

void save_checkpoint(const std::string& path, const std::string& key, const RunState& run,
                     Student& student, const gguf::File& solved) {
  gguf::Metadata metadata;
  metadata.place = path;
  metadata.set("general.type", gguf::Value::of_string(kType));
  metadata.set("spectralquant.key", gguf::Value::of_string(key));
  metadata.set("spectralquant.run", gguf::Value::of_string(json_text(to_json(run.report))));
  std::vector<gguf::TensorPlan> plans;
  for (const auto& [name, bytes] : run.best) {
    const gguf::Tensor& tensor = solved.require(name);
    plans.push_back({kBest + name, tensor.type, tensor.n_dims, tensor.shape});
  }
  std::vector<torch::Tensor*> tensors;
  for (const auto& [name, parameter] : student.state()) {
    visit(name, *parameter, [&](const std::string& part, torch::Tensor& tensor) {
      if (!tensor.defined()) return;
      plans.push_back(
          {part, gguf::Type::F32, 1, {static_cast<std::uint64_t>(tensor.numel()), 1, 1, 1}});
      tensors.push_back(&tensor);
    });
  }
  gguf::WriteOptions options;
  options.overwrite = true;
  gguf::Writer writer(path, metadata, plans, options);
  std::size_t index = 0;
  for (const auto& [name, bytes] : run.best) writer.write(index++, 0, bytes.data(), bytes.size());
  for (const torch::Tensor* tensor : tensors) {
    const torch::Tensor values = tensor->to(torch::kCPU).contiguous();
    writer.write(index++, 0, values.data_ptr<float>(),
                 static_cast<std::size_t>(values.numel()) * sizeof(float));
  }
  writer.commit();
}

bool load_checkpoint(const std::string& path, const std::string& key, RunState& run,
                     Student& student) {
  if (path.empty() || !std::filesystem::exists(path)) return false;
  torch::NoGradGuard no_grad;
  const gguf::File file = gguf::File::open(path);
  if (file.metadata().string_or("spectralquant.key", "") != key) return false;
  run.report =
      from_json(nlohmann::json::parse(file.metadata().require_string("spectralquant.run")));
  run.best.clear();
  for (const gguf::Tensor& tensor : file.tensors()) {
    if (tensor.name.starts_with(kBest))
      run.best[tensor.name.substr(std::strlen(kBest))].assign(tensor.data,
                                                              tensor.data + tensor.size_bytes);
  }
  for (const auto& [name, parameter] : student.state()) {
    visit(name, *parameter,
          [&, value = parameter->value](const std::string& part, torch::Tensor& tensor) {
            const gguf::Tensor* saved = file.find(part);
            if (!saved) return;  // Adam has not seen a gradient of it
            if (!tensor.defined()) tensor = torch::empty_like(value);
            tensor.copy_(decode(*saved).view(value.sizes()));
          });
  }
  return true;
}

bool load_shared_checkpoint(const distribute::Group& group, const std::string& path,
                            const std::string& key, RunState& run, Student& student) {
  const bool found = group.leads() && load_checkpoint(path, key, run, student);
  if (group.alone()) return found;
  if (group.broadcast(found ? "found" : "", 0).empty()) return false;
  torch::NoGradGuard no_grad;
  run.report = from_json(nlohmann::json::parse(group.broadcast(json_text(to_json(run.report)), 0)));
  std::vector<std::string> names;
  for (const auto& [name, bytes] : run.best) names.push_back(name);
  names = nlohmann::json::parse(group.broadcast(json_text(nlohmann::json(names)), 0))
              .get<std::vector<std::string>>();
  for (const std::string& name : names) {
    std::vector<std::byte>& best = run.best[name];
    const std::string bytes =
        group.broadcast(std::string(reinterpret_cast<const char*>(best.data()), best.size()), 0);
    const auto* first = reinterpret_cast<const std::byte*>(bytes.data());
    best.assign(first, first + bytes.size());
  }
  for (const auto& [name, parameter] : student.state()) {
    visit(name, *parameter,
          [&, value = parameter->value](const std::string&, torch::Tensor& tensor) {
            if (group.broadcast(tensor.defined() ? "defined" : "", 0).empty()) return;
            if (!tensor.defined()) tensor = torch::empty_like(value);
            group.broadcast(tensor, 0);
          });
  }
  return true;
}

}  // namespace spectralquant::tune
