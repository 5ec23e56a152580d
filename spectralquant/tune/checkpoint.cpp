#include "spectralquant/tune/checkpoint.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "spectralquant/core/error.h"
#include "spectralquant/core/json_text.h"
#include "spectralquant/gguf/writer.h"

namespace spectralquant::tune {
namespace {

constexpr const char* kType = "spectralquant-tuning";

nlohmann::json to_json(const DistillReport& report) {
  nlohmann::json stages = nlohmann::json::array();
  for (const StageReport& stage : report.stages)
    stages.push_back({stage.share, stage.held_before, stage.held_after});
  return {{"n_steps", report.n_steps},
          {"steps_done", report.steps_done},
          {"n_tokens", report.n_tokens},
          {"batch_tokens", report.batch_tokens},
          {"n_stages", report.n_stages},
          {"stages_done", report.stages_done},
          {"stage_steps", report.stage_steps_done},
          {"held_start", report.held_start},
          {"stages", stages}};
}

DistillReport from_json(const nlohmann::json& json) {
  DistillReport report;
  json.at("n_steps").get_to(report.n_steps);
  json.at("steps_done").get_to(report.steps_done);
  json.at("n_tokens").get_to(report.n_tokens);
  json.at("batch_tokens").get_to(report.batch_tokens);
  json.at("n_stages").get_to(report.n_stages);
  json.at("stages_done").get_to(report.stages_done);
  json.at("stage_steps").get_to(report.stage_steps_done);
  json.at("held_start").get_to(report.held_start);
  for (const auto& stage : json.at("stages"))
    report.stages.push_back({stage.at(0), stage.at(1), stage.at(2)});
  return report;
}

gguf::Type type_of(const torch::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case torch::kInt8:
      return gguf::Type::I8;
    case torch::kInt32:
      return gguf::Type::I32;
    default:
      return gguf::Type::F32;
  }
}

torch::Tensor read(const gguf::Tensor& tensor) {
  std::vector<std::int64_t> shape(tensor.shape.begin(), tensor.shape.begin() + tensor.n_dims);
  std::reverse(shape.begin(), shape.end());
  const torch::ScalarType type = tensor.type == gguf::Type::I8    ? torch::kInt8
                                 : tensor.type == gguf::Type::I32 ? torch::kInt32
                                                                  : torch::kFloat32;
  torch::Tensor out = torch::empty(shape, type);
  std::memcpy(out.data_ptr(), tensor.data, tensor.size_bytes);
  return out;
}

/// In place where there is a tensor: others may share its memory.
void put(const torch::Tensor& value, torch::Tensor& tensor, torch::Device device) {
  if (tensor.defined()) {
    tensor.copy_(value);
  } else {
    tensor = value.to(device);
  }
}

}  // namespace

void save_checkpoint(const std::string& path, const std::string& key, const DistillReport& report,
                     Student& student) {
  torch::NoGradGuard no_grad;
  gguf::Metadata metadata;
  metadata.place = path;
  metadata.set("general.type", gguf::Value::of_string(kType));
  metadata.set("spectralquant.key", gguf::Value::of_string(key));
  metadata.set("spectralquant.run", gguf::Value::of_string(json_text(to_json(report))));
  std::vector<gguf::TensorPlan> plans;
  std::vector<torch::Tensor> tensors;
  student.visit_state([&](const std::string& name, const torch::Tensor& tensor) {
    if (!tensor.defined()) return;
    gguf::TensorPlan plan{
        name, type_of(tensor), static_cast<std::uint32_t>(tensor.dim()), {1, 1, 1, 1}};
    for (std::int64_t i = 0; i < tensor.dim(); ++i)
      plan.shape[static_cast<std::size_t>(i)] =
          static_cast<std::uint64_t>(tensor.size(tensor.dim() - 1 - i));
    plans.push_back(plan);
    tensors.push_back(tensor);
  });
  gguf::WriteOptions options;
  options.overwrite = true;
  gguf::Writer writer(path, metadata, plans, options);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const torch::Tensor values = tensors[i].detach().to(torch::kCPU).contiguous();
    writer.write(i, 0, values.data_ptr(), values.nbytes());
  }
  writer.commit();
}

bool load_checkpoint(const std::string& path, const std::string& key, DistillReport& report,
                     Student& student, torch::Device device) {
  if (path.empty() || !std::filesystem::exists(path)) return false;
  torch::NoGradGuard no_grad;
  const gguf::File file = gguf::File::open(path);
  if (file.metadata().string_or("spectralquant.key", "") != key) return false;
  report = from_json(nlohmann::json::parse(file.metadata().require_string("spectralquant.run")));
  student.visit_state([&](const std::string& name, torch::Tensor& tensor) {
    // what is missing was not there yet: Adam had not seen a gradient of it
    if (const gguf::Tensor* saved = file.find(name)) put(read(*saved), tensor, device);
  });
  student.restored();
  return true;
}

void share_student(const distribute::Group& group, Student& student, torch::Device device) {
  if (group.alone()) return;
  torch::NoGradGuard no_grad;
  student.visit_state([&](const std::string&, torch::Tensor& tensor) {
    // shape and type first: the others may not have it
    std::vector<std::int64_t> facts;
    if (tensor.defined()) {
      facts = tensor.sizes().vec();
      facts.push_back(static_cast<std::int64_t>(tensor.scalar_type()));
    }
    facts = nlohmann::json::parse(group.broadcast(json_text(nlohmann::json(facts)), 0))
                .get<std::vector<std::int64_t>>();
    if (facts.empty()) return;
    const auto type = static_cast<torch::ScalarType>(facts.back());
    facts.pop_back();
    if (!tensor.defined()) tensor = torch::empty(facts, torch::dtype(type).device(device));
    torch::Tensor values = tensor.detach().contiguous();
    group.broadcast(values, 0);
    if (values.data_ptr() != tensor.data_ptr()) tensor.copy_(values);
  });
  student.restored();
}

bool load_shared_checkpoint(const distribute::Group& group, const std::string& path,
                            const std::string& key, DistillReport& report, Student& student,
                            torch::Device device) {
  const bool found = group.leads() && load_checkpoint(path, key, report, student, device);
  if (group.alone()) return found;
  if (group.broadcast(found ? "found" : "", 0).empty()) return false;
  report = from_json(nlohmann::json::parse(group.broadcast(json_text(to_json(report)), 0)));
  share_student(group, student, device);
  return true;
}

}  // namespace spectralquant::tune
