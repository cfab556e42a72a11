// loop BUNDLE N REPEATS: as loop.c.
#include <chrono>
#include <cstdlib>
#include <igpt.hpp>
#include <iostream>

int main(int, char **argv) try {
  const std::uint8_t grey[] = {128, 128, 128};
  igpt::OpenOptions opening;
  opening.runtime_library = std::getenv("IGPT_ORT_LIBRARY");
  opening.spinning = true;
  const auto model = igpt::Model::open(argv[1], opening);
  igpt::Sampling sampling;
  sampling.n = std::atoi(argv[2]);
  auto primer = model.tokens({grey, sizeof grey, 1, 1});
  primer.resize(primer.size() / 2);
  igpt::Pictures drawn;
  for (int i = 0; i <= std::atoi(argv[3]); i++) {
    const auto start = std::chrono::steady_clock::now();
    drawn = model.generate(primer, sampling);
    if (i) std::cout << std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() << ' ';
  }
  std::cout << '\n';
  for (const auto token : drawn.tokens) std::cout << token << ' ';
  std::cout << '\n';
} catch (const igpt::Error &error) {
  std::cerr << error.what() << '\n';
  return 1;
}
