/* A CUDA runtime without a GPU: memory is host memory, kernels do nothing, and while a stream is captured, calls that
   CUDA forbids then fail as they do there. ONNX Runtime's CUDA provider loads it, places nodes, plans memory, copies,
   captures and replays as ever; only the numbers are not computed. `conftest.py` adds all other functions as ones that
   do nothing and succeed. */
#include <stdlib.h>
#include <string.h>

typedef int status;
enum { HOST_TO_DEVICE = 1, DEVICE_TO_HOST = 2, UNSUPPORTED_IN_CAPTURE = 900 };
int stand_in_captures, stand_in_launches, stand_in_uploads, stand_in_downloads, stand_in_captured_copies;
static int capturing, handles;

static status copy(void *to, const void *from, size_t size, int kind) {
  memcpy(to, from, size);
  stand_in_uploads += kind == HOST_TO_DEVICE;
  stand_in_downloads += kind == DEVICE_TO_HOST;
  return 0;
}
static status unless_capturing(void) { return capturing ? UNSUPPORTED_IN_CAPTURE : 0; }

status cudaMalloc(void **memory, size_t size) {
  *memory = 0;
  return capturing ? UNSUPPORTED_IN_CAPTURE : posix_memalign(memory, 256, size ? size : 1) ? 2 : 0;
}
status cudaMallocHost(void **memory, size_t size) { return cudaMalloc(memory, size); }
status cudaHostAlloc(void **memory, size_t size, unsigned flags) { return cudaMalloc(memory, size); }
status cudaFree(void *memory) { free(memory); return unless_capturing(); }
status cudaFreeHost(void *memory) { free(memory); return unless_capturing(); }
status cudaMemset(void *memory, int value, size_t size) { memset(memory, value, size); return unless_capturing(); }
status cudaMemsetAsync(void *memory, int value, size_t size, void *stream) { memset(memory, value, size); return 0; }
status cudaMemcpy(void *to, const void *from, size_t size, int kind) {
  return capturing ? UNSUPPORTED_IN_CAPTURE : copy(to, from, size, kind);
}
status cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream) {
  /* A captured copy from or to the host would be repeated with whatever is there when the graph is replayed. */
  stand_in_captured_copies += capturing && (kind == HOST_TO_DEVICE || kind == DEVICE_TO_HOST);
  return copy(to, from, size, kind);
}
status cudaDeviceSynchronize(void) { return unless_capturing(); }
status cudaStreamSynchronize(void *stream) { return unless_capturing(); }
status cudaEventSynchronize(void *event) { return unless_capturing(); }

status cudaStreamBeginCapture(void *stream, int mode) { capturing = 1; return 0; }
status cudaStreamEndCapture(void *stream, void **graph) {
  capturing = 0;
  ++stand_in_captures;
  *graph = (void *)64;
  return 0;
}
status cudaStreamIsCapturing(void *stream, int *result) { *result = capturing; return 0; }
status cudaGraphLaunch(void *graph, void *stream) { ++stand_in_launches; return 0; }

static status new_handle(void **handle) { *handle = (void *)(size_t)(64 * ++handles); return 0; }
status cudaStreamCreate(void **stream) { return new_handle(stream); }
status cudaStreamCreateWithFlags(void **stream, unsigned flags) { return new_handle(stream); }
status cudaEventCreate(void **event) { return new_handle(event); }
status cudaEventCreateWithFlags(void **event, unsigned flags) { return new_handle(event); }
status cudaGraphInstantiate(void **graph, void *captured, unsigned long long flags) { return new_handle(graph); }

const char *cudaGetErrorName(int error) { return "stand-in error"; }
const char *cudaGetErrorString(int error) { return "an operation not permitted while a stream is captured"; }
status cudaGetDevice(int *device) { *device = 0; return 0; }
status cudaGetDeviceCount(int *count) { *count = 1; return 0; }
status cudaRuntimeGetVersion(int *version) { *version = 13000; return 0; }
status cudaDriverGetVersion(int *version) { *version = 13000; return 0; }
status cudaMemGetInfo(size_t *available, size_t *total) { *available = *total = (size_t)1 << 36; return 0; }
status cudaDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == 75 ? 8 : attribute == 76 ? 0 : 1024; /* compute capability 8.0 */
  return 0;
}
status cudaGetDeviceProperties(char *properties, int device) { /* those that kernels look at, of an A100 */
  memset(properties, 0, 700);
  *(size_t *)(properties + 288) = (size_t)1 << 36; /* totalGlobalMem */
  *(size_t *)(properties + 296) = 48 << 10;        /* sharedMemPerBlock */
  *(int *)(properties + 308) = 32;                 /* warpSize */
  *(int *)(properties + 320) = 1024;               /* maxThreadsPerBlock */
  *(int *)(properties + 360) = 8;                  /* major */
  *(int *)(properties + 384) = *(int *)(properties + 388) = 108; /* multiProcessorCount, of CUDA 13 and before */
  return 0;
}
