// Cancelling, and several threads.
#include "support.hpp"

#include <atomic>
#include <chrono>
#include <thread>

class Threads : public testing::Test {
 protected:
  igpt_error error{};
  igpt_canceller *canceller = nullptr;
  const Picture picture{"photo"};
  igpt_image image = picture.image();
  igpt_sampling_options options = IGPT_SAMPLING_OPTIONS_INIT;
  void cancellable(igpt_model *model) {
    ASSERT_EQ(igpt_canceller_create(model, &canceller, &error), IGPT_OK) << error.message;
    options.canceller = canceller;
  }
  void TearDown() override { igpt_canceller_free(&canceller); }
};

TEST_F(Threads, CancelBefore) {
  Opened model(golden_bundle());
  cancellable(model);
  igpt_cancel(canceller);
  igpt_cancel(canceller);
  std::vector<int64_t> tokens(512);
  igpt_run *run = nullptr;
  EXPECT_FAILS(IGPT_ERROR_CANCELLED, igpt_start(model, nullptr, 0, &options, &run, &error));
  EXPECT_FAILS(IGPT_ERROR_CANCELLED, igpt_complete(model, &image, 2, &options, nullptr, 0, tokens.data(), 512, &error));
  EXPECT_FAILS(IGPT_ERROR_CANCELLED, igpt_complete_steps(model, &image, 2, &options, nullptr, nullptr, nullptr, 0,
                                                         tokens.data(), 512, &error));
  options.canceller = nullptr;  // the model goes on
  EXPECT_EQ(igpt_complete(model, &image, 2, &options, nullptr, 0, tokens.data(), 512, &error), IGPT_OK)
      << error.message;
}

TEST_F(Threads, CancelBetweenSteps) {
  Opened model(golden_bundle());
  cancellable(model);
  igpt_run *run = nullptr;
  igpt_step step;
  ASSERT_EQ(igpt_start(model, nullptr, 0, &options, &run, &error), IGPT_OK);
  ASSERT_EQ(igpt_next(run, &step, &error), IGPT_OK);
  igpt_cancel(canceller);
  EXPECT_FAILS(IGPT_ERROR_CANCELLED, igpt_next(run, &step, &error));
  EXPECT_FAILS(IGPT_ERROR_STATE, igpt_next(run, &step, &error));
  igpt_finish(&run);
}

TEST_F(Threads, CancelWithinAStep) {  // one call for many pictures takes long
  Opened model(digits());
  cancellable(model);
  options.n = 2048;
  std::vector<int64_t> tokens(2048 * 256);
  std::thread other([this] {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    igpt_cancel(canceller);
  });
  EXPECT_FAILS(IGPT_ERROR_CANCELLED,
               igpt_complete(model, &image, 0, &options, nullptr, 0, tokens.data(), tokens.size(), &error));
  other.join();
}

TEST_F(Threads, CancelTheLoop) {
  Opened model(digits());
  cancellable(model);
  options.n = 64;
  std::atomic<bool> begun{false};
  std::thread other([&] {
    while (!begun) std::this_thread::yield();
    igpt_cancel(canceller);
  });
  const auto on_step = [](void *user, const igpt_step *) { return *static_cast<std::atomic<bool> *>(user) = true, 0; };
  EXPECT_FAILS(IGPT_ERROR_CANCELLED, igpt_generate(model, nullptr, 0, &options, on_step, &begun, nullptr, 0, &error));
  begun = true;
  other.join();
}

static std::vector<int64_t> drawn(igpt_model *model, uint64_t seed) {
  igpt_error error;
  igpt_sampling_options options = IGPT_SAMPLING_OPTIONS_INIT;
  options.seed = seed;
  std::vector<int64_t> tokens(512);
  EXPECT_EQ(igpt_generate(model, nullptr, 0, &options, nullptr, nullptr, tokens.data(), 512, &error), IGPT_OK)
      << error.message;
  return tokens;
}

TEST_F(Threads, OneModelInTwoThreads) {
  Opened model(golden_bundle());
  std::vector<int64_t> one, two;
  std::thread first([&] { one = drawn(model, 1); }), second([&] { two = drawn(model, 2); });
  first.join(), second.join();
  EXPECT_EQ(one, drawn(model, 1));
  EXPECT_EQ(two, drawn(model, 2));
  EXPECT_NE(one, two);
}

TEST_F(Threads, AModelInEachThread) {
  std::vector<int64_t> found[2];
  const auto work = [&](size_t i) {
    Opened own(golden_bundle());
    found[i] = drawn(own, 5);
  };
  std::thread first(work, 0), second(work, 1);
  first.join(), second.join();
  EXPECT_EQ(found[0], found[1]);
}

TEST_F(Threads, OpenAndCloseAtOnce) {  // ONNX Runtime makes and frees its environment without a lock of its own
  std::atomic<int> failures{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; i++)
    threads.emplace_back([&failures] {
      for (int round = 0; round < 25; round++) {
        igpt_model *model = nullptr;
        igpt_open_options usual = IGPT_OPEN_OPTIONS_INIT;
        usual.runtime_library = std::getenv("IGPT_ORT_LIBRARY");
        igpt_error own{};
        if (igpt_open(golden_bundle().c_str(), &usual, &model, &own) != IGPT_OK) failures++;
        igpt_close(&model);
      }
    });
  for (std::thread &thread : threads) thread.join();
  EXPECT_EQ(failures, 0);
}
