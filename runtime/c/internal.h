/* internal.h - what the parts of the library share. */
#ifndef IGPT_INTERNAL_H
#define IGPT_INTERNAL_H

#include "igpt.h"
#include "ort_api.h"

#include <stdbool.h>

#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
typedef SRWLOCK igpt_lock;
typedef volatile LONG igpt_flag;
#else
#include <pthread.h>
#include <stdatomic.h>
typedef pthread_mutex_t igpt_lock;
typedef atomic_int igpt_flag;
#endif

enum { ORT_API = 18, MAX_N = 1 << 16, NAME_SIZE = 48, MAX_RANK = 4 };
#define WEIGHTS_FILE "weights.safetensors"

/* ---- platform.c: the system ---- */

typedef enum file_kind { FILE_MISSING, FILE_REGULAR, FILE_HUB_LINK, FILE_REFUSED } file_kind;

/* What changes when a file does. */
typedef struct file_identity {
  int64_t size, inode, modified, changed;
} file_identity;

bool igpt_lock_init(igpt_lock *lock);
void igpt_lock_destroy(igpt_lock *lock);
igpt_lock *igpt_environment_lock(void); /* of the process: ONNX Runtime makes and frees its environment without one */
void igpt_acquire(igpt_lock *lock);
void igpt_release(igpt_lock *lock);
void igpt_flag_set(igpt_flag *flag);
bool igpt_flag_get(igpt_flag *flag);

/* A symbol of a shared library, which stays open: NULL if there is none. path: NULL is ONNX Runtime's usual name. */
void *igpt_symbol(const char *path, const char *name);
/* A copy of a text's first characters; to be freed. */
char *igpt_copy(const char *text, size_t length);
/* The directory that a path is in; to be freed. */
char *igpt_parent(const char *path);
bool igpt_is_directory(const char *path);
/* What a path in a bundle's directory is. A link is one of the Hub's cache (SPEC section 1), or refused. */
file_kind igpt_look(const char *directory, const char *path, file_identity *identity);
/* Maps a file into memory: NULL on failure. */
void *igpt_map(const char *path, size_t *size);
void igpt_unmap(void *data, size_t size);
/* A path as ONNX Runtime takes it; to be freed. */
ORTCHAR_T *igpt_ort_path(const char *path);

/* ---- sha256.c ---- */

/* The SHA-256 of data, as a text of 64 hexadecimal digits. */
void igpt_sha256(const void *data, size_t size, char hex[65]);

/* ---- graph.c: the graphs of a model ---- */

/* In the order in which one is taken to tell what the model is: the cheapest first. */
typedef enum graph {
  POSTPROCESS, PREPROCESS, COMPLETE, CLASSIFY, FEATURES, SCORE, PREFILL, DECODE, DECODE_SHARED, GRAPHS
} graph;
extern const char *const igpt_graph_names[GRAPHS];

/* What the graphs of a bundle have in common. It has no padding, so that memcmp compares two of them. */
typedef struct metadata {
  char name[256], precision[8], kv_cache[8], profile[16], function[16];
  int64_t height, width, n_positions, n_layer, n_head, head_dim, sos, labels, top_k;
  double temperature, top_p;
} metadata;

typedef struct opened_graph {
  OrtSession *session; /* NULL until it is needed */
  int users;           /* runs that step through it */
  void *maps[2];       /* its file and the weights, where ONNX Runtime cannot read them itself */
  size_t map_sizes[2];
} opened_graph;

struct igpt_model {
  igpt_lock lock;
  int references; /* the handle, and runs */
  bool closed;
  igpt_open_options options;
  const OrtApi *ort;
  OrtEnv *env;
  OrtMemoryInfo *memory;
  OrtAllocator *allocator;
  char version[32];
  char *directory, *weights_path; /* NULL: in memory */
  char *paths[GRAPHS];            /* likewise */
  igpt_graph given[GRAPHS];       /* in memory */
  const void *weights;
  size_t weights_size;
  opened_graph graphs[GRAPHS];
  bool known; /* whether the metadata was read */
  metadata meta;
  char **labels;           /* NULL after the last one */
  char weights_sha256[65]; /* as the graphs name it; empty: none did yet */
  bool weights_checked;
  file_identity weights_identity;
};

struct igpt_canceller {
  const OrtApi *ort;
  OrtRunOptions *options;
  igpt_flag cancelled;
};

/* A call of a public function, which keeps its first error. What is given a call does nothing once it has failed. */
typedef struct igpt_call {
  igpt_model *model;
  igpt_error *error;
  igpt_status code;
  const char *where; /* path or name of the graph that ONNX Runtime is busy with */
  igpt_status kind;  /* what it is if ONNX Runtime fails */
} igpt_call;

/* Calls a function of ONNX Runtime, unless the call has failed. */
#define ORT(call, ...) ((call)->code ? (void)0 : igpt_check(call, (call)->model->ort->__VA_ARGS__))

#if defined(__GNUC__) && !defined(_WIN32)
__attribute__((format(printf, 3, 4)))
#endif
void igpt_fail(igpt_call *call, igpt_status code, const char *format, ...);
void igpt_fail_memory(igpt_call *call);
void igpt_check(igpt_call *call, OrtStatus *status);

/* Loads ONNX Runtime. */
void igpt_load(igpt_call *call);
bool igpt_has(const igpt_model *model, graph id);
/* Opens a graph, if it is not open. */
void igpt_open_graph(igpt_call *call, graph id);
/* Opens the one graph in a file, which says its name. */
void igpt_open_single(igpt_call *call, const char *path);
void igpt_close_graph(igpt_model *model, opened_graph *opened);

/* A tensor over somebody's memory. */
typedef struct tensor {
  char name[NAME_SIZE];
  char type; /* i int64, f float32, u uint8, k that of the cache */
  void *data;
  size_t size; /* bytes */
  OrtValue *value;
} tensor;

size_t igpt_item_size(const metadata *meta, char type);
/* The bytes of a tensor. shape: a letter for each dimension. n and L are arguments; P, H, h, V, F, D, C, y and x are
 * sizes of the model; w is h + 8; S is P - L + 1. */
size_t igpt_size(igpt_call *call, char type, const char *shape, int64_t n, int64_t length);
/* Makes a tensor, whose value is to be released. ONNX Runtime does not write inputs. */
void igpt_tensor(igpt_call *call, tensor *made, const char *name, char type, const char *shape, int64_t n,
                 int64_t length, const void *data);
/* Runs a graph, checks what it computed, and releases all tensors. ONNX Runtime checks their types and shapes. */
void igpt_run_graph(igpt_call *call, graph id, tensor *inputs, size_t count, tensor *outputs, size_t output_count,
                    igpt_canceller *canceller);
void igpt_check_cancelled(igpt_call *call, igpt_canceller *canceller);
/* Of a run that has ended: whether it was cancelled, else what went wrong with it. */
void igpt_check_run(igpt_call *call, OrtStatus *status, igpt_canceller *canceller);
void igpt_check_tokens(igpt_call *call, const int64_t *tokens, size_t count, igpt_status kind);
void igpt_check_finite(igpt_call *call, const float *values, size_t count);

/* ---- igpt.c ---- */

/* Begins a call, which locks the model, and ends it. */
igpt_call igpt_enter(igpt_model *model, igpt_error *error);
igpt_status igpt_leave(igpt_call *call);
/* Ends a call and gives up a reference; the last one frees the model. */
void igpt_leave_for_good(igpt_call *call);
/* The options with the model's recommended sampling in place. */
void igpt_resolve(igpt_call *call, const igpt_sampling_options *options, igpt_sampling_options *resolved);

#endif
