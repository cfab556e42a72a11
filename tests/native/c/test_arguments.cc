// Arguments that are refused, and handles that are closed.
#include "support.hpp"

#include <cmath>
#include <limits>

class Arguments : public testing::Test {
 protected:
  Opened model{golden_bundle()};
  igpt_error error{};
  const Picture picture{"photo"};
  igpt_image image = picture.image();
  std::vector<int64_t> tokens = std::vector<int64_t>(8 * 64);
  std::vector<uint8_t> rgb = std::vector<uint8_t>(8 * 192);
  igpt_status complete(const igpt_image *given, int64_t keep, const igpt_sampling_options *options) {
    return igpt_complete(model, given, keep, options, rgb.data(), rgb.size(), tokens.data(), tokens.size(), &error);
  }
  igpt_status steps(const igpt_image *given, int64_t keep, const igpt_sampling_options *options) {
    return igpt_complete_steps(model, given, keep, options, nullptr, nullptr, rgb.data(), rgb.size(), tokens.data(),
                               tokens.size(), &error);
  }
};

TEST_F(Arguments, Sampling) {
  const double nan = std::nan(""), infinity = std::numeric_limits<double>::infinity();
  const auto refused = [&](auto change) {
    igpt_sampling_options options = IGPT_SAMPLING_OPTIONS_INIT;
    change(options);
    EXPECT_FAILS(IGPT_ERROR_OPTION, complete(&image, 2, &options));
    EXPECT_FAILS(IGPT_ERROR_OPTION, steps(&image, 2, &options));
    igpt_run *run = nullptr;
    EXPECT_FAILS(IGPT_ERROR_OPTION, igpt_start(model, nullptr, 0, &options, &run, &error));
    EXPECT_EQ(run, nullptr);
  };
  for (int64_t n : {int64_t{0}, int64_t{-3}, int64_t{65537}, INT64_MAX, INT64_MIN}) refused([n](auto &o) { o.n = n; });
  for (double t : {nan, infinity, -infinity, -1.0, -1e-300}) refused([t](auto &o) { o.temperature = t; });
  for (int64_t k : {int64_t{-1}, INT64_MIN}) refused([k](auto &o) { o.top_k = k; });
  for (double p : {nan, infinity, 0.0, -0.0, -1.0, 1.0000001, 2.0}) refused([p](auto &o) { o.top_p = p; });
  for (size_t size : {size_t{0}, size_t{8}, size_t{1} << 40}) refused([size](auto &o) { o.size = size; });
  igpt_sampling_options options = IGPT_SAMPLING_OPTIONS_INIT;  // the borders
  options.n = 1, options.temperature = 1e300, options.top_k = INT64_MAX, options.top_p = 1e-300,
  options.seed = UINT64_MAX;
  EXPECT_EQ(complete(&image, 2, &options), IGPT_OK) << error.message;
  const auto drawn = tokens;
  EXPECT_EQ(steps(&image, 2, &options), IGPT_OK) << error.message;
  EXPECT_EQ(tokens, drawn);
}

TEST_F(Arguments, KeepRows) {
  for (int64_t keep : {int64_t{-1}, int64_t{8}, int64_t{99}, INT64_MAX, INT64_MIN}) {
    EXPECT_FAILS(IGPT_ERROR_OPTION, complete(&image, keep, nullptr));
    EXPECT_FAILS(IGPT_ERROR_OPTION, steps(&image, keep, nullptr));
  }
  EXPECT_EQ(complete(&image, 7, nullptr), IGPT_OK) << error.message;
  EXPECT_EQ(complete(&image, 0, nullptr), IGPT_OK) << error.message;
}

TEST_F(Arguments, Pictures) {
  const uint8_t *data = image.data;
  const igpt_image wrong[] = {
      {nullptr, 3, 1, 1},
      {data, 0, 0, 0},
      {data, 0, 0, 5},
      {data, 3, -1, -1},
      {data, 3, 1, 2},
      {data, 5, 1, 1},
      {data, 3, INT64_MAX, 1},
      {data, 3, INT64_MAX, INT64_MAX},
      {data, 3, 65536, 1},
      {data, 3, 1, 65536},
      {data, 3, 65535, 65535},
      {data, SIZE_MAX, 1, 1},
      {data, 3, INT64_MIN, 1},
      {data, 3, 4294967297, 1},
      {data, 0, INT64_MIN, INT64_MIN},
  };
  std::vector<float> floats(1000);
  double mean;
  const igpt_image *list[sizeof wrong / sizeof *wrong + 1] = {};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) list[i] = &wrong[i];
  for (const igpt_image *one : list) {  // the last one is NULL
    EXPECT_FAILS(IGPT_ERROR_IMAGE, complete(one, 2, nullptr));
    EXPECT_FAILS(IGPT_ERROR_IMAGE, steps(one, 0, nullptr));
    EXPECT_FAILS(IGPT_ERROR_IMAGE, igpt_tokens(model, one, tokens.data(), tokens.size(), &error));
    EXPECT_FAILS(IGPT_ERROR_IMAGE, igpt_classify(model, one, floats.data(), floats.size(), &error));
    EXPECT_FAILS(IGPT_ERROR_IMAGE, igpt_features(model, one, floats.data(), floats.size(), &error));
    EXPECT_FAILS(IGPT_ERROR_IMAGE, igpt_score(model, one, floats.data(), floats.size(), &mean, &error));
  }
}

TEST_F(Arguments, Room) {
  std::vector<float> floats(1000);
  EXPECT_FAILS(IGPT_ERROR_OPTION,
               igpt_complete(model, &image, 2, nullptr, rgb.data(), 8 * 192 - 1, nullptr, 0, &error));
  EXPECT_FAILS(IGPT_ERROR_OPTION,
               igpt_complete(model, &image, 2, nullptr, nullptr, 0, tokens.data(), 8 * 64 - 1, &error));
  EXPECT_FAILS(IGPT_ERROR_OPTION, igpt_complete(model, &image, 2, nullptr, nullptr, 0, nullptr, 0, &error));
  EXPECT_FAILS(IGPT_ERROR_OPTION,
               igpt_complete_steps(model, &image, 2, nullptr, nullptr, nullptr, rgb.data(), 3, nullptr, 0, &error));
  EXPECT_FAILS(IGPT_ERROR_OPTION,
               igpt_generate(model, nullptr, 0, nullptr, nullptr, nullptr, tokens.data(), 511, &error));
  EXPECT_FAILS(IGPT_ERROR_OPTION, igpt_classify(model, &image, floats.data(), 2, &error));
  EXPECT_FAILS(IGPT_ERROR_OPTION, igpt_classify(model, &image, nullptr, 3, &error));
  EXPECT_FAILS(IGPT_ERROR_OPTION, igpt_features(model, &image, floats.data(), 127, &error));
  EXPECT_FAILS(IGPT_ERROR_OPTION, igpt_score(model, &image, floats.data(), 63, nullptr, &error));
  EXPECT_FAILS(IGPT_ERROR_OPTION, igpt_tokens(model, &image, tokens.data(), 63, &error));
  EXPECT_FAILS(IGPT_ERROR_OPTION, igpt_images(model, tokens.data(), 8, rgb.data(), rgb.size() - 1, &error));
  EXPECT_FAILS(IGPT_ERROR_OPTION, igpt_images(model, tokens.data(), 0, rgb.data(), rgb.size(), &error));
  EXPECT_FAILS(IGPT_ERROR_OPTION, igpt_images(model, tokens.data(), SIZE_MAX, rgb.data(), rgb.size(), &error));
  EXPECT_FAILS(IGPT_ERROR_OPTION, igpt_images(model, nullptr, 1, rgb.data(), rgb.size(), &error));
  igpt_model_info info = IGPT_MODEL_INFO_INIT;
  info.size--;
  EXPECT_FAILS(IGPT_ERROR_OPTION, igpt_info(model, &info, &error));
  EXPECT_FAILS(IGPT_ERROR_OPTION, igpt_info(model, nullptr, &error));
}

TEST_F(Arguments, Tokens) {
  igpt_run *run = nullptr;
  std::vector<int64_t> primer(65);
  EXPECT_FAILS(IGPT_ERROR_OPTION, igpt_start(model, primer.data(), 65, nullptr, &run, &error));
  EXPECT_FAILS(IGPT_ERROR_OPTION, igpt_start(model, nullptr, 3, nullptr, &run, &error));
  EXPECT_FAILS(IGPT_ERROR_OPTION, igpt_start(model, nullptr, 0, nullptr, nullptr, &error));
  EXPECT_FAILS(IGPT_ERROR_OPTION, igpt_start(model, primer.data(), SIZE_MAX, nullptr, &run, &error));
  for (int64_t token : {int64_t{16}, int64_t{-1}, INT64_MAX, INT64_MIN}) {
    primer[3] = tokens[3] = token;
    EXPECT_FAILS(IGPT_ERROR_OPTION, igpt_start(model, primer.data(), 4, nullptr, &run, &error));
    EXPECT_FAILS(IGPT_ERROR_OPTION, igpt_images(model, tokens.data(), 1, rgb.data(), rgb.size(), &error));
  }
  EXPECT_EQ(igpt_start(model, primer.data(), 3, nullptr, &run, nullptr), IGPT_OK);
  igpt_finish(&run);
}

TEST_F(Arguments, ClosedHandles) {
  igpt_model *closed = nullptr;
  float value;
  igpt_model_info info = IGPT_MODEL_INFO_INIT;
  igpt_canceller *canceller = nullptr;
  igpt_run *run = nullptr;
  igpt_step step;
  EXPECT_FAILS(IGPT_ERROR_STATE, igpt_info(closed, &info, &error));
  EXPECT_FAILS(IGPT_ERROR_STATE, igpt_complete(closed, &image, 2, nullptr, rgb.data(), rgb.size(), nullptr, 0, &error));
  EXPECT_FAILS(IGPT_ERROR_STATE, igpt_complete_steps(closed, &image, 2, nullptr, nullptr, nullptr, rgb.data(),
                                                     rgb.size(), nullptr, 0, &error));
  EXPECT_FAILS(IGPT_ERROR_STATE, igpt_classify(closed, &image, &value, 1, &error));
  EXPECT_FAILS(IGPT_ERROR_STATE, igpt_features(closed, &image, &value, 1, &error));
  EXPECT_FAILS(IGPT_ERROR_STATE, igpt_score(closed, &image, nullptr, 0, nullptr, &error));
  EXPECT_FAILS(IGPT_ERROR_STATE, igpt_tokens(closed, &image, tokens.data(), 64, &error));
  EXPECT_FAILS(IGPT_ERROR_STATE, igpt_images(closed, tokens.data(), 1, rgb.data(), rgb.size(), &error));
  EXPECT_FAILS(IGPT_ERROR_STATE, igpt_start(closed, nullptr, 0, nullptr, &run, &error));
  EXPECT_FAILS(IGPT_ERROR_STATE, igpt_generate(closed, nullptr, 0, nullptr, nullptr, nullptr, nullptr, 0, &error));
  EXPECT_FAILS(IGPT_ERROR_STATE, igpt_next(run, &step, &error));
  EXPECT_FAILS(IGPT_ERROR_STATE, igpt_canceller_create(closed, &canceller, &error));
  EXPECT_EQ(igpt_has_graph(closed, "complete"), 0);
  igpt_close(&closed);
  igpt_close(nullptr);
  igpt_finish(&run);
  igpt_finish(nullptr);
  igpt_cancel(nullptr);
  igpt_canceller_free(&canceller);
  igpt_canceller_free(nullptr);
}

TEST_F(Arguments, RunOutlivesItsModel) {
  igpt_run *run = nullptr;
  igpt_step step;
  ASSERT_EQ(igpt_start(model, nullptr, 0, nullptr, &run, &error), IGPT_OK) << error.message;
  ASSERT_EQ(igpt_next(run, &step, &error), IGPT_OK) << error.message;
  igpt_close(&model.model);
  EXPECT_EQ(model.model, nullptr);
  EXPECT_FAILS(IGPT_ERROR_STATE, igpt_next(run, &step, &error));
  igpt_finish(&run);
  EXPECT_EQ(run, nullptr);
}

TEST_F(Arguments, RunsInTurn) {  // two runs of one model, and other calls in between
  igpt_run *one = nullptr, *two = nullptr;
  igpt_step step;
  igpt_sampling_options options = IGPT_SAMPLING_OPTIONS_INIT;
  std::vector<int64_t> primer(20), first, second, third(512);
  ASSERT_EQ(igpt_start(model, primer.data(), 20, &options, &one, &error), IGPT_OK) << error.message;  // decode_shared
  options.n = 1;
  ASSERT_EQ(igpt_start(model, primer.data(), 20, &options, &two, &error), IGPT_OK) << error.message;  // decode
  double mean;
  for (int position = 20; position < 64; position++) {
    ASSERT_EQ(igpt_next(one, &step, &error), IGPT_OK) << error.message;
    first.push_back(step.tokens[0]);
    ASSERT_EQ(igpt_next(two, &step, &error), IGPT_OK) << error.message;
    second.push_back(step.tokens[0]);
    ASSERT_EQ(igpt_score(model, &image, nullptr, 0, &mean, &error), IGPT_OK) << error.message;
  }
  EXPECT_EQ(igpt_next(one, &step, &error), IGPT_DONE);
  EXPECT_EQ(igpt_next(one, &step, &error), IGPT_DONE);
  igpt_finish(&one);
  igpt_finish(&two);
  EXPECT_EQ(first, second);
  ASSERT_EQ(igpt_generate(model, primer.data(), 20, nullptr, nullptr, nullptr, third.data(), 512, &error), IGPT_OK);
  EXPECT_TRUE(std::equal(first.begin(), first.end(), third.begin() + 20));
}

TEST_F(Arguments, CallbackMayUseTheModel) {
  struct State {
    igpt_model *model;
    const igpt_image *image;
    int calls;
  } state{model, &image, 0};
  const auto on_step = [](void *user, const igpt_step *) {
    State &s = *static_cast<State *>(user);
    EXPECT_EQ(igpt_score(s.model, s.image, nullptr, 0, nullptr, nullptr), IGPT_OK);
    return ++s.calls == 3 ? 1 : 0;
  };
  EXPECT_FAILS(IGPT_ERROR_CANCELLED, igpt_generate(model, nullptr, 0, nullptr, on_step, &state, nullptr, 0, &error));
  EXPECT_EQ(state.calls, 3);
}
