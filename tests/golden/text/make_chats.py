#!/usr/bin/env python3
"""Writes chats.json: what stock llama.cpp makes of one conversation in each chat family.

    make_chats.py LIBLLAMA.SO [RUNNER] > chats.json      RUNNER: a program that starts others, if the library needs one

Compiles a small program against the library and calls llama_chat_apply_template() with a template that leads to the family.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

PROGRAM = r"""
#include <cstdio>
#include <vector>
extern "C" {
struct llama_chat_message { const char* role; const char* content; };
int llama_chat_apply_template(const char*, const llama_chat_message*, size_t, bool, char*, int);
}
int main(int n, char** words) {
  std::vector<llama_chat_message> chat;
  for (int i = 2; i + 1 < n; i += 2) chat.push_back({words[i], words[i + 1]});
  std::vector<char> text(1 << 16);
  const int length = llama_chat_apply_template(words[1], chat.data(), chat.size(), false, text.data(), 1 << 16);
  if (length < 0) return 1;
  fwrite(text.data(), 1, length, stdout);
}
"""
MESSAGES = [["system", "Be brief. "], ["user", " Hi"], ["assistant", " Hello "], ["user", "More"], ["assistant", "Yes"]]
TEMPLATES = {
    "chatml": "{{ '<|im_start|>' + role }}",
    "phi4": "'<|im_start|>' + 'user' + '<|im_sep|>' + message['content'] + '<|im_end|>'",
    "kimi-k2": "'<|im_assistant|>assistant<|im_middle|>'",
    "mistral-v7": "'[SYSTEM_PROMPT] ' '[INST] '",
    "mistral-v1": "' [INST] ' + system_message",
    "mistral-v3": "[AVAILABLE_TOOLS] '[INST] '",
    "mistral-v3-tekken": '[AVAILABLE_TOOLS] "[INST]"',
    "llama2": "'[INST] ' + message['content']",
    "llama2-sys": "'[INST] ' + '<<SYS>>'",
    "llama2-sys-bos": "bos_token + '[INST] ' + '<<SYS>>'",
    "llama2-sys-strip": "'[INST] ' + '<<SYS>>' + content.strip()",
    "phi3": "'<|user|>' + '\\n' + '<|end|>' + '<|assistant|>'",
    "glm4": "[gMASK]<sop> '<|user|>'",
    "gemma": "'<start_of_turn>'",
    "command-r": "'<|START_OF_TURN_TOKEN|><|USER_TOKEN|>'",
    "llama3": "'<|start_header_id|>' + role + '<|end_header_id|>'",
    "llama4": "'<|header_start|>' + role + '<|header_end|>'",
    "deepseek2": "'Assistant: ' + message['content'] + eos_token",
    "granite": "'<|start_of_role|>'",
    "seed-oss": "'<seed:bos>'",
}


def main():
    library, runner = sys.argv[1], sys.argv[2:]
    with tempfile.TemporaryDirectory() as folder:
        program = pathlib.Path(folder) / "chat"
        (pathlib.Path(folder) / "chat.cpp").write_text(PROGRAM)
        subprocess.run(["g++", f"{program}.cpp", library, "-Wl,--allow-shlib-undefined", "-o", program], check=True)
        words = [word for message in MESSAGES for word in message]
        cases = []
        for name, template in TEMPLATES.items():
            run = subprocess.run([*runner, program, template, *words], capture_output=True, check=True)
            cases.append({"name": name, "template": template, "text": run.stdout.decode()})
    print(json.dumps({"made": "make_chats.py with libllama 0.7.0 (llama_chat_apply_template)", "messages": MESSAGES, "cases": cases},
                     ensure_ascii=False, indent=1))


if __name__ == "__main__":
    main()
