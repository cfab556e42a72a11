/* ort_api.h - what is used of ONNX Runtime's C API. With IGPT_ORT_HEADER it comes from the official header, else from
 * here: by position in the function table, which only ever grows at its end. A test compares the two. */
#ifndef IGPT_ORT_API_H
#define IGPT_ORT_API_H

#ifdef IGPT_ORT_HEADER
#include <onnxruntime_c_api.h>
#else
#include <stddef.h>
#include <stdint.h>

#ifdef _WIN32
#include <wchar.h>
#define ORT_API_CALL __stdcall
typedef wchar_t ORTCHAR_T;
#else
#define ORT_API_CALL
typedef char ORTCHAR_T;
#endif

typedef struct OrtStatus OrtStatus;
typedef struct OrtEnv OrtEnv;
typedef struct OrtSession OrtSession;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtRunOptions OrtRunOptions;
typedef struct OrtValue OrtValue;
typedef struct OrtMemoryInfo OrtMemoryInfo;
typedef struct OrtAllocator OrtAllocator;
typedef struct OrtModelMetadata OrtModelMetadata;
typedef struct OrtIoBinding OrtIoBinding;
typedef struct OrtCUDAProviderOptionsV2 OrtCUDAProviderOptionsV2;

typedef int ONNXTensorElementDataType;
enum {
  ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT = 1,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 = 2,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8 = 3,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 = 7,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16 = 10,
  ORT_LOGGING_LEVEL_FATAL = 4,
  ORT_DISABLE_ALL = 0, /* optimisations of a graph */
  OrtArenaAllocator = 1,
  OrtMemTypeDefault = 0
};

#define FUNCTION(name, ...) OrtStatus *(ORT_API_CALL *name)(__VA_ARGS__);
#define RELEASE(type) void(ORT_API_CALL *Release##type)(Ort##type *);
#define GAP(from, to) void *gap_##from[(to) - (from)];

typedef struct OrtApi {
  GAP(0, 2)
  const char *(ORT_API_CALL *GetErrorMessage)(const OrtStatus *);
  FUNCTION(CreateEnv, int level, const char *name, OrtEnv **)
  GAP(4, 6)
  FUNCTION(DisableTelemetryEvents, const OrtEnv *)
  FUNCTION(CreateSession, const OrtEnv *, const ORTCHAR_T *path, const OrtSessionOptions *, OrtSession **)
  FUNCTION(CreateSessionFromArray, const OrtEnv *, const void *data, size_t size, const OrtSessionOptions *,
           OrtSession **)
  FUNCTION(Run, OrtSession *, const OrtRunOptions *, const char *const *names, const OrtValue *const *inputs,
           size_t count, const char *const *output_names, size_t output_count, OrtValue **outputs)
  FUNCTION(CreateSessionOptions, OrtSessionOptions **)
  GAP(11, 19)
  FUNCTION(DisableCpuMemArena, OrtSessionOptions *)
  GAP(20, 22)
  FUNCTION(SetSessionLogSeverityLevel, OrtSessionOptions *, int level)
  FUNCTION(SetSessionGraphOptimizationLevel, OrtSessionOptions *, int level)
  FUNCTION(SetIntraOpNumThreads, OrtSessionOptions *, int threads)
  GAP(25, 39)
  FUNCTION(CreateRunOptions, OrtRunOptions **)
  GAP(40, 46)
  FUNCTION(RunOptionsSetTerminate, OrtRunOptions *)
  GAP(47, 49)
  FUNCTION(CreateTensorWithDataAsOrtValue, const OrtMemoryInfo *, void *data, size_t bytes, const int64_t *shape,
           size_t rank, ONNXTensorElementDataType, OrtValue **)
  GAP(50, 69)
  FUNCTION(CreateCpuMemoryInfo, int allocator, int memory, OrtMemoryInfo **)
  GAP(70, 76)
  FUNCTION(AllocatorFree, OrtAllocator *, void *)
  GAP(77, 78)
  FUNCTION(GetAllocatorWithDefaultOptions, OrtAllocator **)
  GAP(79, 92)
  RELEASE(Env)
  RELEASE(Status)
  RELEASE(MemoryInfo)
  RELEASE(Session)
  RELEASE(Value)
  RELEASE(RunOptions)
  GAP(98, 100)
  RELEASE(SessionOptions)
  GAP(101, 111)
  FUNCTION(SessionGetModelMetadata, const OrtSession *, OrtModelMetadata **)
  GAP(112, 116)
  FUNCTION(ModelMetadataLookupCustomMetadataMap, const OrtModelMetadata *, OrtAllocator *, const char *key, char **)
  GAP(117, 118)
  RELEASE(ModelMetadata)
  GAP(119, 125)
  FUNCTION(GetAvailableProviders, char ***, int *)
  FUNCTION(ReleaseAvailableProviders, char **, int)
  GAP(127, 130)
  FUNCTION(AddSessionConfigEntry, OrtSessionOptions *, const char *key, const char *value)
  GAP(131, 133)
  FUNCTION(RunWithBinding, OrtSession *, const OrtRunOptions *, const OrtIoBinding *)
  FUNCTION(CreateIoBinding, OrtSession *, OrtIoBinding **)
  RELEASE(IoBinding)
  FUNCTION(BindInput, OrtIoBinding *, const char *name, const OrtValue *)
  FUNCTION(BindOutput, OrtIoBinding *, const char *name, const OrtValue *)
  GAP(138, 204)
  FUNCTION(SessionOptionsAppendExecutionProvider_CUDA_V2, OrtSessionOptions *, const OrtCUDAProviderOptionsV2 *)
  FUNCTION(CreateCUDAProviderOptions, OrtCUDAProviderOptionsV2 **)
  FUNCTION(UpdateCUDAProviderOptions, OrtCUDAProviderOptionsV2 *, const char *const *keys, const char *const *values,
           size_t count)
  GAP(207, 208)
  void(ORT_API_CALL *ReleaseCUDAProviderOptions)(OrtCUDAProviderOptionsV2 *);
  GAP(209, 279)
  FUNCTION(AddExternalInitializersFromFilesInMemory, OrtSessionOptions *, const ORTCHAR_T *const *names,
           char *const *contents, const size_t *sizes, size_t count)
} OrtApi;

typedef struct OrtApiBase {
  const OrtApi *(ORT_API_CALL *GetApi)(uint32_t version);
  const char *(ORT_API_CALL *GetVersionString)(void);
} OrtApiBase;

#undef FUNCTION
#undef RELEASE
#undef GAP
#endif

/* Every function that is used, for the test. */
#define IGPT_ORT_FUNCTIONS(X) \
  X(GetErrorMessage) X(CreateEnv) X(DisableTelemetryEvents) X(CreateSession) X(CreateSessionFromArray) X(Run) \
  X(CreateSessionOptions) X(DisableCpuMemArena) X(SetSessionLogSeverityLevel) X(SetSessionGraphOptimizationLevel) \
  X(SetIntraOpNumThreads) X(CreateRunOptions) X(RunOptionsSetTerminate) X(CreateTensorWithDataAsOrtValue) \
  X(CreateCpuMemoryInfo) X(AllocatorFree) X(GetAllocatorWithDefaultOptions) X(ReleaseEnv) X(ReleaseStatus) \
  X(ReleaseMemoryInfo) X(ReleaseSession) X(ReleaseValue) X(ReleaseRunOptions) X(ReleaseSessionOptions) \
  X(SessionGetModelMetadata) X(ModelMetadataLookupCustomMetadataMap) X(ReleaseModelMetadata) X(GetAvailableProviders) \
  X(ReleaseAvailableProviders) X(AddSessionConfigEntry) X(RunWithBinding) X(CreateIoBinding) X(ReleaseIoBinding) \
  X(BindInput) X(BindOutput) X(SessionOptionsAppendExecutionProvider_CUDA_V2) X(CreateCUDAProviderOptions) \
  X(UpdateCUDAProviderOptions) X(ReleaseCUDAProviderOptions) X(AddExternalInitializersFromFilesInMemory)

#endif
