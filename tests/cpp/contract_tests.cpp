// The header that export-model wrote for one artifact: typed, and refused by any other artifact.

#include <contract.h>

#include "expect.h"

int main(int, char** argv) {
  const std::string data = argv[1];
  static_assert(contract::kLabels.size() == 3 && contract::kLabels[2] == "LABEL_2");
  static_assert(contract::kTask == "text-classification" && contract::kPrecision == "bf16" && contract::kBackend == "onednn");
  static_assert(contract::kMaxSequence == 512 && contract::kMinBatch == 1 && contract::kMaxValueOfInputIds == 299);
  static_assert(contract::kArtifactSha256.size() == 64);
  try {
    const contract::Model model(data + "/onednn-bf16.pt");
    contract::Inputs inputs;
    inputs.input_ids = at::full({2, 7}, 11, at::kLong);
    const contract::Outputs outputs = model.run(inputs);
    EXPECT(outputs.logits.size(0) == 2 && outputs.logits.size(1) == 3);
    EXPECT(at::equal(outputs.logits, model.session().run(inputs.tensors()).at("logits")));
    inputs.input_ids = at::Tensor();
    expect_throw<exported_model::InputNameError>([&] { model.run(inputs); }, "input 'input_ids' is missing");
    expect_throw<exported_model::ContractError>([&] { contract::Model(data + "/plain-fp32.pt"); }, "is not the artifact that this program was compiled for");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
