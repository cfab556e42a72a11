// What the tests share: the golden pack, altered bundles, and hand-made graphs.
#pragma once

#include <igpt.h>

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace fs = std::filesystem;
using Bytes = std::string;

inline std::string variable(const char *name, const char *otherwise = "") {
  const char *value = std::getenv(name);
  return value && *value ? value : otherwise;
}
inline std::string library() {
  return variable("IGPT_ORT_LIBRARY");
}
inline std::string golden() {
  return variable("IGPT_GOLDEN", IGPT_GOLDEN_DEFAULT);
}
inline std::string golden_bundle() {
  return golden() + "/bundle";
}
inline std::string digits() {
  return variable("IGPT_DIGITS", IGPT_DIGITS_DEFAULT);
}

inline Bytes read(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  return Bytes(std::istreambuf_iterator<char>(file), {});
}
inline void write(const std::string &path, const Bytes &content) {
  std::ofstream(path, std::ios::binary) << content;
}

inline const nlohmann::json &cases() {
  static const auto parsed = nlohmann::json::parse(read(golden() + "/cases.json"));
  return parsed;
}

inline std::vector<uint8_t> decoded(const std::string &base64) {
  std::vector<uint8_t> bytes;
  unsigned bits = 0, count = 0;
  for (char c : base64) {
    const char *at = std::strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", c);
    if (c == '=' || !at) break;
    bits = bits << 6 | static_cast<unsigned>(at - "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
    if ((count += 6) >= 8) bytes.push_back(static_cast<uint8_t>(bits >> (count -= 8)));
  }
  return bytes;
}

// A picture of the pack; without a name one grey pixel.
struct Picture {
  std::vector<uint8_t> rgb{128, 128, 128};
  int64_t height = 1, width = 1;
  Picture() = default;
  explicit Picture(const nlohmann::json &name) {
    for (const auto &one : cases()["pictures"])
      if (one["name"] == name) rgb = decoded(one["rgb"]), height = one["height"], width = one["width"];
  }
  igpt_image image() const { return {rgb.data(), rgb.size(), height, width}; }
};

inline igpt_open_options open_options() {
  static const std::string path = library();
  igpt_open_options options = IGPT_OPEN_OPTIONS_INIT;
  options.runtime_library = path.c_str();
  options.threads = 1;
  return options;
}

// A folder that goes with its owner.
struct Folder {
  fs::path path;
  Folder() {
    std::string name = (fs::temp_directory_path() / "igpt-XXXXXX").string();
    path = mkdtemp(name.data());
  }
  Folder(const Folder &) = delete;
  ~Folder() { fs::remove_all(path); }
  std::string operator/(const std::string &name) const { return (path / name).string(); }
  // Copies a bundle's graphs and weights into it.
  Folder &copy(const std::string &bundle) {
    for (const auto &entry : fs::directory_iterator(bundle))
      if (entry.path().extension() == ".onnx" || entry.path().extension() == ".safetensors")
        fs::copy_file(entry.path(), path / entry.path().filename());
    return *this;
  }
};

struct Opened {
  igpt_model *model = nullptr;
  igpt_error error{};
  igpt_status status;
  explicit Opened(const std::string &path) : Opened(path, open_options()) {}
  Opened(const std::string &path, igpt_open_options options) {
    status = igpt_open(path.c_str(), &options, &model, &error);
    if (!status) error.message[0] = 0;
  }
  Opened(const Opened &) = delete;
  ~Opened() { igpt_close(&model); }
  operator igpt_model *() const { return model; }
};

// What every message must be: one line, not empty, and not cut off.
inline void expect_message(const igpt_error &error) {
  const std::string message = error.message;
  EXPECT_FALSE(message.empty());
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  EXPECT_LT(message.size(), sizeof error.message - 1);
}
#define EXPECT_FAILS(expected, call)                    \
  do {                                                  \
    error = {};                                         \
    const igpt_status got = (call);                     \
    EXPECT_EQ(got, expected) << error.message;          \
    EXPECT_EQ(error.status, expected) << error.message; \
    expect_message(error);                              \
  } while (0)

// ---- ONNX files by hand ----

struct Proto {
  Bytes bytes;
  void varint(uint64_t value) {
    for (; value > 127; value >>= 7) bytes += static_cast<char>(value | 128);
    bytes += static_cast<char>(value);
  }
  Proto &number(unsigned field, int64_t value) {
    return varint(field << 3), varint(static_cast<uint64_t>(value)), *this;
  }
  Proto &text(unsigned field, const Bytes &value) {
    return varint(field << 3 | 2), varint(value.size()), bytes += value, *this;
  }
};

inline Bytes property(const std::string &key, const std::string &value) {
  return Proto().text(14, Proto().text(1, key).text(2, value).bytes).bytes;
}
// A graph whose metadata has other values: of two entries the last one counts.
inline Bytes with(Bytes graph, const std::vector<std::pair<std::string, std::string>> &values) {
  for (const auto &[key, value] : values) graph += property(key, value);
  return graph;
}

enum { FLOAT = 1, UINT8 = 2, INT64 = 7, DOUBLE = 11 };
using Dims = std::vector<int64_t>;  // -1 is free

inline Bytes value_info(const std::string &name, int type, const Dims &dims) {
  Proto shape;
  for (int64_t dim : dims) shape.text(1, dim < 0 ? Proto().text(2, "d").bytes : Proto().number(1, dim).bytes);
  const Bytes tensor = Proto().number(1, type).text(2, shape.bytes).bytes;
  return Proto().text(1, name).text(2, Proto().text(1, tensor).bytes).bytes;
}
inline Bytes node(const std::string &op, const std::vector<std::string> &inputs,
                  const std::vector<std::string> &outputs, const std::string &attribute = "", int64_t value = 0) {
  Proto made;
  for (const auto &name : inputs) made.text(1, name);
  for (const auto &name : outputs) made.text(2, name);
  made.text(4, op);
  if (!attribute.empty()) made.text(5, Proto().text(1, attribute).number(3, value).number(20, 2).bytes);
  return made.bytes;
}
template <class T>
Bytes initializer(const std::string &name, int type, const Dims &dims, const std::vector<T> &values) {
  Proto made;
  for (int64_t dim : dims) made.number(1, dim);
  made.number(2, type).text(8, name);
  return made.text(9, Bytes(reinterpret_cast<const char *>(values.data()), values.size() * sizeof(T))).bytes;
}
struct GraphFile {
  std::vector<Bytes> nodes, initializers, inputs, outputs;
  // With the metadata of the golden bundle.
  Bytes build(const std::string &name) const {
    Proto graph;
    for (const auto &one : nodes) graph.text(1, one);
    graph.text(2, name);
    for (const auto &one : initializers) graph.text(5, one);
    for (const auto &one : inputs) graph.text(11, one);
    for (const auto &one : outputs) graph.text(12, one);
    const Bytes model = Proto().number(1, 10).text(7, graph.bytes).text(8, Proto().number(2, 18).bytes).bytes;
    return with(model, {{"igpt.graph", name},           {"igpt.format_version", "7"},
                        {"igpt.sampling_version", "1"}, {"igpt.name", "golden"},
                        {"igpt.precision", "fp32"},     {"igpt.kv_cache", "fp32"},
                        {"igpt.profile", "fused"},      {"igpt.sos", "16"},
                        {"igpt.height", "8"},           {"igpt.width", "8"},
                        {"igpt.n_positions", "64"},     {"igpt.n_layer", "3"},
                        {"igpt.n_head", "4"},           {"igpt.head_dim", "8"},
                        {"igpt.temperature", "1.0"},    {"igpt.top_k", "0"},
                        {"igpt.top_p", "1.0"},          {"igpt.labels", "3"},
                        {"igpt.label.0", "a"},          {"igpt.label.1", "b"},
                        {"igpt.label.2", "c"},          {"igpt.function_to_apply", "softmax"}});
  }
};

// Graphs in memory, opened as a model.
struct InMemory {
  std::vector<std::pair<std::string, Bytes>> graphs;
  Bytes weights;
  igpt_model *model = nullptr;
  igpt_error error{};
  igpt_status status = IGPT_OK;
  InMemory(std::vector<std::pair<std::string, Bytes>> given, Bytes given_weights = {})
      : graphs(std::move(given)), weights(std::move(given_weights)) {
    std::vector<igpt_graph> list;
    for (const auto &[name, content] : graphs) list.push_back({name.c_str(), content.data(), content.size()});
    const auto options = open_options();
    status = igpt_open_memory(list.data(), list.size(), weights.empty() ? nullptr : weights.data(), weights.size(),
                              &options, &model, &error);
    if (status) expect_message(error);
  }
  InMemory(const InMemory &) = delete;
  ~InMemory() { igpt_close(&model); }
  operator igpt_model *() const { return model; }
};
