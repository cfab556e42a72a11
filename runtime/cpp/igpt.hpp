// igpt.hpp - runs an ImageGPT bundle: completes, draws, classifies and scores pictures. Header-only C++17 over igpt.h.
//
//   auto model = igpt::Model::open("bundle");
//   auto pictures = model.complete({rgb.data(), rgb.size(), height, width});
//   for (const auto &step : model.start(primer)) show(step.position, step.tokens);
//
// Every failure throws igpt::Error. Objects can be moved but not copied. Threads as in igpt.h: calls on one model wait
// for each other. An object that was moved from, or a closed model, throws an error of the kind `state`.
#ifndef IGPT_HPP
#define IGPT_HPP

#include <igpt.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace igpt {

enum class Kind {
  option = IGPT_ERROR_OPTION,        // an option is out of range or does not fit the bundle
  image = IGPT_ERROR_IMAGE,          // what was given is no picture
  bundle = IGPT_ERROR_BUNDLE,        // a bundle is missing, damaged, of an unknown version, or lacks what is needed
  runtime = IGPT_ERROR_RUNTIME,      // ONNX Runtime or a provider of it is missing, is too old, or failed
  memory = IGPT_ERROR_MEMORY,        // there is not enough memory
  cancelled = IGPT_ERROR_CANCELLED,  // Canceller::cancel was called, or a callback ended the request
  state = IGPT_ERROR_STATE           // a model or a run is closed, moved from, or failed earlier
};

// The message is one line: what, where, and what to do.
class Error : public std::runtime_error {
 public:
  Error(Kind kind, const std::string &message) : std::runtime_error(message), kind_(kind) {}
  explicit Error(const igpt_error &error) : Error(static_cast<Kind>(error.status), error.message) {}
  Kind kind() const noexcept { return kind_; }

 private:
  Kind kind_;
};

// Numbers in memory that is someone else's.
template <class T>
class Span {
 public:
  Span() = default;
  Span(T *data, std::size_t size) : data_(data), size_(size) {}
  template <class Container, class = decltype(std::declval<Container &>().data())>
  Span(Container &&values) : data_(values.data()), size_(values.size()) {}
  T *data() const { return data_; }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T *begin() const { return data_; }
  T *end() const { return data_ + size_; }
  T &operator[](std::size_t i) const { return data_[i]; }

 private:
  T *data_ = nullptr;
  std::size_t size_ = 0;
};

using Tokens = std::vector<std::int64_t>;

enum class Provider { cpu = IGPT_CPU, cuda = IGPT_CUDA };

struct OpenOptions {
  std::string runtime_library;         // path of ONNX Runtime's shared library; empty: the system finds it
  int threads = 0;                     // inside one operator; 0: one per physical core
  bool spinning = false;               // idle threads wait busily, which is faster where nothing else runs
  Provider provider = Provider::cpu;
  bool memory_arena = true;            // keeps freed memory of the CPU for later calls
  bool verify = true;                  // compares the weights with the SHA-256 that the graphs name
};

// A graph in memory, such as {"complete", data, size}.
using Graph = igpt_graph;

// A picture of any size: {data, bytes, height, width}. By its bytes it is RGB or RGBA, which is laid over white.
using Image = igpt_image;

// What a model says of itself.
struct Info {
  std::string name, precision, kv_cache, profile, onnxruntime;
  std::int64_t height, width, n_positions, n_clusters, n_layer, n_head, n_embd;
  std::vector<std::string> labels;
  std::string function_to_apply;  // "softmax", "sigmoid" or "none"; empty without a classifier
  double temperature, top_p;      // the recommended sampling
  std::int64_t top_k;
};

namespace detail {
template <class... Parameters, class... Arguments>
igpt_status call(igpt_status (*function)(Parameters...), Arguments &&...arguments) {
  igpt_error error;
  const igpt_status status = function(std::forward<Arguments>(arguments)..., &error);
  if (status != IGPT_OK && status != IGPT_DONE) throw Error(error);
  return status;
}
template <class T, void (*release)(T **)>
struct Release {
  void operator()(T *handle) const { release(&handle); }
};
template <class T, void (*release)(T **)>
using Handle = std::unique_ptr<T, Release<T, release>>;
}  // namespace detail

// Ends requests from another thread. Once cancelled it stays so.
class Canceller {
 public:
  // Model::canceller makes one.
  explicit Canceller(igpt_canceller *handle) : handle_(handle) {}
  void cancel() noexcept { igpt_cancel(handle_.get()); }
  igpt_canceller *get() const noexcept { return handle_.get(); }

 private:
  detail::Handle<igpt_canceller, igpt_canceller_free> handle_;
};

// How to draw. What is left out takes the model's recommended sampling.
struct Sampling {
  std::int64_t n = 8;                    // pictures, 1 .. 65536; all are drawn at once
  std::uint64_t seed = 0;
  std::optional<double> temperature{};   // at least 0; 0 always takes the likeliest token
  std::optional<std::int64_t> top_k{};   // draw among so many likeliest tokens; 0 is off
  std::optional<double> top_p{};         // draw among the likeliest tokens that reach it together; 1 is off
  const Canceller *canceller = nullptr;

  igpt_sampling_options options() const {
    igpt_sampling_options options = IGPT_SAMPLING_OPTIONS_INIT;
    options.n = n;
    options.seed = seed;
    options.temperature = temperature.value_or(options.temperature);
    options.top_k = top_k.value_or(options.top_k);
    options.top_p = top_p.value_or(options.top_p);
    options.canceller = canceller ? canceller->get() : nullptr;
    return options;
  }
};

struct Step {
  std::int64_t position;           // that was drawn, in raster order from 0
  Span<const std::int64_t> tokens; // one for each picture; until the next step
  std::int64_t drawn, total;       // tokens so far, and in all, of all pictures together
};

// Called after each step; false ends the request with an error of the kind `cancelled`.
using OnStep = std::function<bool(const Step &)>;

// A request for pictures that is drawn one position after the other: a range that can be iterated over once.
class Run {
 public:
  explicit Run(igpt_run *handle) : handle_(handle) {}

  // The next position of all pictures; nothing if all are drawn.
  std::optional<Step> next() {
    igpt_step step;
    if (detail::call(igpt_next, handle_.get(), &step) == IGPT_DONE) return std::nullopt;
    return Step{step.position, {step.tokens, static_cast<std::size_t>(step.n)}, step.drawn, step.total};
  }

  class Iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = Step;
    using difference_type = std::ptrdiff_t;
    using pointer = const Step *;
    using reference = const Step &;
    Iterator() = default;
    explicit Iterator(Run *run) : run_(run), step_(run->next()) {}
    reference operator*() const { return *step_; }
    pointer operator->() const { return &*step_; }
    Iterator &operator++() { return step_ = run_->next(), *this; }
    void operator++(int) { ++*this; }
    bool operator==(const Iterator &other) const { return step_.has_value() == other.step_.has_value(); }
    bool operator!=(const Iterator &other) const { return !(*this == other); }

   private:
    Run *run_ = nullptr;
    std::optional<Step> step_{};
  };
  Iterator begin() { return Iterator(this); }
  Iterator end() { return {}; }

 private:
  detail::Handle<igpt_run, igpt_finish> handle_;
};

// Pictures of the model's size, and their tokens.
class Pictures {
 public:
  std::size_t n = 0;
  std::int64_t height = 0, width = 0;
  std::vector<std::uint8_t> rgb;  // [n, height, width, 3]
  Tokens tokens;                  // [n, height x width]

  Span<const std::uint8_t> rgb_of(std::size_t i) const { return part(rgb, i); }
  Span<const std::int64_t> tokens_of(std::size_t i) const { return part(tokens, i); }

 private:
  template <class T>
  Span<const T> part(const std::vector<T> &all, std::size_t i) const {
    const std::size_t size = all.size() / n;
    return {all.data() + i * size, size};
  }
};

struct Class {
  std::string label;
  float value;  // its probability; with Info::function_to_apply "none" the value of a regression
};

struct Features {
  std::size_t rows, columns;  // n_layer + 1, n_embd
  std::vector<float> data;    // row by row
  Span<const float> row(std::size_t i) const { return {data.data() + i * columns, columns}; }
};

struct Score {
  double nats_per_token;
  std::vector<float> nats;  // [height, width]
};

class Model {
 public:
  // A bundle's directory, or the file of one graph that holds its weights.
  static Model open(const std::string &path, const OpenOptions &options = {}) {
    igpt_model *handle = nullptr;
    const igpt_open_options given = c_options(options);
    detail::call(igpt_open, path.c_str(), &given, &handle);
    return Model(handle);
  }
  // Graphs in memory, which must stay in place as long as the model. weights: that of weights.safetensors, or empty.
  static Model open_memory(Span<const Graph> graphs, Span<const std::uint8_t> weights = {},
                           const OpenOptions &options = {}) {
    igpt_model *handle = nullptr;
    const igpt_open_options given = c_options(options);
    const std::uint8_t *data = weights.empty() ? nullptr : weights.data();
    detail::call(igpt_open_memory, graphs.data(), graphs.size(), data, weights.size(), &given, &handle);
    return Model(handle);
  }

  Info info() const {
    const igpt_model_info i = c_info();
    std::vector<std::string> labels(i.labels, i.labels + i.n_labels);
    return {i.name, i.precision, i.kv_cache, i.profile, i.onnxruntime, i.height, i.width, i.n_positions, i.n_clusters,
            i.n_layer, i.n_head, i.n_embd, std::move(labels), i.function_to_apply ? i.function_to_apply : "",
            i.temperature, i.top_p, i.top_k};
  }
  bool has_graph(const std::string &name) const { return igpt_has_graph(handle_.get(), name.c_str()) != 0; }
  Canceller canceller() const {
    igpt_canceller *handle = nullptr;
    detail::call(igpt_canceller_create, handle_.get(), &handle);
    return Canceller(handle);
  }
  void close() noexcept { handle_.reset(); }

  // Keeps the top rows of a picture, by default half of them, and draws the rest, in one call.
  Pictures complete(const Image &image, std::optional<std::int64_t> keep_rows = {},
                    const Sampling &sampling = {}) const {
    Pictures made = room(sampling.n);
    const igpt_sampling_options options = sampling.options();
    detail::call(igpt_complete, handle_.get(), &image, keep_rows.value_or(made.height / 2), &options, made.rgb.data(),
                 made.rgb.size(), made.tokens.data(), made.tokens.size());
    return made;
  }
  // The same, step by step.
  Pictures complete_steps(const Image &image, std::optional<std::int64_t> keep_rows = {}, const Sampling &sampling = {},
                          const OnStep &on_step = {}) const {
    const igpt_model_info info = c_info();
    const std::int64_t rows = keep_rows.value_or(info.height / 2);
    if (rows < 0 || rows >= info.height)
      throw Error(Kind::option, "keep_rows must be 0 .. " + std::to_string(info.height - 1) + ", not " +
                                    std::to_string(rows));
    Tokens primer = rows ? tokens(image) : Tokens();
    primer.resize(static_cast<std::size_t>(rows * info.width));
    return generate(primer, sampling, on_step);
  }
  // Draws whole pictures from nothing.
  Pictures sample(const Sampling &sampling = {}, const OnStep &on_step = {}) const {
    return generate({}, sampling, on_step);
  }
  // Draws what follows the first tokens of a picture.
  Pictures generate(Span<const std::int64_t> primer, const Sampling &sampling = {}, const OnStep &on_step = {}) const {
    Run run = start(primer, sampling);
    Pictures made = room(sampling.n);
    const std::size_t positions = made.tokens.size() / made.n;
    for (std::size_t i = 0; i < made.n; i++)
      std::copy(primer.begin(), primer.end(), made.tokens.data() + i * positions);
    for (const Step &step : run) {
      for (std::size_t i = 0; i < made.n; i++)
        made.tokens[i * positions + static_cast<std::size_t>(step.position)] = step.tokens[i];
      if (on_step && !on_step(step)) throw Error(Kind::cancelled, "the callback ended the request; begin another one");
    }
    detail::call(igpt_images, handle_.get(), made.tokens.data(), made.n, made.rgb.data(), made.rgb.size());
    return made;
  }
  // Begins to draw; iterate over the run for its steps.
  Run start(Span<const std::int64_t> primer, const Sampling &sampling = {}) const {
    igpt_run *run = nullptr;
    const igpt_sampling_options options = sampling.options();
    detail::call(igpt_start, handle_.get(), primer.data(), primer.size(), &options, &run);
    return Run(run);
  }

  // Every class, likeliest first; of a regression, every value, largest first.
  std::vector<Class> classify(const Image &image) const {
    const igpt_model_info info = c_info();
    std::vector<float> values(static_cast<std::size_t>(info.n_labels));
    detail::call(igpt_classify, handle_.get(), &image, values.data(), values.size());
    std::vector<Class> classes;
    for (std::size_t i = 0; i < values.size(); i++) classes.push_back({info.labels[i], values[i]});
    std::stable_sort(classes.begin(), classes.end(), [](const Class &a, const Class &b) { return a.value > b.value; });
    return classes;
  }
  // Hidden states, averaged over the picture.
  Features features(const Image &image) const {
    const igpt_model_info info = c_info();
    Features made{static_cast<std::size_t>(info.n_layer + 1), static_cast<std::size_t>(info.n_embd), {}};
    made.data.resize(made.rows * made.columns);
    detail::call(igpt_features, handle_.get(), &image, made.data.data(), made.data.size());
    return made;
  }
  // Minus the log-likelihood of each token.
  Score score(const Image &image) const {
    Score made{0, std::vector<float>(static_cast<std::size_t>(c_info().n_positions))};
    detail::call(igpt_score, handle_.get(), &image, made.nats.data(), made.nats.size(), &made.nats_per_token);
    return made;
  }
  // The tokens of a picture, [height x width] of the model's.
  Tokens tokens(const Image &image) const {
    Tokens made(static_cast<std::size_t>(c_info().n_positions));
    detail::call(igpt_tokens, handle_.get(), &image, made.data(), made.size());
    return made;
  }
  // Pictures of tokens [n, height x width].
  Pictures images(Span<const std::int64_t> tokens) const {
    const std::size_t positions = static_cast<std::size_t>(c_info().n_positions);
    if (tokens.empty() || tokens.size() % positions)
      throw Error(Kind::option, "there are " + std::to_string(tokens.size()) + " tokens; give a multiple of " +
                                    std::to_string(positions));
    Pictures made = room(static_cast<std::int64_t>(tokens.size() / positions));
    made.tokens.assign(tokens.begin(), tokens.end());
    detail::call(igpt_images, handle_.get(), made.tokens.data(), made.n, made.rgb.data(), made.rgb.size());
    return made;
  }
  igpt_model *get() const noexcept { return handle_.get(); }

 private:
  explicit Model(igpt_model *handle) : handle_(handle) {}
  static igpt_open_options c_options(const OpenOptions &options) {
    igpt_open_options given = IGPT_OPEN_OPTIONS_INIT;
    given.runtime_library = options.runtime_library.empty() ? nullptr : options.runtime_library.c_str();
    given.threads = options.threads;
    given.spinning = options.spinning;
    given.provider = static_cast<std::int32_t>(options.provider);
    given.no_memory_arena = !options.memory_arena;
    given.no_verify = !options.verify;
    return given;
  }
  igpt_model_info c_info() const {
    igpt_model_info info = IGPT_MODEL_INFO_INIT;
    detail::call(igpt_info, handle_.get(), &info);
    return info;
  }
  // Room for n pictures and their tokens.
  Pictures room(std::int64_t n) const {
    const igpt_model_info info = c_info();
    if (n < 1 || n > 65536) throw Error(Kind::option, "n must be 1 .. 65536, not " + std::to_string(n));
    Pictures made;
    made.n = static_cast<std::size_t>(n), made.height = info.height, made.width = info.width;
    try {
      made.tokens.resize(made.n * static_cast<std::size_t>(info.n_positions));
      made.rgb.resize(3 * made.tokens.size());
    } catch (const std::bad_alloc &) {
      throw Error(Kind::memory, "no memory is left; draw fewer than " + std::to_string(n) + " pictures at once");
    }
    return made;
  }

  detail::Handle<igpt_model, igpt_close> handle_;
};

// The random number in [0, 1) of a sample at a position: SPEC section 5.
inline float uniform(std::uint64_t seed, std::uint32_t sample, std::uint32_t position) {
  return igpt_uniform(seed, sample, position);
}

}  // namespace igpt
#endif
