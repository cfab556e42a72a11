/* Fuzzes the C library: sizes of pictures, options, and damaged graphs and weights in memory.
 *
 *   cmake -S runtime/c -B build/fuzz -DIGPT_BUILD_FUZZER=ON -DCMAKE_C_COMPILER=clang
 *   build/fuzz/tests/igpt_fuzz -max_total_time=600
 *
 * Every call must come back with a status that igpt.h names, with one line of message on an error, and whatever it
 * gives must be in range. ONNX Runtime is not compiled for the fuzzer, so only the library's own code guides it. */
#include <igpt.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GRAPHS = 6, N = 3, P = 64 };
static const char *const names[GRAPHS] = {"preprocess", "postprocess", "complete", "classify", "decode", "prefill"};
static igpt_graph graphs[GRAPHS];
static void *weights;
static size_t weights_size;
static igpt_open_options open_options = IGPT_OPEN_OPTIONS_INIT;
static igpt_model *whole; /* undamaged */

int LLVMFuzzerInitialize(int *count, char ***values);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void *read_file(const char *folder, const char *name, const char *suffix, size_t *size) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s%s", folder, name, suffix);
  FILE *file = fopen(path, "rb");
  void *content = malloc(1 << 20);
  if (!file || !content) abort();
  *size = fread(content, 1, 1 << 20, file);
  fclose(file);
  return content;
}

int LLVMFuzzerInitialize(int *count, char ***values) {
  const char *golden = getenv("IGPT_GOLDEN");
  char bundle[4096];
  igpt_error error;
  (void)count, (void)values;
  snprintf(bundle, sizeof bundle, "%s/bundle", golden ? golden : IGPT_GOLDEN_DEFAULT);
  open_options.runtime_library = getenv("IGPT_ORT_LIBRARY");
  open_options.threads = 1;
  for (int i = 0; i < GRAPHS; i++) {
    graphs[i].name = names[i];
    graphs[i].data = read_file(bundle, names[i], ".onnx", &graphs[i].size);
  }
  weights = read_file(bundle, "weights", ".safetensors", &weights_size);
  if (igpt_open(bundle, &open_options, &whole, &error)) {
    fprintf(stderr, "%s\n", error.message);
    abort();
  }
  return 0;
}

/* What is left of the input; zeros when it is used up. */
typedef struct input {
  const uint8_t *data;
  size_t size;
} input;

static uint64_t take(input *in, size_t bytes) {
  uint64_t value = 0;
  const size_t used = bytes < in->size ? bytes : in->size;
  if (used) memcpy(&value, in->data, used);
  in->data += used, in->size -= used;
  return value;
}

static double take_double(input *in) {
  const uint64_t bits = take(in, 8);
  double value;
  memcpy(&value, &bits, sizeof value);
  return bits % 3 ? value : (double)(bits % 1000) / 500;
}

static void check(igpt_status status, const igpt_error *error) {
  if (status == IGPT_OK) return;
  if (status < IGPT_ERROR_OPTION || status > IGPT_ERROR_STATE || error->status != status || !*error->message ||
      strchr(error->message, '\n') || strlen(error->message) >= sizeof error->message)
    abort();
}

static void check_tokens(const int64_t *tokens, size_t count, int64_t n_clusters) {
  for (size_t i = 0; i < count; i++)
    if (tokens[i] < 0 || tokens[i] >= n_clusters) abort();
}

/* Every function once, in memory of just the size that it needs. */
static void use(igpt_model *model, input *in) {
  igpt_error error;
  igpt_model_info info = IGPT_MODEL_INFO_INIT;
  igpt_sampling_options options = IGPT_SAMPLING_OPTIONS_INIT;
  const uint64_t what = take(in, 1);
  check(igpt_info(model, &info, &error), &error);
  if (info.n_positions > 1024 || info.n_labels > 1024) return; /* a bundle may ask for more than a fuzzer has */
  options.n = what & 1 ? (int64_t)take(in, 8) : (int64_t)(1 + take(in, 1) % N);
  options.seed = take(in, 8);
  if (what & 2) options.temperature = take_double(in);
  if (what & 4) options.top_k = (int64_t)take(in, 8);
  if (what & 8) options.top_p = take_double(in);
  const int64_t keep = what & 16 ? (int64_t)take(in, 8) : (int64_t)(take(in, 1) % 8);
  igpt_image image = {NULL, 0, (int64_t)take(in, 1) % 40, (int64_t)take(in, 1) % 40};
  image.size = (size_t)(image.height * image.width) * (what & 32 ? 4 : 3);
  uint8_t *pixels = malloc(image.size + 1);
  if (!pixels) abort();
  for (size_t i = 0; i < image.size; i++) pixels[i] = (uint8_t)(i < in->size ? in->data[i] : i);
  image.data = pixels;
  if (what & 64) image.height = (int64_t)take(in, 8), image.size = (size_t)take(in, 8); /* refused, or the right ones */
  const size_t positions = (size_t)info.n_positions, count = N * positions, labels = (size_t)info.n_labels;
  int64_t *tokens = malloc(count * sizeof *tokens);
  uint8_t *images = malloc(count * 3);
  float *values = malloc((labels + 1) * sizeof *values);
  if (!tokens || !images || !values) abort();
  igpt_status status = IGPT_OK;
  switch (take(in, 1) % 5) {
    case 0:
      check(status = igpt_complete(model, &image, keep, &options, images, count * 3, tokens, count, &error), &error);
      break;
    case 1:
      check(status = igpt_complete_steps(model, &image, keep, &options, NULL, NULL, images, count * 3, tokens, count,
                                         &error),
            &error);
      break;
    case 2:
      check(igpt_classify(model, &image, values, labels, &error), &error);
      status = IGPT_ERROR_STATE; /* no tokens to look at */
      break;
    case 3:
      for (size_t i = 0; i < count; i++) tokens[i] = (int64_t)take(in, 1) - (what & 128 ? 1 : 0);
      check(igpt_images(model, tokens, N, images, count * 3, &error), &error);
      status = IGPT_ERROR_STATE;
      break;
    default: {
      for (size_t i = 0; i < positions; i++) tokens[i] = (int64_t)take(in, 1) % 17;
      const size_t length = (size_t)take(in, 1) % (positions + 2);
      int64_t *primer = malloc((length + 1) * sizeof *primer);
      if (!primer) abort();
      memcpy(primer, tokens, (length < positions ? length : positions) * sizeof *primer);
      if (length > positions) primer[positions] = 0;
      check(status = igpt_generate(model, primer, length, &options, NULL, NULL, tokens, count, &error), &error);
      free(primer);
    }
  }
  if (status == IGPT_OK) check_tokens(tokens, (size_t)options.n * positions, info.n_clusters);
  free(pixels), free(tokens), free(images), free(values);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  input in = {data, size};
  const uint64_t mode = take(&in, 1);
  if (mode % 2) {
    use(whole, &in);
    return 0;
  }
  /* Damage: bytes of one graph or of the weights, or another value in its metadata. */
  igpt_graph damaged[GRAPHS];
  igpt_model *model = NULL;
  igpt_error error;
  memcpy(damaged, graphs, sizeof damaged);
  igpt_graph *victim = &damaged[take(&in, 1) % GRAPHS];
  uint8_t *copy = malloc(victim->size + 256), *own_weights = malloc(weights_size);
  if (!copy || !own_weights) abort();
  memcpy(copy, victim->data, victim->size);
  memcpy(own_weights, weights, weights_size);
  victim->data = copy;
  size_t own_size = weights_size;
  if (mode & 2) {
    static const char *const keys[] = {
        "igpt.height",         "igpt.width",       "igpt.n_positions", "igpt.n_layer",
        "igpt.n_head",         "igpt.head_dim",    "igpt.sos",         "igpt.labels",
        "igpt.top_p",          "igpt.temperature", "igpt.kv_cache",    "igpt.function_to_apply",
        "igpt.weights_sha256", "igpt.graph"};
    const char *key = keys[take(&in, 1) % (sizeof keys / sizeof *keys)];
    const size_t length = (size_t)take(&in, 1) % 64, used = length < in.size ? length : in.size, key_size = strlen(key);
    uint8_t *end = copy + victim->size; /* metadata_props: key and value; of two the last one counts */
    *end++ = 14 << 3 | 2, *end++ = (uint8_t)(key_size + used + 4);
    *end++ = 1 << 3 | 2, *end++ = (uint8_t)key_size;
    memcpy(end, key, key_size), end += key_size;
    *end++ = 2 << 3 | 2, *end++ = (uint8_t)used;
    if (used) memcpy(end, in.data, used);
    victim->size = (size_t)(end - copy) + used;
    take(&in, 0), in.data += used, in.size -= used;
  } else
    for (uint64_t changes = take(&in, 1) % 4; changes; changes--)
      copy[take(&in, 4) % victim->size] = (uint8_t)take(&in, 1);
  if (mode & 4) own_weights[take(&in, 4) % weights_size] ^= (uint8_t)take(&in, 1);
  if (mode & 8) own_size = 1 + (size_t)(take(&in, 4) % weights_size);
  if (mode & 16) victim->size = 1 + (size_t)(take(&in, 4) % victim->size);
  igpt_open_options options = open_options;
  options.no_verify = mode & 32 ? 1 : 0;
  check(igpt_open_memory(damaged, GRAPHS, own_weights, own_size, &options, &model, &error), &error);
  if (model) use(model, &in);
  igpt_close(&model);
  free(copy), free(own_weights);
  return 0;
}
