// minimal.cpp - completes a picture token by token, and prints the tokens of what was drawn.
//
//   minimal_cpp BUNDLE LIBRARY
#include <igpt.hpp>

#include <iostream>

int main(int count, char **values) try {
  if (count < 3) throw igpt::Error(igpt::Kind::option, "usage: minimal_cpp BUNDLE LIBRARY");
  igpt::OpenOptions options;
  options.library = values[2];
  const igpt::Model model = igpt::Model::open(values[1], options);
  const igpt::Info info = model.info();
  const std::vector<std::uint8_t> rgb{255, 200, 0, 0, 60, 120};  // sunshine over the sea
  igpt::Tokens picture = model.tokens({rgb.data(), rgb.size(), 2, 1});
  picture.resize(picture.size() / 2);
  igpt::Sampling sampling;
  sampling.n = 1, sampling.seed = 7;
  for (const igpt::Step &step : model.start(picture, sampling)) picture.push_back(step.tokens[0]);
  for (std::size_t i = 0; i < picture.size(); i++)
    std::cout << picture[i] << ((i + 1) % static_cast<std::size_t>(info.width) ? ' ' : '\n');
} catch (const igpt::Error &error) {
  std::cerr << error.what() << '\n';
  return 1;
}
