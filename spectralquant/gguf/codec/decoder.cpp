#include "spectralquant/gguf/codec/decoder.h"

#include "spectralquant/gguf/codec/formats.h"

namespace spectralquant::gguf {

RowDecoder find_decoder(Type type) {
  switch (type) {
    case Type::F32:
      return codec::decode_f32;
    case Type::F16:
      return codec::decode_f16;
    case Type::BF16:
      return codec::decode_bf16;
    case Type::Q4_0:
      return codec::decode_q4_0;
    case Type::Q4_1:
      return codec::decode_q4_1;
    case Type::Q5_0:
      return codec::decode_q5_0;
    case Type::Q5_1:
      return codec::decode_q5_1;
    case Type::Q8_0:
      return codec::decode_q8_0;
    case Type::Q2_K:
      return codec::decode_q2_k;
    case Type::Q3_K:
      return codec::decode_q3_k;
    case Type::Q4_K:
      return codec::decode_q4_k;
    case Type::Q5_K:
      return codec::decode_q5_k;
    case Type::Q6_K:
      return codec::decode_q6_k;
    case Type::IQ4_NL:
      return codec::decode_iq4_nl;
    case Type::IQ4_XS:
      return codec::decode_iq4_xs;
    case Type::IQ2_XXS:
      return codec::decode_iq2_xxs;
    case Type::IQ2_XS:
      return codec::decode_iq2_xs;
    case Type::IQ2_S:
      return codec::decode_iq2_s;
    case Type::IQ3_XXS:
      return codec::decode_iq3_xxs;
    case Type::IQ3_S:
      return codec::decode_iq3_s;
    case Type::IQ1_S:
      return codec::decode_iq1_s;
    case Type::IQ1_M:
      return codec::decode_iq1_m;
    case Type::TQ1_0:
      return codec::decode_tq1_0;
    case Type::TQ2_0:
      return codec::decode_tq2_0;
    case Type::Q1_0:
      return codec::decode_q1_0;
    case Type::Q2_0:
      return codec::decode_q2_0;
    case Type::MXFP4:
      return codec::decode_mxfp4;
    case Type::NVFP4:
      return codec::decode_nvfp4;
    default:
      return nullptr;
  }
}

}  // namespace spectralquant::gguf
