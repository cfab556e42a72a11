// The C++ header: the golden pack, errors, ranges.
#include "support.hpp"

#include <igpt.hpp>

#include <thread>
#include <type_traits>

static igpt::OpenOptions cpp_options() {
  igpt::OpenOptions options;
  options.runtime_library = library();
  options.threads = 1;
  return options;
}
static igpt::Model open() {
  return igpt::Model::open(golden_bundle(), cpp_options());
}

template <class Call>
void expect_kind(igpt::Kind kind, Call call) {
  try {
    call();
    ADD_FAILURE() << "nothing was thrown";
  } catch (const igpt::Error &error) {
    EXPECT_EQ(static_cast<int>(error.kind()), static_cast<int>(kind)) << error.what();
    EXPECT_NE(error.what()[0], 0);
  }
}

static igpt::Sampling sampling_of(const nlohmann::json &one) {
  igpt::Sampling sampling;
  sampling.n = one["n"];
  sampling.seed = std::stoull(one["seed"].get<std::string>());
  sampling.temperature = one["temperature"].get<double>();
  sampling.top_k = one["top_k"].get<int64_t>();
  sampling.top_p = one["top_p"].get<double>();
  return sampling;
}

TEST(Cpp, MoveOnly) {
  static_assert(std::is_nothrow_move_constructible_v<igpt::Model> && !std::is_copy_constructible_v<igpt::Model>);
  static_assert(std::is_nothrow_move_constructible_v<igpt::Run> && !std::is_copy_constructible_v<igpt::Run>);
  static_assert(std::is_nothrow_move_constructible_v<igpt::Canceller> &&
                !std::is_copy_constructible_v<igpt::Canceller>);
  igpt::Model model = open(), other = std::move(model);
  EXPECT_EQ(other.info().name, "golden");
  expect_kind(igpt::Kind::state, [&] { model.info(); });  // NOLINT: what was moved from
  other.close();
  expect_kind(igpt::Kind::state, [&] { other.classify(Picture("photo").image()); });
}

TEST(Cpp, Info) {
  const igpt::Info info = open().info();
  EXPECT_EQ(info.labels, (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(info.function_to_apply, "softmax");
  EXPECT_EQ(info.height * info.width, info.n_positions);
  EXPECT_TRUE(open().has_graph("complete"));
}

TEST(Cpp, Golden) {
  const igpt::Model model = open();
  for (const auto &one : cases()["uniforms"])
    EXPECT_EQ(igpt::uniform(std::stoull(one["seed"].get<std::string>()), one["sample"], one["position"]),
              one["uniform"].get<float>());
  for (const auto &one : cases()["pictures"])
    EXPECT_EQ(nlohmann::json(model.tokens(Picture(one["name"]).image())), one["tokens"]);
  for (const auto &one : cases()["images"]) {
    const igpt::Pictures made = model.images(one["tokens"].get<igpt::Tokens>());
    EXPECT_EQ(made.n, 1u);
    EXPECT_EQ(made.rgb, decoded(one["rgb"]));
  }
  for (const auto &one : cases()["completions"]) {
    const Picture picture(one["picture"]);
    const igpt::Sampling sampling = sampling_of(one);
    igpt::Tokens primer = model.tokens(picture.image());
    primer.resize(one["keep"].get<size_t>());
    const igpt::Pictures made = model.generate(primer, sampling);
    for (size_t i = 0; i < made.n; i++) {
      const auto row = made.tokens_of(i);
      EXPECT_EQ(nlohmann::json(igpt::Tokens(row.begin(), row.end())), one["tokens"][i]);
      EXPECT_EQ(made.rgb_of(i).size(), 192u);
    }
    if (primer.size() % 8 || primer.size() == 64) continue;
    const auto rows = static_cast<int64_t>(primer.size() / 8);
    const igpt::Pictures once = model.complete(picture.image(), rows, sampling);
    EXPECT_EQ(once.tokens, made.tokens);
    EXPECT_EQ(once.rgb, made.rgb);
    EXPECT_EQ(model.complete_steps(picture.image(), rows, sampling).tokens, made.tokens);
  }
  for (const auto &one : cases()["model"]) {
    const Picture picture(one["picture"]);
    const auto classes = model.classify(picture.image());
    ASSERT_EQ(classes.size(), 3u);
    EXPECT_TRUE(classes[0].value >= classes[1].value && classes[1].value >= classes[2].value);
    for (const auto &each : classes)
      EXPECT_NEAR(each.value, one["probabilities"][static_cast<size_t>(each.label[0] - 'a')].get<double>(), 1e-4);
    const igpt::Features features = model.features(picture.image());
    ASSERT_EQ(features.rows, 4u);
    for (size_t i = 0; i < 4; i++)
      for (size_t j = 0; j < 32; j++) EXPECT_NEAR(features.row(i)[j], one["features"][i][j].get<double>(), 1e-4);
    const igpt::Score score = model.score(picture.image());
    for (size_t i = 0; i < 64; i++) EXPECT_NEAR(score.nats[i], one["nats"][i].get<double>(), 1e-3);
    EXPECT_NEAR(score.nats_per_token, one["nats_per_token"].get<double>(), 1e-3);
  }
}

TEST(Cpp, RangeOfSteps) {
  const igpt::Model model = open();
  const igpt::Tokens primer{1, 2, 3};
  igpt::Sampling sampling;
  sampling.n = 2, sampling.seed = 9;
  const igpt::Pictures whole = model.generate(primer, sampling);
  igpt::Run run = model.start(primer, sampling);
  int64_t position = 3;
  for (const igpt::Step &step : run) {
    EXPECT_EQ(step.position, position++);
    ASSERT_EQ(step.tokens.size(), 2u);
    EXPECT_EQ(step.tokens[1], whole.tokens_of(1)[static_cast<size_t>(step.position)]);
    EXPECT_EQ(step.total, 2 * 61);
  }
  EXPECT_EQ(position, 64);
  EXPECT_FALSE(run.next());
  igpt::Run left = model.start({}, sampling);  // and one that is left early
  EXPECT_TRUE(left.next());
  EXPECT_EQ(model.sample(sampling).n, 2u);
}

TEST(Cpp, Callback) {
  const igpt::Model model = open();
  int64_t drawn = 0;
  model.sample({}, [&](const igpt::Step &step) { return drawn = step.drawn, true; });
  EXPECT_EQ(drawn, 8 * 64);
  expect_kind(igpt::Kind::cancelled,
              [&] { model.sample({}, [](const igpt::Step &step) { return step.position < 5; }); });
  EXPECT_THROW(model.sample({}, [](const igpt::Step &) -> bool { throw std::logic_error("own"); }), std::logic_error);
  EXPECT_EQ(model.sample().n, 8u);
}

TEST(Cpp, Cancel) {
  const igpt::Model model = open();
  igpt::Canceller canceller = model.canceller();
  igpt::Sampling sampling;
  sampling.canceller = &canceller;
  bool begun = false;
  std::thread other;
  expect_kind(igpt::Kind::cancelled, [&] {
    model.sample(sampling, [&](const igpt::Step &) {
      if (!begun) other = std::thread([&] { canceller.cancel(); }), other.join();
      return begun = true;
    });
  });
  expect_kind(igpt::Kind::cancelled, [&] { model.complete(Picture("photo").image(), 2, sampling); });
}

TEST(Cpp, Errors) {
  const igpt::Model model = open();
  const Picture picture("photo");
  igpt::Sampling sampling;
  expect_kind(igpt::Kind::bundle, [] { igpt::Model::open("/nonexistent", cpp_options()); });
  expect_kind(igpt::Kind::runtime, [] {
    auto options = cpp_options();
    options.runtime_library = "/nonexistent";
    igpt::Model::open(golden_bundle(), options);
  });
  expect_kind(igpt::Kind::runtime, [] {
    auto options = cpp_options();
    options.provider = igpt::Provider::cuda;
    igpt::Model::open(golden_bundle(), options);
  });
  expect_kind(igpt::Kind::image, [&] { model.complete({picture.rgb.data(), 5, 1, 1}); });
  expect_kind(igpt::Kind::option, [&] { model.complete(picture.image(), 8); });
  expect_kind(igpt::Kind::option, [&] { model.complete_steps(picture.image(), -1); });
  expect_kind(igpt::Kind::option, [&] { model.generate(igpt::Tokens{99}); });
  expect_kind(igpt::Kind::option, [&] { model.images(igpt::Tokens(63)); });
  sampling.temperature = -1;
  expect_kind(igpt::Kind::option, [&] { model.complete(picture.image(), 2, sampling); });
  sampling = {};
  for (int64_t n : {int64_t{0}, int64_t{-3}, INT64_MAX}) {
    sampling.n = n;
    expect_kind(igpt::Kind::option, [&] { model.complete(picture.image(), 2, sampling); });
    expect_kind(igpt::Kind::option, [&] { model.sample(sampling); });
  }
}

TEST(Cpp, FromMemory) {
  const Bytes graph = read(golden_bundle() + "/complete.onnx"), file = read(golden_bundle() + "/weights.safetensors");
  const std::vector<uint8_t> weights(file.begin(), file.end());
  const std::vector<igpt::Graph> graphs{{"complete", graph.data(), graph.size()}};
  const igpt::Model model = igpt::Model::open_memory(graphs, weights, cpp_options());
  const Picture picture("photo");
  EXPECT_EQ(model.complete(picture.image()).tokens, open().complete(picture.image()).tokens);
  expect_kind(igpt::Kind::bundle, [&] { igpt::Model::open_memory(graphs, {}, cpp_options()); });
}
