// Graphs that are none of ours: they may compute what they like, and must harm nobody.
#include "support.hpp"

#include <functional>
#include <limits>

static const std::vector<uint8_t> grey{128, 128, 128};
static const igpt_image picture{grey.data(), 3, 1, 1};
static const Bytes picture_input = value_info("image", UINT8, {-1, -1, 3});

static igpt_status tokens_of(const GraphFile &graph, igpt_error *error) {
  InMemory model({{"preprocess", graph.build("preprocess")}});
  EXPECT_EQ(model.status, IGPT_OK) << model.error.message;
  std::vector<int64_t> tokens(64);
  return igpt_tokens(model, &picture, tokens.data(), 64, error);
}

TEST(Hostile, Preprocess) {
  igpt_error error;
  const std::vector<int64_t> good(64, 3), bad(64, 99), few(10, 3), many(640, 3);
  const std::vector<float> floats(64, 1);
  const std::vector<double> doubles(64, 1);
  const auto constant = [](const Bytes &value, int type, const Dims &declared) {
    return GraphFile{
        {node("Identity", {"c"}, {"tokens"})}, {value}, {picture_input}, {value_info("tokens", type, declared)}};
  };
  EXPECT_EQ(tokens_of(constant(initializer("c", INT64, {64}, good), INT64, {64}), &error), IGPT_OK) << error.message;
  EXPECT_EQ(tokens_of(constant(initializer("c", INT64, {64}, good), INT64, {-1}), &error), IGPT_OK) << error.message;
  EXPECT_FAILS(IGPT_ERROR_BUNDLE, tokens_of(constant(initializer("c", INT64, {64}, bad), INT64, {64}), &error));
  EXPECT_FAILS(IGPT_ERROR_RUNTIME, tokens_of(constant(initializer("c", INT64, {10}, few), INT64, {-1}), &error));
  EXPECT_FAILS(IGPT_ERROR_RUNTIME, tokens_of(constant(initializer("c", INT64, {640}, many), INT64, {-1}), &error));
  EXPECT_FAILS(IGPT_ERROR_RUNTIME, tokens_of(constant(initializer("c", INT64, {640}, many), INT64, {640}), &error));
  EXPECT_FAILS(IGPT_ERROR_RUNTIME, tokens_of(constant(initializer("c", INT64, {8, 8}, good), INT64, {8, 8}), &error));
  EXPECT_FAILS(IGPT_ERROR_RUNTIME,
               tokens_of(constant(initializer("c", INT64, {}, std::vector<int64_t>{3}), INT64, {}), &error));
  EXPECT_FAILS(IGPT_ERROR_RUNTIME, tokens_of(constant(initializer("c", FLOAT, {64}, floats), FLOAT, {64}), &error));
  EXPECT_FAILS(IGPT_ERROR_RUNTIME, tokens_of(constant(initializer("c", DOUBLE, {64}, doubles), DOUBLE, {64}), &error));
  // Another name, another input, one too many, a sequence, the input itself, a constant itself.
  GraphFile graph = constant(initializer("c", INT64, {64}, good), INT64, {64});
  graph.nodes = {node("Identity", {"c"}, {"other"})}, graph.outputs = {value_info("other", INT64, {64})};
  EXPECT_FAILS(IGPT_ERROR_RUNTIME, tokens_of(graph, &error));
  graph = constant(initializer("c", INT64, {64}, good), INT64, {64});
  graph.inputs = {value_info("image", FLOAT, {-1, -1, 3})};
  EXPECT_FAILS(IGPT_ERROR_RUNTIME, tokens_of(graph, &error));
  graph.inputs = {value_info("image", UINT8, {5, 5, 3})};
  EXPECT_FAILS(IGPT_ERROR_RUNTIME, tokens_of(graph, &error));
  graph.inputs = {picture_input, value_info("more", INT64, {64})};
  graph.nodes = {node("Identity", {"more"}, {"tokens"})};
  EXPECT_FAILS(IGPT_ERROR_RUNTIME, tokens_of(graph, &error));
  const Bytes sequence =
      Proto()
          .text(1, "tokens")
          .text(2, Proto().text(4, Proto().text(1, Proto().text(1, Proto().number(1, INT64).bytes).bytes).bytes).bytes)
          .bytes;
  graph = {{node("SequenceConstruct", {"c"}, {"tokens"})},
           {initializer("c", INT64, {64}, good)},
           {picture_input},
           {sequence}};
  EXPECT_FAILS(IGPT_ERROR_RUNTIME, tokens_of(graph, &error));
  graph = {{}, {initializer("tokens", INT64, {64}, good)}, {picture_input}, {value_info("tokens", INT64, {64})}};
  EXPECT_EQ(tokens_of(graph, &error), IGPT_OK) << error.message;
}

TEST(Hostile, Features) {
  igpt_error error;
  std::vector<float> values(128, 1), to(128);
  for (float value : {1.0f, std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    values[77] = value;
    GraphFile graph{{node("Identity", {"c"}, {"features"})},
                    {initializer("c", FLOAT, {4, 32}, values)},
                    {picture_input},
                    {value_info("features", FLOAT, {-1, 32})}};
    InMemory model({{"features", graph.build("features")}});
    ASSERT_EQ(model.status, IGPT_OK) << model.error.message;
    if (value == 1) {
      EXPECT_EQ(igpt_features(model, &picture, to.data(), 128, &error), IGPT_OK) << error.message;
    } else {
      EXPECT_FAILS(IGPT_ERROR_BUNDLE, igpt_features(model, &picture, to.data(), 128, &error));
    }
  }
}

// A decode graph that draws token 0 and gives back its cache, unless it is changed.
struct Decode {
  std::vector<Bytes> next{node("Mul", {"input_ids", "zero"}, {"next_ids"})};
  std::vector<Bytes> logits{node("Identity", {"flat"}, {"logits"})};
  std::function<Bytes(std::string, std::string)> present = [](auto past, auto out) {
    return node("Identity", {past}, {out});
  };
  int next_type = INT64, logits_type = FLOAT, present_type = FLOAT, layers = 3;
  Dims next_dims{-1, 1}, present_dims{-1, 4, -1, 8};
  std::vector<float> values = std::vector<float>(8 * 16);
  std::vector<std::pair<std::string, std::string>> metadata{};

  igpt_status draw(igpt_error *error) const {
    GraphFile graph;
    graph.initializers = {initializer("zero", INT64, {1}, std::vector<int64_t>{0}),
                          initializer("flat", FLOAT, {8, 16}, values)};
    graph.inputs = {value_info("input_ids", INT64, {-1, -1}), value_info("past_length", INT64, {}),
                    value_info("uniform", FLOAT, {-1}),       value_info("temperature", FLOAT, {}),
                    value_info("top_k", INT64, {}),           value_info("top_p", FLOAT, {})};
    graph.outputs = {value_info("next_ids", next_type, next_dims), value_info("logits", logits_type, {-1, 16})};
    graph.nodes = next;
    graph.nodes.insert(graph.nodes.end(), logits.begin(), logits.end());
    for (int i = 0; i < 2 * layers; i++) {
      const std::string end = "." + std::to_string(i / 2) + (i % 2 ? ".value" : ".key");
      graph.inputs.push_back(value_info("past_key_values" + end, FLOAT, {-1, 4, 64, 8}));
      graph.nodes.push_back(present("past_key_values" + end, "present" + end));
      graph.outputs.push_back(value_info("present" + end, present_type, present_dims));
    }
    InMemory model({{"decode", with(graph.build("decode"), metadata)}});
    EXPECT_EQ(model.status, IGPT_OK) << model.error.message;
    std::vector<int64_t> tokens(512, -1);
    const igpt_status status = igpt_generate(model, nullptr, 0, nullptr, nullptr, nullptr, tokens.data(), 512, error);
    if (!status) {
      EXPECT_EQ(tokens, std::vector<int64_t>(512));
    }
    return status;
  }
};

TEST(Hostile, Decode) {
  igpt_error error;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto fails = [&](igpt_status expected, auto change) {
    Decode graph;
    change(graph);
    EXPECT_FAILS(expected, graph.draw(&error));
  };
  EXPECT_EQ(Decode().draw(&error), IGPT_OK) << error.message;
  fails(IGPT_ERROR_BUNDLE, [](auto &g) { g.next = {node("Identity", {"input_ids"}, {"next_ids"})}; });  // sos
  fails(IGPT_ERROR_BUNDLE, [&](auto &g) { g.values[5] = nan; });
  fails(IGPT_ERROR_RUNTIME,
        [](auto &g) { g.next = {node("Cast", {"input_ids"}, {"next_ids"}, "to", DOUBLE)}, g.next_type = DOUBLE; });
  fails(IGPT_ERROR_RUNTIME, [](auto &g) {
    g.next = {node("Concat", {"input_ids", "input_ids"}, {"next_ids"}, "axis", 0)};
  });
  fails(IGPT_ERROR_RUNTIME, [](auto &g) {
    g.next = {node("Concat", {"input_ids", "input_ids"}, {"next_ids"}, "axis", 1)}, g.next_dims = {-1, -1};
  });
  fails(IGPT_ERROR_RUNTIME,
        [](auto &g) { g.logits = {node("Cast", {"flat"}, {"logits"}, "to", DOUBLE)}, g.logits_type = DOUBLE; });
  fails(IGPT_ERROR_RUNTIME, [](auto &g) { g.logits = {node("Concat", {"flat", "flat"}, {"logits"}, "axis", 0)}; });
  fails(IGPT_ERROR_RUNTIME, [](auto &g) {
    g.present = [](auto past, auto out) { return node("Cast", {past}, {out}, "to", DOUBLE); }, g.present_type = DOUBLE;
  });
  fails(IGPT_ERROR_RUNTIME, [](auto &g) {
    g.present = [](auto past, auto out) { return node("Concat", {past, past}, {out}, "axis", 2); };
  });
  fails(IGPT_ERROR_RUNTIME, [](auto &g) { g.layers = 2; });
  fails(IGPT_ERROR_RUNTIME, [](auto &g) { g.layers = 4; });
}

// Metadata that makes a request larger than any memory.
TEST(Hostile, Sizes) {
  igpt_error error;
  const auto fails = [&](igpt_status expected, const std::vector<std::pair<std::string, std::string>> &metadata) {
    Decode graph;
    graph.metadata = metadata;
    EXPECT_FAILS(expected, graph.draw(&error));
  };
  fails(IGPT_ERROR_MEMORY, {{"igpt.n_layer", "1024"}, {"igpt.n_head", "4096"}, {"igpt.head_dim", "65536"}});
  fails(IGPT_ERROR_RUNTIME, {{"igpt.n_head", "64"}});
  fails(IGPT_ERROR_RUNTIME, {{"igpt.n_layer", "1024"}});
  fails(IGPT_ERROR_RUNTIME, {{"igpt.kv_cache", "fp16"}});
  fails(IGPT_ERROR_RUNTIME, {{"igpt.kv_cache", "int8"}});
  fails(IGPT_ERROR_RUNTIME, {{"igpt.sos", "17"}});
  InMemory model(
      {{"postprocess", with(read(golden_bundle() + "/postprocess.onnx"),
                            {{"igpt.height", "4096"}, {"igpt.width", "4096"}, {"igpt.n_positions", "16777216"}})}});
  ASSERT_EQ(model.status, IGPT_OK) << model.error.message;
  std::vector<int64_t> tokens(64);
  std::vector<uint8_t> rgb(192);
  EXPECT_FAILS(IGPT_ERROR_OPTION, igpt_images(model, tokens.data(), 1, rgb.data(), rgb.size(), &error));
}

// Graphs with some bytes changed: an error or an answer, whatever it is.
TEST(Hostile, DamagedBytes) {
  const Bytes weights = read(golden_bundle() + "/weights.safetensors");
  uint32_t random = 1;
  for (const char *name : {"preprocess", "postprocess", "classify"}) {
    const Bytes graph = read(golden_bundle() + "/" + name + ".onnx");
    for (int i = 0; i < 40; i++) {
      Bytes damaged = graph;
      for (int j = 0; j < 3; j++) {
        random = random * 1664525 + 1013904223;
        damaged[random % damaged.size()] = static_cast<char>(random >> 24);
      }
      if (i % 8 == 0) damaged.resize(random % damaged.size());
      InMemory model({{name, damaged}}, name == std::string("classify") ? weights : Bytes());
      if (model.status) continue;
      std::vector<int64_t> tokens(64);
      std::vector<uint8_t> rgb(192);
      float values[3];
      igpt_tokens(model, &picture, tokens.data(), 64, nullptr);
      igpt_images(model, std::vector<int64_t>(64).data(), 1, rgb.data(), 192, nullptr);
      igpt_classify(model, &picture, values, 3, nullptr);
    }
  }
}
