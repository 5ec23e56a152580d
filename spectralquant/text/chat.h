#pragma once
#include <string>
#include <vector>

#include "spectralquant/gguf/metadata.h"

namespace spectralquant::text {

struct Message {
  std::string role;  ///< "system", "user", "assistant", "tool"
  std::string content;
};

/// The markers a model was trained to see around chat turns, found in its chat template or its
/// vocabulary.
///
/// Known families: ChatML, Llama 3, Gemma, Mistral, Phi 3, Zephyr; anything else is rendered
/// plainly as "role: content" lines and says so in `name`. Not a Jinja engine: tools and thinking
/// switches of a template are not run. BOS is not rendered: the tokenizer puts it first where the
/// model wants it.
class ChatFormat {
 public:
  static ChatFormat from_metadata(const gguf::Metadata& metadata);
  std::string render(const std::vector<Message>& messages) const;
  const std::string& name() const { return name_; }  ///< "chatml", "llama3", …, "plain"

 private:
  std::string name_;
  std::string end_of_turn_;  ///< text of the EOS token, for the families that end a turn with it
};

}  // namespace spectralquant::text
