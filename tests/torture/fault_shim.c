/* Lets one operation on files below a folder fail, kills at it, or moves the clock after it. To be preloaded.
 *
 * Operations are counted: making or opening a file for writing, writing, synchronising, renaming, linking, making a folder. `at`
 * is the number of the one that is struck, by `error`:
 *   > 0         this errno, once; ENOSPC and EACCES from then on, as a full disk and missing rights do. A disk that
 *               gets full takes half of the write first. EACCES strikes names only, not what is open already.
 *   -1          half of the write, then SIGKILL to the process group
 *   0           nothing, but from then on the clock of the day is off by `jump_s`
 * Processes that are started by this one take the same from the environment, and count for themselves.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum strike { NONE, FAIL, TEAR, KILL };

static char folder[PATH_MAX];
static size_t folder_length;
static long at, jump_s;
static int error_code;
static atomic_long count;

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

void fault_arm(const char *below, long strike_at, int error, long jump) {
    atomic_store(&count, 0);
    at = strike_at, error_code = error, jump_s = jump;
    snprintf(folder, sizeof folder, "%s", below);
    folder_length = strlen(folder);
    char text[64];
    snprintf(text, sizeof text, "%ld %d %ld", strike_at, error, jump);
    setenv("FAULT_FOLDER", below, 1);
    setenv("FAULT_SETTINGS", text, 1);
}

long fault_count(void) { return atomic_load(&count); }

__attribute__((constructor)) static void arm_from_environment(void) {
    const char *below = getenv("FAULT_FOLDER"), *settings = getenv("FAULT_SETTINGS");
    long strike_at, jump;
    int error;
    if (below && settings && sscanf(settings, "%ld %d %ld", &strike_at, &error, &jump) == 3)
        fault_arm(below, strike_at, error, jump);
}

static int is_below(const char *path) {
    return folder_length && !strncmp(path, folder, folder_length) && (path[folder_length] == '/' || !path[folder_length]);
}

static int is_link_below(const char *link) {
    char path[PATH_MAX];
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_below(path);
}

static int is_file_below(int file) {
    char link[64];
    if (!folder_length) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    return is_link_below(link);
}

static int is_name_below(int at_folder, const char *path) {
    if (!folder_length) return 0;
    if (path[0] == '/') return is_below(path);
    return at_folder == AT_FDCWD ? is_link_below("/proc/self/cwd") : is_file_below(at_folder);
}

static enum strike strike(int is_name) {
    if (error_code == EACCES && !is_name) return NONE;
    long n = atomic_fetch_add(&count, 1) + 1;
    if (!at || n < at || !error_code) return NONE;
    if (error_code < 0) return n == at ? KILL : NONE;
    if (n == at) return error_code == ENOSPC ? TEAR : FAIL;
    return error_code == ENOSPC || error_code == EACCES ? FAIL : NONE;
}

static void end_group(void) {
    kill(0, SIGKILL);
    for (;;) pause();
}

static int strike_name(int at_folder, const char *path) {
    if (!is_name_below(at_folder, path)) return 0;
    enum strike what = strike(1);
    if (what == KILL) end_group();
    if (what == NONE) return 0;
    errno = error_code;
    return 1;
}

/* How much of a write of `size` bytes is to be done: all of it, a part, or -1 with errno set. */
static ssize_t limit(int file, size_t size, enum strike *what) {
    *what = is_file_below(file) ? strike(0) : NONE;
    if (*what == NONE) return (ssize_t)size;
    if (*what == FAIL || (*what == TEAR && size < 2)) {
        errno = error_code;
        return -1;
    }
    return (ssize_t)(size / 2);
}

#define WRITE(type, name, parameters, size, call) \
    type name parameters { \
        REAL(name); \
        enum strike what; \
        ssize_t part = limit(file, size, &what); \
        if (part < 0) return -1; \
        type done = call; \
        if (what == KILL) end_group(); \
        return done; \
    }

WRITE(ssize_t, write, (int file, const void *data, size_t size), size, real(file, data, part))
WRITE(ssize_t, pwrite, (int file, const void *data, size_t size, off_t place), size, real(file, data, part, place))
WRITE(ssize_t, pwrite64, (int file, const void *data, size_t size, off64_t place), size, real(file, data, part, place))
WRITE(ssize_t, writev, (int file, const struct iovec *parts, int n), (size_t)n, real(file, parts, part ? (int)part : n))

size_t fwrite(const void *data, size_t size, size_t n, FILE *stream) {
    REAL(fwrite);
    enum strike what;
    ssize_t part = limit(fileno(stream), n, &what);
    if (part < 0) return 0;
    size_t done = real(data, size, what == NONE ? n : (size_t)part, stream);
    if (what == KILL) fflush(stream), end_group();
    return done;
}

#define ON_FILE(name, parameters, arguments) \
    int name parameters { \
        REAL(name); \
        enum strike what = is_file_below(file) ? strike(0) : NONE; \
        if (what == KILL) end_group(); \
        if (what != NONE) { errno = error_code; return -1; } \
        return real arguments; \
    }

ON_FILE(fsync, (int file), (file))
ON_FILE(fdatasync, (int file), (file))
ON_FILE(ftruncate, (int file, off_t size), (file, size))
ON_FILE(ftruncate64, (int file, off64_t size), (file, size))

#define OPEN(name, parameters, at_folder, arguments) \
    int name parameters { \
        REAL(name); \
        mode_t mode = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { \
            va_list rest; \
            va_start(rest, flags); \
            mode = va_arg(rest, mode_t); \
            va_end(rest); \
        } \
        if ((flags & O_ACCMODE) != O_RDONLY && strike_name(at_folder, path)) return -1; \
        return real arguments; \
    }

OPEN(open, (const char *path, int flags, ...), AT_FDCWD, (path, flags, mode))
OPEN(open64, (const char *path, int flags, ...), AT_FDCWD, (path, flags, mode))
OPEN(openat, (int base, const char *path, int flags, ...), base, (base, path, flags, mode))
OPEN(openat64, (int base, const char *path, int flags, ...), base, (base, path, flags, mode))

#define ON_NAME(name, parameters, at_folder, path, arguments) \
    int name parameters { \
        REAL(name); \
        return strike_name(at_folder, path) ? -1 : real arguments; \
    }

ON_NAME(rename, (const char *from, const char *to), AT_FDCWD, to, (from, to))
ON_NAME(renameat, (int a, const char *from, int b, const char *to), b, to, (a, from, b, to))
ON_NAME(link, (const char *from, const char *to), AT_FDCWD, to, (from, to))
ON_NAME(linkat, (int a, const char *from, int b, const char *to, int flags), b, to, (a, from, b, to, flags))
ON_NAME(mkdir, (const char *path, mode_t mode), AT_FDCWD, path, (path, mode))

static long jump(void) { return jump_s && atomic_load(&count) >= at ? jump_s : 0; }

int clock_gettime(clockid_t clock, struct timespec *now) {
    REAL(clock_gettime);
    int code = real(clock, now);
    if (!code && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += jump();
    return code;
}

int gettimeofday(struct timeval *now, void *zone) {
    REAL(gettimeofday);
    int code = real(now, zone);
    if (!code) now->tv_sec += jump();
    return code;
}

time_t time(time_t *where) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (where) *where = now.tv_sec;
    return now.tv_sec;
}
