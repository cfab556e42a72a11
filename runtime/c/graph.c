/* graph.c - the graphs of a model: opened in ONNX Runtime, held to their metadata, and run. */
#include "internal.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const igpt_graph_names[GRAPHS] = {"postprocess", "preprocess", "complete", "classify",     "features",
                                              "score",       "prefill",    "decode",   "decode_shared"};

/* ---- Errors ---- */

/* The bytes of the UTF-8 character at the beginning of a text, 0 if it is none. */
static size_t character(const unsigned char *c) {
  const size_t size = *c < 0x80 ? 1 : *c < 0xc2 ? 0 : *c < 0xe0 ? 2 : *c < 0xf0 ? 3 : *c < 0xf5 ? 4 : 0;
  for (size_t i = 1; i < size; i++)
    if (c[i] >> 6 != 2) return 0;
  return size;
}

void igpt_fail(igpt_call *call, igpt_status code, const char *format, ...) {
  if (call->code) return;
  call->code = code;
  if (!call->error) return;
  call->error->status = code;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(call->error->message, sizeof call->error->message, format, arguments);
  va_end(arguments);
  /* Names are others': no character that a terminal obeys, and none that is none or cut in two. */
  for (unsigned char *c = (unsigned char *)call->error->message; *c; c++) {
    const size_t size = character(c);
    if (!size) *c = '?';
    if (*c < ' ' || *c == 0x7f || (*c == 0xc2 && c[1] < 0xa0)) memset(c, ' ', size);
    if (size) c += size - 1;
  }
}

void igpt_fail_memory(igpt_call *call) {
  igpt_fail(call, IGPT_ERROR_MEMORY, "no memory is left; draw fewer pictures at once, or free some");
}

void igpt_check(igpt_call *call, OrtStatus *status) {
  static const char *const memory[] = {"allocate memory", "out of memory", "bad_alloc", "bad allocation"};
  if (!status) return;
  const char *reason = call->model->ort->GetErrorMessage(status);
  for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
    if (strstr(reason, memory[i]))
      igpt_fail(call, IGPT_ERROR_MEMORY, "ONNX Runtime has no memory left for %s (%.400s); draw fewer pictures at once",
                call->where, reason);
  if (call->kind == IGPT_ERROR_BUNDLE)
    igpt_fail(call, call->kind, "ONNX Runtime cannot open %s (%.400s); get or export the bundle again", call->where,
              reason);
  igpt_fail(call, call->kind, "ONNX Runtime failed in %s (%.400s); use another release of it, or another provider",
            call->where, reason);
  call->model->ort->ReleaseStatus(status);
}

/* ---- ONNX Runtime ---- */

void igpt_load(igpt_call *call) {
  igpt_model *model = call->model;
  const char *named = model->options.runtime_library;
  const char *library = named && *named ? named : NULL;
  const OrtApiBase *(ORT_API_CALL *base)(void);
  void *symbol = igpt_symbol(library, "OrtGetApiBase");
  if (!symbol) {
    igpt_fail(call, IGPT_ERROR_RUNTIME, "ONNX Runtime cannot be loaded from %s; give the path of its shared library",
              library ? library : "where the system looks for libraries");
    return;
  }
  memcpy(&base, &symbol, sizeof base);
  snprintf(model->version, sizeof model->version, "%s", base()->GetVersionString());
  model->ort = base()->GetApi(ORT_API);
  if (!model->ort) {
    igpt_fail(call, IGPT_ERROR_RUNTIME, "ONNX Runtime %s is too old; get 1.%d or newer", model->version, ORT_API);
    return;
  }
  char **providers = NULL;
  int count = 0;
  bool cuda = model->options.provider != IGPT_CUDA;
  igpt_acquire(igpt_environment_lock());
  ORT(call, CreateEnv(ORT_LOGGING_LEVEL_FATAL, "igpt", &model->env)); /* what goes wrong is told by errors alone */
  igpt_release(igpt_environment_lock());
  ORT(call, DisableTelemetryEvents(model->env));
  ORT(call, CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &model->memory));
  ORT(call, GetAllocatorWithDefaultOptions(&model->allocator));
  ORT(call, GetAvailableProviders(&providers, &count));
  for (int i = 0; i < count; i++) cuda = cuda || !strcmp(providers[i], "CUDAExecutionProvider");
  if (providers) ORT(call, ReleaseAvailableProviders(providers, count));
  if (!cuda)
    igpt_fail(call, IGPT_ERROR_RUNTIME, "this ONNX Runtime %s has no CUDA provider; get one that has, or use the CPU",
              model->version);
}

/* Adds CUDA to the options of a session. fp16: else the norm may sum squares in float16. TF32 keeps 10 bits of 23. */
static void add_cuda(igpt_call *call, OrtSessionOptions *options) {
  static const char *const keys[] = {"enable_skip_layer_norm_strict_mode", "use_tf32"}, *const values[] = {"1", "0"};
  OrtCUDAProviderOptionsV2 *cuda = NULL;
  ORT(call, CreateCUDAProviderOptions(&cuda));
  ORT(call, UpdateCUDAProviderOptions(cuda, keys, values, 2));
  ORT(call, SessionOptionsAppendExecutionProvider_CUDA_V2(options, cuda));
  if (cuda) call->model->ort->ReleaseCUDAProviderOptions(cuda);
}

/* Makes a session of a file, or of memory if `data` is not NULL.
 *
 * once: it is run once in a while, so it is opened fast rather than made fast. */
static OrtSession *create_session(igpt_call *call, bool once, const char *path, const void *data, size_t size,
                                  const void *weights, size_t weights_size) {
  const igpt_model *model = call->model;
  const igpt_open_options *wanted = &model->options;
  OrtSession *session = NULL;
  OrtSessionOptions *options = NULL;
  ORTCHAR_T *name = igpt_ort_path(data ? WEIGHTS_FILE : path);
  if (!name) igpt_fail_memory(call);
  ORT(call, CreateSessionOptions(&options));
  ORT(call, SetSessionLogSeverityLevel(options, ORT_LOGGING_LEVEL_FATAL));
  if (wanted->threads) ORT(call, SetIntraOpNumThreads(options, wanted->threads));
  if (!wanted->spinning) {
    ORT(call, AddSessionConfigEntry(options, "session.intra_op.allow_spinning", "0"));
    ORT(call, AddSessionConfigEntry(options, "session.inter_op.allow_spinning", "0"));
  }
  if (wanted->no_memory_arena) ORT(call, DisableCpuMemArena(options));
  if (wanted->provider == IGPT_CUDA)
    add_cuda(call, options);
  else if (once) {
    ORT(call, SetSessionGraphOptimizationLevel(options, ORT_DISABLE_ALL));
    if (strcmp(model->meta.precision, "int4")) /* which is slow unless it is packed */
      ORT(call, AddSessionConfigEntry(options, "session.disable_prepacking", "1"));
  }
  if (data) { /* weights are always given, at least none, so that ONNX Runtime looks for no file */
    char *content = (char *)(weights ? weights : data);
    const ORTCHAR_T *file = name;
    ORT(call, AddExternalInitializersFromFilesInMemory(options, &file, &content, &weights_size, 1));
    ORT(call, CreateSessionFromArray(model->env, data, size, options, &session));
  } else
    ORT(call, CreateSession(model->env, name, options, &session));
  if (options) model->ort->ReleaseSessionOptions(options);
  free(name);
  return session;
}

/* ---- Metadata ---- */

static void refuse(igpt_call *call, const char *what, const char *key) {
  igpt_fail(call, IGPT_ERROR_BUNDLE, "%s has %s in its metadata (%s); get or export a bundle of format 7", call->where,
            what, key);
}

/* The text of a key, empty if it is missing and may be. */
static void read_text(igpt_call *call, OrtModelMetadata *data, const char *key, bool needed, char *text, size_t size) {
  char *found = NULL;
  memset(text, 0, size);
  ORT(call, ModelMetadataLookupCustomMetadataMap(data, call->model->allocator, key, &found));
  const size_t length = found ? strlen(found) : 0;
  if (length >= size || (needed && !length))
    refuse(call, length ? "too long a text" : "no text", key);
  else if (found)
    memcpy(text, found, length);
  if (found) igpt_check(call, call->model->ort->AllocatorFree(call->model->allocator, found));
}

/* Digits at the beginning of a text, at most 18. Returns what follows them. */
static const char *parse_digits(const char *text, int64_t *number) {
  const char *end = text;
  for (*number = 0; *end >= '0' && *end <= '9' && end < text + 18; end++) *number = 10 * *number + (*end - '0');
  return end;
}

static int64_t read_integer(igpt_call *call, OrtModelMetadata *data, const char *key, int64_t least, int64_t most) {
  char text[32];
  int64_t number = 0;
  read_text(call, data, key, least > 0, text, sizeof text);
  if (*parse_digits(text, &number) || number < least || number > most) refuse(call, "no sensible number", key);
  return number;
}

/* A decimal such as 0.95 or 1e-05. The C library reads it differently in other locales. */
static double read_decimal(igpt_call *call, OrtModelMetadata *data, const char *key) {
  char text[40];
  int64_t whole, fraction = 0, exponent = 0;
  int digits = 0, sign = 1;
  read_text(call, data, key, true, text, sizeof text);
  const char *at = parse_digits(text, &whole);
  if (*at == '.') {
    const char *begin = at + 1;
    at = parse_digits(begin, &fraction);
    digits = (int)(at - begin);
  }
  if (*at == 'e') {
    sign = at[1] == '-' ? -1 : 1;
    at = parse_digits(at + (at[1] == '-' || at[1] == '+' ? 2 : 1), &exponent);
  }
  if (*at || at == text || at[-1] < '0' || at[-1] > '9' || exponent > 300) refuse(call, "no sensible number", key);
  const double value = (double)whole + (double)fraction / pow(10, digits);
  return sign < 0 ? value / pow(10, (double)exponent) : value * pow(10, (double)exponent);
}

/* Whether a text is one of some words, each between two spaces. */
static bool is_one_of(const char *text, const char *words) {
  const char *at = *text ? strstr(words, text) : NULL;
  return at && at > words && at[-1] == ' ' && at[strlen(text)] == ' ';
}

static void check_release(igpt_call *call, OrtModelMetadata *data) {
  char minimum[16];
  int major, minor, needed, needed_minor;
  read_text(call, data, "igpt.onnxruntime_minimum", false, minimum, sizeof minimum);
  if (!*minimum || sscanf(call->model->version, "%4d.%4d", &major, &minor) != 2) return;
  if (sscanf(minimum, "%4d.%4d", &needed, &needed_minor) != 2) refuse(call, "no release", "igpt.onnxruntime_minimum");
  else if (major < needed || (major == needed && minor < needed_minor))
    igpt_fail(call, IGPT_ERROR_RUNTIME, "%s needs ONNX Runtime %s or newer: %s fails or computes something else; get a "
              "newer one", call->where, minimum, call->model->version);
}

static void read_labels(igpt_call *call, OrtModelMetadata *data, int64_t count) {
  char **labels = call->model->labels = calloc((size_t)count + 1, sizeof *labels);
  if (!labels) igpt_fail_memory(call);
  for (int64_t i = 0; !call->code && i < count; i++) {
    char key[NAME_SIZE], text[1024];
    snprintf(key, sizeof key, "igpt.label.%lld", (long long)i);
    read_text(call, data, key, false, text, sizeof text);
    labels[i] = igpt_copy(text, strlen(text));
    if (!labels[i]) igpt_fail_memory(call);
  }
}

/* The metadata of an opened graph. Returns its name. */
static graph read_metadata(igpt_call *call, OrtSession *session, metadata *meta, char weights_sha256[65]) {
  char name[16];
  OrtModelMetadata *data = NULL;
  memset(meta, 0, sizeof *meta);
  ORT(call, SessionGetModelMetadata(session, &data));
  if (call->code) return GRAPHS;
  if (read_integer(call, data, "igpt.format_version", 1, INT32_MAX) != 7)
    refuse(call, "another format than 7", "igpt.format_version");
  if (read_integer(call, data, "igpt.sampling_version", 1, INT32_MAX) != 1)
    refuse(call, "another sampling than 1", "igpt.sampling_version");
  read_text(call, data, "igpt.graph", true, name, sizeof name);
  check_release(call, data);
  read_text(call, data, "igpt.name", false, meta->name, sizeof meta->name);
  read_text(call, data, "igpt.precision", true, meta->precision, sizeof meta->precision);
  read_text(call, data, "igpt.kv_cache", true, meta->kv_cache, sizeof meta->kv_cache);
  read_text(call, data, "igpt.profile", true, meta->profile, sizeof meta->profile);
  read_text(call, data, "igpt.function_to_apply", false, meta->function, sizeof meta->function);
  read_text(call, data, "igpt.weights_sha256", false, weights_sha256, 65);
  meta->height = read_integer(call, data, "igpt.height", 1, 1 << 12);
  meta->width = read_integer(call, data, "igpt.width", 1, 1 << 12);
  meta->n_positions = read_integer(call, data, "igpt.n_positions", 1, 1 << 24);
  meta->n_layer = read_integer(call, data, "igpt.n_layer", 1, 1 << 10);
  meta->n_head = read_integer(call, data, "igpt.n_head", 1, 1 << 12);
  meta->head_dim = read_integer(call, data, "igpt.head_dim", 1, 1 << 16);
  meta->sos = read_integer(call, data, "igpt.sos", 1, 1 << 24);
  meta->labels = read_integer(call, data, "igpt.labels", 0, 1 << 16);
  meta->top_k = read_integer(call, data, "igpt.top_k", 0, INT64_MAX);
  meta->temperature = read_decimal(call, data, "igpt.temperature");
  meta->top_p = read_decimal(call, data, "igpt.top_p");
  if (meta->height * meta->width != meta->n_positions) refuse(call, "no sensible number", "igpt.n_positions");
  if (!(meta->top_p > 0 && meta->top_p <= 1)) refuse(call, "no sensible number", "igpt.top_p");
  if (!is_one_of(meta->precision, " fp32 int8 int4 fp16 ")) refuse(call, "an unknown word", "igpt.precision");
  if (!is_one_of(meta->kv_cache, " fp32 int8 fp16 ")) refuse(call, "an unknown word", "igpt.kv_cache");
  if (meta->labels && !is_one_of(meta->function, " softmax sigmoid none "))
    refuse(call, "an unknown word", "igpt.function_to_apply");
  if (!call->model->known) read_labels(call, data, meta->labels);
  call->model->ort->ReleaseModelMetadata(data);
  graph id = POSTPROCESS;
  while (id < GRAPHS && strcmp(igpt_graph_names[id], name)) id++;
  return id;
}

/* ---- Opening ---- */

/* Compares the weights with their hash, unless they are those that were compared before. */
static void check_weights(igpt_call *call, const char *wanted) {
  igpt_model *model = call->model;
  const char *name = model->directory ? model->weights_path : WEIGHTS_FILE;
  file_identity identity = {0};
  char found[65];
  void *map = NULL;
  size_t size = model->weights_size;
  if (call->code || !*wanted) return; /* the graph holds its weights or has none */
  if (*model->weights_sha256 && strcmp(model->weights_sha256, wanted))
    igpt_fail(call, IGPT_ERROR_BUNDLE, "%s has other weights than the other graphs; get the bundle again", call->where);
  strcpy(model->weights_sha256, wanted);
  const file_kind kind = model->directory ? igpt_look(model->directory, name, &identity) : FILE_MISSING;
  const bool known = model->weights_checked && !memcmp(&model->weights_identity, &identity, sizeof identity);
  if (model->options.no_verify || known || call->code) return;
  if (kind == FILE_REGULAR || kind == FILE_HUB_LINK) map = igpt_map(name, &size);
  if (!map && !model->weights)
    igpt_fail(call, IGPT_ERROR_BUNDLE, "%s is missing or cannot be read, and %s needs it; get the bundle again", name,
              call->where);
  else
    igpt_sha256(map ? map : model->weights, size, found);
  if (map) igpt_unmap(map, size);
  if (!call->code && strcmp(found, wanted))
    igpt_fail(call, IGPT_ERROR_BUNDLE, "%s does not match the SHA-256 that %s names; get the bundle again", name,
              call->where);
  model->weights_checked = !call->code;
  model->weights_identity = identity;
}

/* Makes a session of a graph's file. */
static void open_file(igpt_call *call, const char *path, bool once, opened_graph *opened) {
  const igpt_model *model = call->model;
  const char *const files[2] = {path, model->weights_path};
  file_kind kinds[2];
  file_identity identity;
  for (int i = 0; i < 2; i++) {
    kinds[i] = igpt_look(model->directory, files[i], &identity);
    if (kinds[i] == FILE_REFUSED)
      igpt_fail(call, IGPT_ERROR_BUNDLE, "%s is no regular file, or a link out of the bundle; get the bundle again",
                files[i]);
  }
  if (kinds[0] == FILE_MISSING)
    igpt_fail(call, IGPT_ERROR_BUNDLE, "%s is missing; open a bundle that has it, or export one with --embed", path);
  if (kinds[0] == FILE_HUB_LINK || kinds[1] == FILE_HUB_LINK) /* ONNX Runtime follows no link to weights */
    for (int i = 0; !call->code && i < 2; i++) {
      if (kinds[i] != FILE_MISSING) opened->maps[i] = igpt_map(files[i], &opened->map_sizes[i]);
      if (kinds[i] != FILE_MISSING && !opened->maps[i])
        igpt_fail(call, IGPT_ERROR_BUNDLE, "%s cannot be read; get the bundle again", files[i]);
    }
  opened->session = create_session(call, once, path, opened->maps[0], opened->map_sizes[0], opened->maps[1],
                                   opened->map_sizes[1]);
}

/* Whether a graph in memory names the file of weights. A large one holds its own. */
static bool names_weights(const igpt_graph *given) {
  const size_t length = sizeof WEIGHTS_FILE - 1;
  const char *data = given->data;
  if (given->size > (size_t)1 << 26) return false;
  for (size_t i = 0; i + length <= given->size; i++)
    if (data[i] == *WEIGHTS_FILE && !memcmp(data + i, WEIGHTS_FILE, length)) return true;
  return false;
}

/* Opens a graph from its file, or from memory, and checks it. id: GRAPHS if it may be any. Returns which it is. */
static graph open_graph(igpt_call *call, const char *path, const igpt_graph *given, graph id) {
  igpt_model *model = call->model;
  opened_graph opened = {0};
  metadata meta;
  char weights[65] = "";
  const bool once = id < GRAPHS && id != COMPLETE && id != DECODE && id != DECODE_SHARED;
  call->where = path ? path : igpt_graph_names[id];
  call->kind = model->options.provider == IGPT_CPU ? IGPT_ERROR_BUNDLE : IGPT_ERROR_RUNTIME;
  if (path)
    open_file(call, path, once, &opened);
  else if (!model->weights && names_weights(given))
    igpt_fail(call, IGPT_ERROR_BUNDLE, "%s needs %s, which was not given; give its content too", call->where,
              WEIGHTS_FILE);
  else
    opened.session = create_session(call, once, NULL, given->data, given->size, model->weights, model->weights_size);
  const graph found = read_metadata(call, opened.session, &meta, weights);
  if (found == GRAPHS || (id != GRAPHS && id != found)) refuse(call, "the name of another graph", "igpt.graph");
  if (!call->code && model->known && memcmp(&meta, &model->meta, sizeof meta))
    igpt_fail(call, IGPT_ERROR_BUNDLE, "%s is of another model than the other graphs; get the bundle again",
              call->where);
  if (!call->code) model->meta = meta, model->known = true;
  check_weights(call, weights);
  if (call->code)
    igpt_close_graph(model, &opened);
  else
    model->graphs[found] = opened;
  return found;
}

void igpt_open_graph(igpt_call *call, graph id) {
  igpt_model *model = call->model;
  const graph other = id == DECODE ? DECODE_SHARED : DECODE;
  if (!call->code && !model->graphs[id].session) {
    if (!model->paths[id] && !model->given[id].data)
      igpt_fail(call, IGPT_ERROR_BUNDLE, "the model has no %s graph; open a bundle or give a graph that has it",
                igpt_graph_names[id]);
    if ((id == DECODE || id == DECODE_SHARED) && !model->graphs[other].users) /* each packs the weights */
      igpt_close_graph(model, &model->graphs[other]);
    if (!call->code) open_graph(call, model->paths[id], &model->given[id], id);
  }
  call->where = model->paths[id] ? model->paths[id] : igpt_graph_names[id];
  call->kind = IGPT_ERROR_RUNTIME;
}

void igpt_open_single(igpt_call *call, const char *path) {
  const graph id = open_graph(call, path, NULL, GRAPHS);
  if (call->code) return;
  call->model->paths[id] = igpt_copy(path, strlen(path));
  if (!call->model->paths[id]) igpt_fail_memory(call);
}

bool igpt_has(const igpt_model *model, graph id) {
  file_identity identity;
  if (!model->paths[id]) return model->given[id].data != NULL;
  return igpt_look(model->directory, model->paths[id], &identity) != FILE_MISSING;
}

void igpt_close_graph(igpt_model *model, opened_graph *opened) {
  if (opened->session) model->ort->ReleaseSession(opened->session);
  for (int i = 0; i < 2; i++)
    if (opened->maps[i]) igpt_unmap(opened->maps[i], opened->map_sizes[i]);
  memset(opened, 0, sizeof *opened);
}

/* ---- Running ---- */

size_t igpt_item_size(const metadata *meta, char type) {
  if (type == 'k') return !strcmp(meta->kv_cache, "fp32") ? 4 : !strcmp(meta->kv_cache, "fp16") ? 2 : 1;
  return type == 'i' ? 8 : type == 'f' ? 4 : 1;
}

static int64_t dimension(const metadata *meta, char letter, int64_t n, int64_t length) {
  switch (letter) {
    case 'n': return n;
    case 'L': return length;
    case 'S': return meta->n_positions - length + 1;
    case 'P': return meta->n_positions;
    case 'H': return meta->n_head;
    case 'h': return meta->head_dim;
    case 'w': return meta->head_dim + 8;
    case 'V': return meta->sos;
    case 'F': return meta->n_layer + 1;
    case 'D': return meta->n_head * meta->head_dim;
    case 'C': return meta->labels;
    case 'y': return meta->height;
    case 'x': return meta->width;
    default: return letter - '0';
  }
}

size_t igpt_size(igpt_call *call, char type, const char *shape, int64_t n, int64_t length) {
  size_t size = igpt_item_size(&call->model->meta, type);
  for (; *shape; shape++) {
    const size_t factor = (size_t)dimension(&call->model->meta, *shape, n, length);
    if (factor && size > (size_t)PTRDIFF_MAX / 2 / factor) igpt_fail_memory(call);
    size *= factor;
  }
  return size;
}

void igpt_tensor(igpt_call *call, tensor *made, const char *name, char type, const char *shape, int64_t n,
                 int64_t length, const void *data) {
  const metadata *meta = &call->model->meta;
  const size_t item = igpt_item_size(meta, type);
  const ONNXTensorElementDataType element = type == 'i'   ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64
                                            : type == 'u' ? ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8
                                            : item == 1   ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8
                                            : item == 2   ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16
                                                          : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  int64_t dims[MAX_RANK];
  size_t rank = 0;
  for (; shape[rank]; rank++) dims[rank] = dimension(meta, shape[rank], n, length);
  *made = (tensor){.type = type, .data = (void *)data, .size = igpt_size(call, type, shape, n, length)};
  snprintf(made->name, sizeof made->name, "%s", name);
  ORT(call, CreateTensorWithDataAsOrtValue(call->model->memory, made->data, made->size, dims, rank, element,
                                           &made->value));
}

void igpt_check_cancelled(igpt_call *call, igpt_canceller *canceller) {
  if (canceller && igpt_flag_get(&canceller->cancelled))
    igpt_fail(call, IGPT_ERROR_CANCELLED, "the request was cancelled; begin another one, with a new canceller");
}

void igpt_check_run(igpt_call *call, OrtStatus *status, igpt_canceller *canceller) {
  if (status) igpt_check_cancelled(call, canceller);
  igpt_check(call, status);
}

void igpt_check_tokens(igpt_call *call, const int64_t *tokens, size_t count, igpt_status kind) {
  const int64_t most = call->model->meta.sos - 1;
  for (size_t i = 0; !call->code && i < count; i++)
    if (tokens[i] < 0 || tokens[i] > most)
      igpt_fail(call, kind, "%s has %lld, which is no token; tokens are 0 .. %lld", call->where, (long long)tokens[i],
                (long long)most);
}

void igpt_check_finite(igpt_call *call, const float *values, size_t count) {
  for (size_t i = 0; !call->code && i < count; i++)
    if (!isfinite(values[i]))
      igpt_fail(call, IGPT_ERROR_BUNDLE, "%s computes NaN or infinity: it is no good; export the bundle again, from a "
                "sound checkpoint", call->where);
}

void igpt_run_graph(igpt_call *call, graph id, tensor *inputs, size_t count, tensor *outputs, size_t output_count,
                    igpt_canceller *canceller) {
  igpt_model *model = call->model;
  const size_t all = count + output_count;
  const char **names = malloc(all * sizeof *names);
  OrtValue **values = malloc(all * sizeof *values);
  if (!names || !values) igpt_fail_memory(call);
  igpt_open_graph(call, id);
  igpt_check_cancelled(call, canceller);
  for (size_t i = 0; !call->code && i < all; i++) {
    const tensor *one = i < count ? &inputs[i] : &outputs[i - count];
    names[i] = one->name, values[i] = one->value;
    if (i >= count) memset(one->data, 0xff, one->size); /* no token and no number, should a graph not write it */
  }
  if (!call->code)
    igpt_check_run(call, model->ort->Run(model->graphs[id].session, canceller ? canceller->options : NULL, names,
                                         (const OrtValue *const *)values, count, names + count, output_count,
                                         values + count), canceller);
  for (size_t i = 0; i < output_count; i++) {
    if (outputs[i].type == 'i')
      igpt_check_tokens(call, outputs[i].data, outputs[i].size / sizeof(int64_t), IGPT_ERROR_BUNDLE);
    if (outputs[i].type == 'f') igpt_check_finite(call, outputs[i].data, outputs[i].size / sizeof(float));
  }
  for (size_t i = 0; i < all; i++) {
    const tensor *one = i < count ? &inputs[i] : &outputs[i - count];
    if (one->value) model->ort->ReleaseValue(one->value);
  }
  free(names), free(values);
}
