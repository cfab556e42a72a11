/* platform.c - locks, libraries and files of the system. */
#ifndef _WIN32
#define _XOPEN_SOURCE 700
#endif
#include "internal.h"

#include <stdlib.h>
#include <string.h>

#ifdef _WIN32
static wchar_t *wide(const char *text) {
  const int size = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, text, -1, NULL, 0);
  wchar_t *copy = size > 0 ? malloc((size_t)size * sizeof *copy) : NULL;
  if (copy) MultiByteToWideChar(CP_UTF8, 0, text, -1, copy, size);
  return copy;
}

bool igpt_lock_init(igpt_lock *lock) { return InitializeSRWLock(lock), true; }
void igpt_lock_destroy(igpt_lock *lock) { (void)lock; }
static SRWLOCK environment = SRWLOCK_INIT;
igpt_lock *igpt_environment_lock(void) { return &environment; }
void igpt_acquire(igpt_lock *lock) { AcquireSRWLockExclusive(lock); }
void igpt_release(igpt_lock *lock) { ReleaseSRWLockExclusive(lock); }
void igpt_flag_set(igpt_flag *flag) { InterlockedExchange(flag, 1); }
bool igpt_flag_get(igpt_flag *flag) { return InterlockedCompareExchange(flag, 0, 0) != 0; }

void *igpt_symbol(const char *path, const char *name) {
  wchar_t *file = wide(path ? path : "onnxruntime.dll");
  HMODULE library = file ? LoadLibraryW(file) : NULL;
  void *symbol = NULL;
  FARPROC found = library ? GetProcAddress(library, name) : NULL;
  free(file);
  memcpy(&symbol, &found, sizeof symbol);
  return symbol;
}

static bool attributes(const char *path, WIN32_FILE_ATTRIBUTE_DATA *about) {
  wchar_t *file = wide(path);
  const bool found = file && GetFileAttributesExW(file, GetFileExInfoStandard, about);
  free(file);
  return found;
}

bool igpt_is_directory(const char *path) {
  WIN32_FILE_ATTRIBUTE_DATA about;
  return attributes(path, &about) && about.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY;
}

file_kind igpt_look(const char *directory, const char *path, file_identity *identity) {
  WIN32_FILE_ATTRIBUTE_DATA about;
  (void)directory; /* the Hub's cache has no links here that could be told from others */
  if (!attributes(path, &about)) return FILE_MISSING;
  if (about.dwFileAttributes & (FILE_ATTRIBUTE_DIRECTORY | FILE_ATTRIBUTE_REPARSE_POINT | FILE_ATTRIBUTE_DEVICE))
    return FILE_REFUSED;
  identity->size = (int64_t)about.nFileSizeHigh << 32 | about.nFileSizeLow;
  identity->modified = (int64_t)about.ftLastWriteTime.dwHighDateTime << 32 | about.ftLastWriteTime.dwLowDateTime;
  identity->changed = (int64_t)about.ftCreationTime.dwHighDateTime << 32 | about.ftCreationTime.dwLowDateTime;
  identity->inode = 0;
  return FILE_REGULAR;
}

void *igpt_map(const char *path, size_t *size) {
  wchar_t *name = wide(path);
  HANDLE file = INVALID_HANDLE_VALUE;
  if (name) file = CreateFileW(name, GENERIC_READ, FILE_SHARE_READ, NULL, OPEN_EXISTING, 0, NULL);
  HANDLE mapping = file == INVALID_HANDLE_VALUE ? NULL : CreateFileMappingW(file, NULL, PAGE_READONLY, 0, 0, NULL);
  void *data = mapping ? MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0) : NULL;
  LARGE_INTEGER length;
  if (data && GetFileSizeEx(file, &length)) *size = (size_t)length.QuadPart;
  if (mapping) CloseHandle(mapping);
  if (file != INVALID_HANDLE_VALUE) CloseHandle(file);
  free(name);
  return data;
}

void igpt_unmap(void *data, size_t size) { (void)size, UnmapViewOfFile(data); }
ORTCHAR_T *igpt_ort_path(const char *path) { return wide(path); }

#else
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

bool igpt_lock_init(igpt_lock *lock) { return pthread_mutex_init(lock, NULL) == 0; }
void igpt_lock_destroy(igpt_lock *lock) { pthread_mutex_destroy(lock); }
static pthread_mutex_t environment = PTHREAD_MUTEX_INITIALIZER;
igpt_lock *igpt_environment_lock(void) { return &environment; }
void igpt_acquire(igpt_lock *lock) { pthread_mutex_lock(lock); }
void igpt_release(igpt_lock *lock) { pthread_mutex_unlock(lock); }
void igpt_flag_set(igpt_flag *flag) { atomic_store(flag, 1); }
bool igpt_flag_get(igpt_flag *flag) { return atomic_load(flag) != 0; }

void *igpt_symbol(const char *path, const char *name) {
#ifdef __APPLE__
  const char *const usual[] = {"libonnxruntime.dylib"};
#else
  const char *const usual[] = {"libonnxruntime.so.1", "libonnxruntime.so"};
#endif
  void *library = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
  for (size_t i = 0; !path && !library && i < sizeof usual / sizeof *usual; i++)
    library = dlopen(usual[i], RTLD_NOW | RTLD_LOCAL);
  return library ? dlsym(library, name) : NULL; /* it stays open: its threads outlive a model */
}

bool igpt_is_directory(const char *path) {
  struct stat about;
  return stat(path, &about) == 0 && S_ISDIR(about.st_mode);
}

/* Whether a link leads to where the Hub's cache keeps files: below `blobs` beside the bundle or up to two levels up. */
static bool leads_to_blobs(const char *directory, const char *path) {
  char *target = realpath(path, NULL), *place = realpath(directory, NULL);
  char *store = place ? malloc(strlen(place) + sizeof "/blobs") : NULL;
  bool found = false;
  for (int level = 0; target && store && !found && level < 3; level++) {
    char *slash = strrchr(place, '/');
    struct stat about;
    if (!slash || !slash[1]) break;
    *slash = 0;
    strcat(strcpy(store, place), "/blobs");
    found = lstat(store, &about) == 0 && S_ISDIR(about.st_mode) && !strncmp(target, store, strlen(store)) &&
            target[strlen(store)] == '/';
  }
  free(target), free(place), free(store);
  return found;
}

file_kind igpt_look(const char *directory, const char *path, file_identity *identity) {
  struct stat about;
  if (lstat(path, &about)) return errno == ENOENT || errno == ENOTDIR ? FILE_MISSING : FILE_REFUSED;
  const bool link = S_ISLNK(about.st_mode);
  if (link && (!leads_to_blobs(directory, path) || stat(path, &about))) return FILE_REFUSED;
  if (!S_ISREG(about.st_mode)) return FILE_REFUSED;
  identity->size = (int64_t)about.st_size, identity->inode = (int64_t)about.st_ino;
  identity->modified = (int64_t)about.st_mtime, identity->changed = (int64_t)about.st_ctime;
  return link ? FILE_HUB_LINK : FILE_REGULAR;
}

void *igpt_map(const char *path, size_t *size) {
  struct stat about;
  const int file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* a pipe in its place would be waited for */
  void *data = MAP_FAILED;
  if (file < 0) return NULL;
  if (fstat(file, &about) == 0 && S_ISREG(about.st_mode) && about.st_size > 0) {
    *size = (size_t)about.st_size;
    data = mmap(NULL, *size, PROT_READ, MAP_PRIVATE, file, 0);
  }
  close(file);
  return data == MAP_FAILED ? NULL : data;
}

void igpt_unmap(void *data, size_t size) { munmap(data, size); }

ORTCHAR_T *igpt_ort_path(const char *path) { return igpt_copy(path, strlen(path)); }
#endif

char *igpt_copy(const char *text, size_t length) {
  char *copy = malloc(length + 1);
  if (copy) memcpy(copy, text, length), copy[length] = 0;
  return copy;
}

char *igpt_parent(const char *path) {
  const char *slash = strrchr(path, '/');
#ifdef _WIN32
  const char *other = strrchr(path, '\\');
  if (other && (!slash || other > slash)) slash = other;
#endif
  if (!slash) return igpt_copy(".", 1);
  return igpt_copy(path, slash > path ? (size_t)(slash - path) : 1);
}
