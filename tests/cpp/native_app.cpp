// A program as users write it, for tests/test_native_cpp.py: `app ARTIFACT [LIBRARY]` writes the outputs for the
// artifact's golden inputs to standard output, as they lie in memory; an error is one line, and the exit code 1.
#include <exported_model/exported_model.h>

#include <iostream>

int main(int count, char** arguments) {
  try {
    exported_model::Options options;
    options.threads = 2;
    if (count > 2) options.native_library = arguments[2];
    exported_model::Session session(arguments[1], options);
    for (const auto& [name, one] : exported_model::read_cases(arguments[1]))
      for (const auto& [output, tensor] : session.run(one.inputs))
        std::cout.write(static_cast<const char*>(tensor.data_ptr()), static_cast<std::streamsize>(tensor.nbytes()));
  } catch (const exported_model::Error& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
