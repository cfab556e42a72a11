// Ways to open a model, and what is refused.
#include "support.hpp"

static const std::vector<uint8_t> grey{128, 128, 128};
static const igpt_image picture{grey.data(), 3, 1, 1};

static igpt_status try_complete(igpt_model *model, igpt_error *error) {
  std::vector<int64_t> tokens(8 * 64);
  return igpt_complete(model, &picture, 2, nullptr, nullptr, 0, tokens.data(), tokens.size(), error);
}
static igpt_status try_generate(igpt_model *model, igpt_error *error) {
  return igpt_generate(model, nullptr, 0, nullptr, nullptr, nullptr, nullptr, 0, error);
}

TEST(Open, FromMemory) {
  const std::string bundle = golden_bundle();
  std::vector<std::pair<std::string, Bytes>> graphs;
  for (const char *name : {"complete", "decode", "prefill", "decode_shared", "preprocess", "postprocess"})
    graphs.emplace_back(name, read(bundle + "/" + name + ".onnx"));
  InMemory model(graphs, read(bundle + "/weights.safetensors"));
  ASSERT_EQ(model.status, IGPT_OK) << model.error.message;
  Opened other(bundle);
  std::vector<int64_t> one(512), two(512), three(512);
  ASSERT_EQ(igpt_complete(model, &picture, 3, nullptr, nullptr, 0, one.data(), 512, &model.error), IGPT_OK)
      << model.error.message;
  ASSERT_EQ(
      igpt_complete_steps(model, &picture, 3, nullptr, nullptr, nullptr, nullptr, 0, two.data(), 512, &model.error),
      IGPT_OK)
      << model.error.message;
  ASSERT_EQ(igpt_complete(other, &picture, 3, nullptr, nullptr, 0, three.data(), 512, &other.error), IGPT_OK);
  EXPECT_EQ(one, two);
  EXPECT_EQ(one, three);
  igpt_error error;
  float values[3];
  EXPECT_FAILS(IGPT_ERROR_BUNDLE, igpt_classify(model, &picture, values, 3, &error));  // not among the graphs
}

TEST(Open, FromMemoryWithoutWeights) {
  InMemory complete({{"complete", read(golden_bundle() + "/complete.onnx")}});
  EXPECT_EQ(complete.status, IGPT_ERROR_BUNDLE);
  EXPECT_STREQ(complete.error.message, "complete needs weights.safetensors, which was not given; give its content too");
  // In the weights' folder too: nothing is read from files.
  const fs::path before = fs::current_path();
  fs::current_path(golden_bundle());
  InMemory there({{"complete", read("complete.onnx")}});
  EXPECT_EQ(there.status, IGPT_ERROR_BUNDLE) << there.error.message;
  fs::current_path(before);
  InMemory cut({{"complete", read(golden_bundle() + "/complete.onnx")}},
               read(golden_bundle() + "/weights.safetensors").substr(0, 1000));
  EXPECT_EQ(cut.status, IGPT_ERROR_BUNDLE) << cut.error.message;
}

TEST(Open, FromMemoryWrongArguments) {
  const Bytes graph = read(golden_bundle() + "/postprocess.onnx");
  const auto options = open_options();
  igpt_model *model = nullptr;
  igpt_error error;
  igpt_graph list[2] = {{"postprocess", graph.data(), graph.size()}, {"postprocess", graph.data(), graph.size()}};
  EXPECT_FAILS(IGPT_ERROR_OPTION, igpt_open_memory(list, 2, nullptr, 0, &options, &model, &error));
  EXPECT_FAILS(IGPT_ERROR_OPTION, igpt_open_memory(list, 0, nullptr, 0, &options, &model, &error));
  EXPECT_FAILS(IGPT_ERROR_OPTION, igpt_open_memory(nullptr, 1, nullptr, 0, &options, &model, &error));
  EXPECT_FAILS(IGPT_ERROR_OPTION, igpt_open_memory(list, 1, nullptr, 5, &options, &model, &error));
  EXPECT_FAILS(IGPT_ERROR_OPTION, igpt_open_memory(list, 1, graph.data(), 0, &options, &model, &error));
  EXPECT_FAILS(IGPT_ERROR_OPTION, igpt_open_memory(list, 1, nullptr, 0, &options, nullptr, &error));
  list[0].name = "postprocess.onnx";
  EXPECT_FAILS(IGPT_ERROR_OPTION, igpt_open_memory(list, 1, nullptr, 0, &options, &model, &error));
  list[0] = {nullptr, graph.data(), graph.size()};
  EXPECT_FAILS(IGPT_ERROR_OPTION, igpt_open_memory(list, 1, nullptr, 0, &options, &model, &error));
  list[0] = {"preprocess", graph.data(), graph.size()};
  EXPECT_FAILS(IGPT_ERROR_BUNDLE, igpt_open_memory(list, 1, nullptr, 0, &options, &model, &error));  // another graph
  list[0] = {"postprocess", graph.data(), graph.size() / 2};
  EXPECT_FAILS(IGPT_ERROR_BUNDLE, igpt_open_memory(list, 1, nullptr, 0, &options, &model, &error));
  EXPECT_EQ(model, nullptr);
}

TEST(Open, SingleGraph) {
  igpt_error error;
  {
    Opened model(golden_bundle() + "/complete.onnx");  // with its weights beside it
    ASSERT_EQ(model.status, IGPT_OK) << model.error.message;
    EXPECT_EQ(try_complete(model, &error), IGPT_OK) << error.message;
    EXPECT_EQ(igpt_has_graph(model, "complete"), 1);
    EXPECT_EQ(igpt_has_graph(model, "score"), 0);
    EXPECT_FAILS(IGPT_ERROR_BUNDLE, igpt_score(model, &picture, nullptr, 0, nullptr, &error));
  }
  Folder folder;
  fs::copy_file(golden_bundle() + "/postprocess.onnx", folder / "paint.bin");  // which has no weights, by another name
  Opened model(folder / "paint.bin");
  ASSERT_EQ(model.status, IGPT_OK) << model.error.message;
  std::vector<int64_t> tokens(64);
  std::vector<uint8_t> rgb(192);
  EXPECT_EQ(igpt_images(model, tokens.data(), 1, rgb.data(), rgb.size(), &error), IGPT_OK);
  const fs::path before = fs::current_path();
  fs::current_path(folder.path);
  Opened bare("paint.bin");
  EXPECT_EQ(bare.status, IGPT_OK) << bare.error.message;
  fs::current_path(before);
  fs::copy_file(golden_bundle() + "/complete.onnx", folder / "complete.onnx");  // without its weights
  Opened alone(folder / "complete.onnx");
  EXPECT_EQ(alone.status, IGPT_ERROR_BUNDLE);
  expect_message(alone.error);
}

TEST(Open, Nothing) {
  Folder folder;
  for (const std::string &path : {folder / "missing", folder.path.string(), std::string(""), std::string("/dev/null"),
                                  golden() + "/cases.json"}) {
    Opened model(path);
    EXPECT_EQ(model.status, IGPT_ERROR_BUNDLE) << path;
    expect_message(model.error);
  }
  const auto options = open_options();
  igpt_model *model = nullptr;
  igpt_error error;
  EXPECT_FAILS(IGPT_ERROR_BUNDLE, igpt_open(nullptr, &options, &model, &error));
  EXPECT_FAILS(IGPT_ERROR_OPTION, igpt_open(golden_bundle().c_str(), &options, nullptr, &error));
  EXPECT_EQ(igpt_open(folder.path.c_str(), &options, &model, nullptr), IGPT_ERROR_BUNDLE);  // nobody asks why
}

TEST(Open, Options) {
  igpt_error error;
  igpt_model *model = nullptr;
  for (int i = 0; i < 5; i++) {
    auto options = open_options();
    if (i == 0) options.threads = -1;
    if (i == 1) options.threads = 1 << 20;
    if (i == 2) options.provider = 7;
    if (i == 3) options.size = 0;
    if (i == 4) options.size += 8;
    EXPECT_FAILS(IGPT_ERROR_OPTION, igpt_open(golden_bundle().c_str(), &options, &model, &error));
  }
  auto options = open_options();
  options.provider = IGPT_CUDA;  // the library of the tests has none
  EXPECT_FAILS(IGPT_ERROR_RUNTIME, igpt_open(golden_bundle().c_str(), &options, &model, &error));
  options = open_options();
  options.threads = 2, options.spinning = 1, options.no_memory_arena = 1, options.no_verify = 1;
  Opened other(golden_bundle(), options);
  ASSERT_EQ(other.status, IGPT_OK) << other.error.message;
  EXPECT_EQ(try_complete(other, &error), IGPT_OK) << error.message;
}

TEST(Open, Libraries) {
  igpt_error error;
  igpt_model *model = nullptr;
  for (const char *path : {"/nonexistent/libonnxruntime.so", IGPT_NO_ORT, IGPT_OLD_ORT}) {
    auto options = open_options();
    options.runtime_library = path;
    EXPECT_FAILS(IGPT_ERROR_RUNTIME, igpt_open(golden_bundle().c_str(), &options, &model, &error));
    if (path == std::string(IGPT_OLD_ORT)) {
      EXPECT_NE(std::strstr(error.message, "1.10.0 is too old"), nullptr) << error.message;
    }
  }
  auto options = open_options();
  options.runtime_library = IGPT_OTHER_ORT;  // calls itself 1.18.0, which is older than the bundle's minimum
  EXPECT_FAILS(IGPT_ERROR_RUNTIME, igpt_open(golden_bundle().c_str(), &options, &model, &error));
  EXPECT_NE(std::strstr(error.message, "1.18.0"), nullptr) << error.message;
}

TEST(Open, GraphsAreOpenedLate) {
  Folder folder;
  folder.copy(golden_bundle());
  write(folder / "score.onnx", "this is no graph\n");
  fs::remove(folder / "classify.onnx");
  Opened model(folder.path);
  ASSERT_EQ(model.status, IGPT_OK) << model.error.message;
  igpt_error error;
  float values[3];
  EXPECT_EQ(try_complete(model, &error), IGPT_OK) << error.message;
  EXPECT_FAILS(IGPT_ERROR_BUNDLE, igpt_score(model, &picture, nullptr, 0, nullptr, &error));
  EXPECT_FAILS(IGPT_ERROR_BUNDLE, igpt_classify(model, &picture, values, 3, &error));
  EXPECT_NE(std::strstr(error.message, "classify.onnx"), nullptr) << error.message;
  EXPECT_EQ(try_complete(model, &error), IGPT_OK) << error.message;
  fs::copy_file(golden_bundle() + "/score.onnx", folder / "score.onnx", fs::copy_options::overwrite_existing);
  EXPECT_EQ(igpt_score(model, &picture, nullptr, 0, nullptr, &error), IGPT_OK) << error.message;
}

TEST(Open, Weights) {
  igpt_error error;
  Folder folder;
  folder.copy(golden_bundle());
  const std::string path = folder / "weights.safetensors";
  Bytes weights = read(path);
  const auto check = [&](igpt_status expected, bool verify = true, bool named = true) {
    auto options = open_options();
    options.no_verify = !verify;
    Opened model(folder.path, options);
    ASSERT_EQ(model.status, IGPT_OK) << model.error.message;  // postprocess needs none
    if (expected) {
      EXPECT_FAILS(expected, try_complete(model, &error));
      EXPECT_FAILS(expected, try_generate(model, &error));
      if (named) {
        EXPECT_NE(std::strstr(error.message, "weights.safetensors"), nullptr) << error.message;
      }
    } else {
      EXPECT_EQ(try_complete(model, &error), IGPT_OK) << error.message;
    }
  };
  check(IGPT_OK);
  weights[weights.size() - 7] = static_cast<char>(weights[weights.size() - 7] ^ 1);  // one bit
  write(path, weights);
  check(IGPT_ERROR_BUNDLE);
  check(IGPT_OK, false);
  write(path, weights.substr(0, weights.size() / 2));  // of which ONNX Runtime tells first
  check(IGPT_ERROR_BUNDLE, true, false);
  write(path, "");
  check(IGPT_ERROR_BUNDLE, true, false);
  fs::remove(path);
  check(IGPT_ERROR_BUNDLE);
  // In memory, too.
  InMemory altered({{"complete", read(golden_bundle() + "/complete.onnx")}}, weights);
  EXPECT_EQ(altered.status, IGPT_ERROR_BUNDLE) << altered.error.message;
}

TEST(Open, WeightsAreComparedAgainWhenTheyChange) {
  igpt_error error;
  Folder folder;
  folder.copy(golden_bundle());
  Opened model(folder.path);
  EXPECT_EQ(try_complete(model, &error), IGPT_OK) << error.message;
  Bytes weights = read(folder / "weights.safetensors");
  weights.back() = static_cast<char>(weights.back() ^ 1);
  write(folder / "new", weights);
  fs::rename(folder / "new", folder / "weights.safetensors");
  EXPECT_FAILS(IGPT_ERROR_BUNDLE, igpt_score(model, &picture, nullptr, 0, nullptr, &error));
}

TEST(Open, PartsOfTwoBundles) {
  igpt_error error;
  Folder folder;
  folder.copy(golden_bundle());
  fs::copy_file(digits() + "/complete.onnx", folder / "complete.onnx", fs::copy_options::overwrite_existing);
  Opened model(folder.path);
  EXPECT_FAILS(IGPT_ERROR_BUNDLE, try_complete(model, &error));
  Folder other;  // graphs that name other weights
  other.copy(golden_bundle());
  write(other / "score.onnx", with(read(other / "score.onnx"), {{"igpt.weights_sha256", std::string(64, 'a')}}));
  Opened mixed(other.path);
  EXPECT_EQ(try_complete(mixed, &error), IGPT_OK) << error.message;
  EXPECT_FAILS(IGPT_ERROR_BUNDLE, igpt_score(mixed, &picture, nullptr, 0, nullptr, &error));
}

TEST(Open, Links) {
  igpt_error error;
  const std::string bundle = fs::absolute(golden_bundle());
  {  // to a foreign file, a pipe, a directory, in a circle, to nothing
    for (int i = 0; i < 6; i++) {
      Folder folder;
      folder.copy(bundle);
      const std::string name = folder / (i == 5 ? "weights.safetensors" : "complete.onnx");
      fs::remove(name);
      if (i == 0) fs::create_symlink(bundle + "/complete.onnx", name);
      if (i == 1) mkfifo(name.c_str(), 0600);
      if (i == 2) fs::create_directory(name);
      if (i == 3) fs::create_symlink(name, name);
      if (i == 4) fs::create_symlink("nothing", name);
      if (i == 5) fs::create_symlink(bundle + "/weights.safetensors", name);
      Opened model(folder.path);
      if (i == 5) {
        EXPECT_EQ(model.status, IGPT_ERROR_BUNDLE);
      } else {
        EXPECT_FAILS(IGPT_ERROR_BUNDLE, try_complete(model, &error));
      }
    }
  }
  // As the Hub's cache has them: snapshots/COMMIT/NAME is a link to blobs/HASH.
  for (int i = 0; i < 4; i++) {
    Folder cache;
    const fs::path snapshot = cache.path / "snapshots" / "commit";
    fs::create_directories(snapshot);
    fs::create_directories(cache.path / "elsewhere");
    if (i == 1)
      fs::create_symlink("elsewhere", cache.path / "blobs");  // a link itself
    else if (i != 2)
      fs::create_directory(cache.path / "blobs");
    const fs::path store = i == 2 ? cache.path / "elsewhere" : cache.path / "blobs";
    for (const auto &entry : fs::directory_iterator(bundle)) {
      fs::copy_file(entry.path(), store / (entry.path().filename().string() + ".blob"));
      fs::create_symlink(fs::path("../..") / store.filename() / (entry.path().filename().string() + ".blob"),
                         snapshot / entry.path().filename());
    }
    if (i == 3) {  // the weights are no link
      fs::remove(snapshot / "weights.safetensors");
      fs::copy_file(bundle + "/weights.safetensors", snapshot / "weights.safetensors");
    }
    Opened model(snapshot.string());
    if (i == 0 || i == 3) {
      ASSERT_EQ(model.status, IGPT_OK) << model.error.message;
      EXPECT_EQ(try_complete(model, &error), IGPT_OK) << error.message;
      EXPECT_EQ(try_generate(model, &error), IGPT_OK) << error.message;
    } else {
      EXPECT_EQ(model.status, IGPT_ERROR_BUNDLE) << model.error.message;
      expect_message(model.error);
    }
  }
}

TEST(Open, Metadata) {
  const Bytes graph = read(golden_bundle() + "/postprocess.onnx");
  const auto opened = [&](const std::string &key, const std::string &value) {
    InMemory model({{"postprocess", with(graph, {{"igpt." + key, value}})}});
    return model.status;
  };
  const std::pair<const char *, std::vector<std::string>> refused[] = {
      {"format_version", {"8", "99", "", "7.0", " 7", "seven", "-7", "0x7", "00000000000000000007"}},
      {"sampling_version", {"0", "2", ""}},
      {"graph", {"", "complete", "postprocess2"}},
      {"height", {"0", "-8", "9", "8x", "1e1", "99999999999999999999999", "4294967304", "65536"}},
      {"n_positions", {"63", "0", "9223372036854775807", "18446744073709551680"}},
      {"n_layer", {"0", "1025", "-3"}},
      {"n_head", {"0", "1000000000000"}},
      {"head_dim", {"", "65537"}},
      {"sos", {"0", "16777217"}},
      {"labels", {"-1", "65537", "3.0"}},
      {"top_k", {"-1", "1.5"}},
      {"top_p", {"0", "0.0", "1.01", "nan", "inf", "-1", "", "0.9.9", "0x1p-2"}},
      {"temperature", {"-1", "nan", "inf", "1e999", "1e", "abc", "1.0 "}},
      {"precision", {"", "fp64", "fp", " "}},
      {"kv_cache", {"int4", "fp32 "}},
      {"function_to_apply", {"", "relu"}},
      {"name", {std::string(256, 'x')}},
      {"weights_sha256", {std::string(64, 'a'), std::string(65, 'a'), "a"}},
      {"onnxruntime_minimum", {"new", "x.y"}},
      {"label.1", {std::string(2000, 'x')}},
  };
  for (const auto &[key, values] : refused)
    for (const auto &value : values) EXPECT_EQ(opened(key, value), IGPT_ERROR_BUNDLE) << key << "=" << value;
  EXPECT_EQ(opened("onnxruntime_minimum", "99.0"), IGPT_ERROR_RUNTIME);
  EXPECT_EQ(opened("onnxruntime_minimum", "1.99"), IGPT_ERROR_RUNTIME);
  EXPECT_EQ(opened("labels", "65536"), IGPT_OK);  // of which most are empty
  EXPECT_EQ(opened("unknown", "anything"), IGPT_OK);
  InMemory none({{"postprocess", GraphFile{{}, {}, {}, {}}.build("x").substr(0, 2)}});
  EXPECT_EQ(none.status, IGPT_ERROR_BUNDLE);
}

TEST(Open, RecommendedSampling) {
  const Bytes graph = read(golden_bundle() + "/postprocess.onnx");
  const struct {
    const char *text;
    double value;
  } texts[] = {{"0.95", 0.95}, {"1e-05", 1e-5}, {"0.1", 0.1}, {"1", 1}, {"0.30000000000000004", 0.3}, {"2.5e-1", 0.25}};
  for (const auto &one : texts) {
    InMemory model({{"postprocess",
                     with(graph, {{"igpt.top_p", one.text}, {"igpt.temperature", one.text}, {"igpt.top_k", "40"}})}});
    igpt_model_info info = IGPT_MODEL_INFO_INIT;
    ASSERT_EQ(igpt_info(model, &info, nullptr), IGPT_OK) << model.error.message;
    EXPECT_EQ(static_cast<float>(info.top_p), static_cast<float>(one.value));
    EXPECT_EQ(static_cast<float>(info.temperature), static_cast<float>(one.value));
    EXPECT_EQ(info.top_k, 40);
  }
  // Options that are left out take it.
  Folder folder;
  folder.copy(golden_bundle());
  for (const auto &entry : fs::directory_iterator(folder.path))
    if (entry.path().extension() == ".onnx") write(entry.path(), with(read(entry.path()), {{"igpt.top_k", "1"}}));
  Opened greedy(folder.path), plain(golden_bundle());
  igpt_error error;
  std::vector<int64_t> one(512), two(512);
  ASSERT_EQ(igpt_generate(greedy, nullptr, 0, nullptr, nullptr, nullptr, one.data(), 512, &error), IGPT_OK)
      << error.message;
  igpt_sampling_options options = IGPT_SAMPLING_OPTIONS_INIT;
  options.temperature = 0;
  ASSERT_EQ(igpt_generate(plain, nullptr, 0, &options, nullptr, nullptr, two.data(), 512, &error), IGPT_OK)
      << error.message;
  EXPECT_EQ(one, two);
}

TEST(Open, MessagesObeyNobody) {
  Folder folder;
  Opened model(folder / "a\nb\x1b[31m\xc2\x9b-\xff-\xe2\x82-\xe2\x82\xac-\xed\x9f\xbf");
  EXPECT_EQ(model.status, IGPT_ERROR_BUNDLE);
  for (const char *c = model.error.message; *c; c++) EXPECT_GE(static_cast<unsigned char>(*c), 32);
  EXPECT_NE(std::strstr(model.error.message, "a b [31m  -?-?\x3f-\xe2\x82\xac-\xed\x9f\xbf"), nullptr)
      << model.error.message;
  std::string name;  // one that is cut off within a character
  for (int i = 0; i < 2000; i++) name += "\xe2\x82\xac";
  for (int i = 0; i < 3; i++) {
    Opened cut(std::string(static_cast<size_t>(i), 'x') + name);
    EXPECT_EQ(cut.status, IGPT_ERROR_BUNDLE);
    EXPECT_NO_THROW(nlohmann::json(cut.error.message).dump());  // which takes UTF-8 only
  }
}
