// The golden pack through the C functions.
#include "support.hpp"

// Without a library nothing can be tested.
class Library : public testing::Environment {
  void SetUp() override {
    if (library().empty()) GTEST_SKIP() << "set IGPT_ORT_LIBRARY to ONNX Runtime's shared library";
  }
};
static testing::Environment *const environment = testing::AddGlobalTestEnvironment(new Library);

TEST(Golden, Threefry) {
  for (const auto &one : cases()["threefry"]) {
    const auto word = [&](const char *key, size_t i) {
      return std::stoul(one[key][i].get<std::string>(), nullptr, 16);
    };
    const float uniform =
        igpt_uniform(uint64_t{word("key", 0)} << 32 | word("key", 1), static_cast<uint32_t>(word("counter", 0)),
                     static_cast<uint32_t>(word("counter", 1)));
    EXPECT_EQ(uniform, static_cast<float>(word("result", 0) >> 8) / 16777216.0f);
  }
}

TEST(Golden, Uniforms) {
  for (const auto &one : cases()["uniforms"])
    EXPECT_EQ(igpt_uniform(std::stoull(one["seed"].get<std::string>()), one["sample"], one["position"]),
              one["uniform"].get<float>());
}

TEST(Golden, Info) {
  Opened model(golden_bundle());
  ASSERT_EQ(model.status, IGPT_OK) << model.error.message;
  igpt_model_info info = IGPT_MODEL_INFO_INIT;
  ASSERT_EQ(igpt_info(model, &info, nullptr), IGPT_OK);
  EXPECT_STREQ(info.name, "golden");
  EXPECT_STREQ(info.precision, "fp32");
  EXPECT_STREQ(info.kv_cache, "fp32");
  EXPECT_STREQ(info.profile, "fused");
  EXPECT_STREQ(info.function_to_apply, "softmax");
  EXPECT_EQ(info.height, 8);
  EXPECT_EQ(info.width, 8);
  EXPECT_EQ(info.n_positions, 64);
  EXPECT_EQ(info.n_clusters, 16);
  EXPECT_EQ(info.n_layer, 3);
  EXPECT_EQ(info.n_head, 4);
  EXPECT_EQ(info.n_embd, 32);
  ASSERT_EQ(info.n_labels, 3);
  EXPECT_STREQ(info.labels[2], "c");
  EXPECT_EQ(info.temperature, 1);
  EXPECT_EQ(info.top_k, 0);
  EXPECT_EQ(info.top_p, 1);
  EXPECT_NE(library().find(info.onnxruntime), std::string::npos) << info.onnxruntime;
  EXPECT_EQ(igpt_has_graph(model, "decode_shared"), 1);
  EXPECT_EQ(igpt_has_graph(model, "nothing"), 0);
  EXPECT_EQ(igpt_has_graph(model, nullptr), 0);
}

TEST(Golden, Tokens) {
  Opened model(golden_bundle());
  for (const auto &one : cases()["pictures"]) {
    const Picture picture(one["name"]);
    const igpt_image image = picture.image();
    std::vector<int64_t> tokens(64);
    ASSERT_EQ(igpt_tokens(model, &image, tokens.data(), 64, &model.error), IGPT_OK) << model.error.message;
    EXPECT_EQ(nlohmann::json(tokens), one["tokens"]) << one["name"];
  }
}

TEST(Golden, TokensOfTransparentPictures) {
  Opened model(golden_bundle());
  const Picture picture("photo");
  std::vector<uint8_t> rgba, laid;
  for (size_t i = 0; i < picture.rgb.size() / 3; i++) {
    const unsigned alpha = static_cast<unsigned>(i * 37 % 256);
    for (size_t c = 0; c < 3; c++) {
      const unsigned level = picture.rgb[3 * i + c];
      rgba.push_back(static_cast<uint8_t>(level));
      laid.push_back(static_cast<uint8_t>((level * alpha + 255.0 * (255 - alpha)) / 255 + 0.5));
    }
    rgba.push_back(static_cast<uint8_t>(alpha));
  }
  std::vector<int64_t> one(64), other(64);
  igpt_image image = {rgba.data(), rgba.size(), picture.height, picture.width};
  ASSERT_EQ(igpt_tokens(model, &image, one.data(), 64, &model.error), IGPT_OK) << model.error.message;
  image = {laid.data(), laid.size(), picture.height, picture.width};
  ASSERT_EQ(igpt_tokens(model, &image, other.data(), 64, &model.error), IGPT_OK);
  EXPECT_EQ(one, other);
}

TEST(Golden, Images) {
  Opened model(golden_bundle());
  std::vector<int64_t> all;
  std::vector<uint8_t> expected;
  for (const auto &one : cases()["images"]) {
    for (int64_t token : one["tokens"]) all.push_back(token);
    for (uint8_t level : decoded(one["rgb"])) expected.push_back(level);
  }
  std::vector<uint8_t> rgb(expected.size());
  ASSERT_EQ(igpt_images(model, all.data(), all.size() / 64, rgb.data(), rgb.size(), &model.error), IGPT_OK);
  EXPECT_EQ(rgb, expected);
}

static igpt_sampling_options sampling_of(const nlohmann::json &one) {
  igpt_sampling_options options = IGPT_SAMPLING_OPTIONS_INIT;
  options.n = one["n"];
  options.seed = std::stoull(one["seed"].get<std::string>());
  options.temperature = one["temperature"];
  options.top_k = one["top_k"];
  options.top_p = one["top_p"];
  return options;
}

TEST(Golden, HostLoop) {
  Opened model(golden_bundle());
  for (const auto &one : cases()["completions"]) {
    const igpt_sampling_options options = sampling_of(one);
    const Picture picture(one["picture"]);
    const igpt_image image = picture.image();
    std::vector<int64_t> primer(64), tokens(static_cast<size_t>(options.n) * 64);
    ASSERT_EQ(igpt_tokens(model, &image, primer.data(), 64, &model.error), IGPT_OK);
    const size_t keep = one["keep"];
    struct Seen {
      int64_t position, n, drawn, total;
    } seen{static_cast<int64_t>(keep), options.n, 0, options.n * static_cast<int64_t>(64 - keep)};
    const auto on_step = [](void *user, const igpt_step *step) {
      Seen &expected = *static_cast<Seen *>(user);
      EXPECT_EQ(step->position, expected.position++);
      EXPECT_EQ(step->n, expected.n);
      EXPECT_EQ(step->drawn, expected.drawn += expected.n);
      EXPECT_EQ(step->total, expected.total);
      return 0;
    };
    ASSERT_EQ(
        igpt_generate(model, primer.data(), keep, &options, on_step, &seen, tokens.data(), tokens.size(), &model.error),
        IGPT_OK)
        << model.error.message;
    EXPECT_EQ(seen.drawn, seen.total);
    for (size_t i = 0; i < static_cast<size_t>(options.n); i++)
      EXPECT_EQ(nlohmann::json(std::vector<int64_t>(tokens.begin() + static_cast<long>(64 * i),
                                                    tokens.begin() + static_cast<long>(64 * i + 64))),
                one["tokens"][i])
          << one.dump();
  }
}

TEST(Golden, OneCallAndSteps) {
  Opened model(golden_bundle());
  int done = 0;
  for (const auto &one : cases()["completions"]) {
    if (one["keep"].get<int>() % 8 || one["keep"] == 64) continue;  // whole rows, but not all
    const igpt_sampling_options options = sampling_of(one);
    const Picture picture(one["picture"]);
    const igpt_image image = picture.image();
    const size_t n = static_cast<size_t>(options.n);
    std::vector<int64_t> tokens(n * 64), steps(n * 64);
    std::vector<uint8_t> rgb(n * 192), painted(n * 192), expected(n * 192);
    const int64_t rows = one["keep"].get<int64_t>() / 8;
    ASSERT_EQ(igpt_complete(model, &image, rows, &options, rgb.data(), rgb.size(), tokens.data(), tokens.size(),
                            &model.error),
              IGPT_OK)
        << model.error.message;
    for (size_t i = 0; i < n; i++)
      for (size_t j = 0; j < 64; j++) ASSERT_EQ(tokens[64 * i + j], one["tokens"][i][j]);
    ASSERT_EQ(igpt_images(model, tokens.data(), n, expected.data(), expected.size(), &model.error), IGPT_OK);
    EXPECT_EQ(rgb, expected);
    ASSERT_EQ(igpt_complete_steps(model, &image, rows, &options, nullptr, nullptr, painted.data(), painted.size(),
                                  steps.data(), steps.size(), &model.error),
              IGPT_OK)
        << model.error.message;
    EXPECT_EQ(steps, tokens);
    EXPECT_EQ(painted, rgb);
    std::fill(painted.begin(), painted.end(), uint8_t{0});  // and one without the other
    ASSERT_EQ(igpt_complete(model, &image, rows, &options, painted.data(), painted.size(), nullptr, 0, nullptr),
              IGPT_OK);
    EXPECT_EQ(painted, rgb);
    done++;
  }
  EXPECT_GT(done, 0);
}

TEST(Golden, ClassifyFeaturesScore) {
  Opened model(golden_bundle());
  for (const auto &one : cases()["model"]) {
    const Picture picture(one["picture"]);
    const igpt_image image = picture.image();
    std::vector<float> probabilities(3), features(4 * 32), nats(64);
    double mean, alone;
    ASSERT_EQ(igpt_classify(model, &image, probabilities.data(), 3, &model.error), IGPT_OK) << model.error.message;
    ASSERT_EQ(igpt_features(model, &image, features.data(), features.size(), &model.error), IGPT_OK)
        << model.error.message;
    ASSERT_EQ(igpt_score(model, &image, nats.data(), 64, &mean, &model.error), IGPT_OK) << model.error.message;
    for (size_t i = 0; i < 3; i++) EXPECT_NEAR(probabilities[i], one["probabilities"][i].get<double>(), 1e-4);
    for (size_t i = 0; i < 128; i++) EXPECT_NEAR(features[i], one["features"][i / 32][i % 32].get<double>(), 1e-4);
    for (size_t i = 0; i < 64; i++) EXPECT_NEAR(nats[i], one["nats"][i].get<double>(), 1e-3);
    EXPECT_NEAR(mean, one["nats_per_token"].get<double>(), 1e-3);
    ASSERT_EQ(igpt_score(model, &image, nullptr, 0, &alone, &model.error), IGPT_OK);
    EXPECT_EQ(alone, mean);
  }
}

// A sample is the same however many are drawn, with a shared prefix and without.
TEST(Golden, AnyNumberOfRows) {
  for (const std::string &bundle : {golden_bundle(), digits()}) {
    Opened model(bundle);
    ASSERT_EQ(model.status, IGPT_OK) << model.error.message;
    igpt_model_info info = IGPT_MODEL_INFO_INIT;
    ASSERT_EQ(igpt_info(model, &info, nullptr), IGPT_OK);
    const size_t positions = static_cast<size_t>(info.n_positions);
    for (size_t length : {size_t{0}, size_t{1}, size_t{17}, positions - 1, positions}) {
      std::vector<int64_t> primer(length);
      for (size_t i = 0; i < length; i++) primer[i] = static_cast<int64_t>(i * 7) % info.n_clusters;
      igpt_sampling_options options = IGPT_SAMPLING_OPTIONS_INIT;
      options.seed = ~uint64_t{0};
      std::vector<int64_t> all(8 * positions);
      for (int64_t n : {8, 1, 3}) {
        options.n = n;
        std::vector<int64_t> tokens(static_cast<size_t>(n) * positions);
        ASSERT_EQ(igpt_generate(model, primer.data(), length, &options, nullptr, nullptr, tokens.data(), tokens.size(),
                                &model.error),
                  IGPT_OK)
            << model.error.message;
        if (n == 8) all = tokens;
        EXPECT_TRUE(std::equal(tokens.begin(), tokens.end(), all.begin())) << bundle << " " << length << " " << n;
      }
    }
  }
}

// One call and the host loop draw the same digits.
TEST(Golden, DigitsInBothWays) {
  Opened model(digits());
  ASSERT_EQ(model.status, IGPT_OK) << model.error.message;
  igpt_model_info info = IGPT_MODEL_INFO_INIT;
  ASSERT_EQ(igpt_info(model, &info, nullptr), IGPT_OK);
  const Picture picture("photo");
  const igpt_image image = picture.image();
  const size_t count = 4 * static_cast<size_t>(info.n_positions);
  std::vector<int64_t> one(count), other(count);
  for (uint64_t seed = 0; seed < 3; seed++) {
    igpt_sampling_options options = IGPT_SAMPLING_OPTIONS_INIT;
    options.n = 4, options.seed = seed;
    ASSERT_EQ(igpt_complete(model, &image, info.height / 2, &options, nullptr, 0, one.data(), count, &model.error),
              IGPT_OK);
    ASSERT_EQ(igpt_complete_steps(model, &image, info.height / 2, &options, nullptr, nullptr, nullptr, 0, other.data(),
                                  count, &model.error),
              IGPT_OK)
        << model.error.message;
    EXPECT_EQ(one, other);
  }
}
