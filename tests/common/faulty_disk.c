/* A disk that can be full, fail, and lose power, under a program that is started with this in LD_PRELOAD. Driven by faulty_disk.rs,
 * where the trace's format is described once more.
 *
 * FAULTY_DISK_ROOT      the folder it stands under, an absolute path without symbolic links
 * FAULTY_DISK_CONTROL   a file of at least sizeof(struct control) bytes, by which the test gives orders
 * FAULTY_DISK_TRACE     a file to which every change under the root is appended; unset: none is recorded
 * FAULTY_DISK_BOOT_ID   read in the place of the kernel's boot id
 *
 * Order in the trace: a write is recorded when it is done, a sync before it begins and when it is done (it covers what was recorded before
 * it began), changes of names one at a time. Whatever a program has told somebody else is in the trace by then.
 *
 * Not seen: memory mappings, stdio (RocksDB's own LOG files), io_uring. Neither server nor RocksDB keep data by them. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { OPEN = 1, TRUNCATE, WRITE, SYNC_BEGIN, SYNC_END, RENAME, LINK, UNLINK, MKDIR, RMDIR };
enum { FAIL_WRITES = 1, FAIL_SYNCS = 2, FAIL_READS = 4 };

struct control {
    _Atomic int64_t room;     /* bytes by which files may still grow; negative: no limit */
    _Atomic uint32_t failing; /* what gives EIO ... */
    char path[244];           /* ... on files whose path contains this */
};

struct event {
    uint32_t size; /* of all of it: header, two paths, data */
    uint16_t kind;
    uint16_t path_len, other_len;
    uint16_t flag; /* OPEN: the file is new. SYNC: of a folder */
    uint32_t zero;
    uint64_t inode;
    uint64_t at;  /* WRITE: offset. TRUNCATE: length. SYNC: its number */
    uint64_t len; /* WRITE: bytes of data */
};

#define MAX_FD 65536
#define NOT_OURS 1

static char root[PATH_MAX];
static size_t root_len;
static const char *boot_id;
static int trace = -1;
static struct control *control;
static _Atomic uint64_t inodes[MAX_FD]; /* of open files; 0: not known yet */
static _Atomic uint64_t syncs;
static pthread_mutex_t names = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FAULTY_DISK_ROOT");
    boot_id = getenv("FAULTY_DISK_BOOT_ID");
    if (!path || strlen(path) >= sizeof root) return;
    strcpy(root, path);
    root_len = strlen(root);
    const char *orders = getenv("FAULTY_DISK_CONTROL"), *record = getenv("FAULTY_DISK_TRACE");
    if (orders) {
        int fd = (int)syscall(SYS_openat, AT_FDCWD, orders, O_RDWR | O_CLOEXEC, 0);
        void *shared = fd < 0 ? MAP_FAILED : mmap(0, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (shared == MAP_FAILED) abort();
        syscall(SYS_close, fd);
        control = shared;
    }
    if (record) {
        trace = (int)syscall(SYS_openat, AT_FDCWD, record, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (trace < 0) abort();
    }
}

static int under_root(const char *path) {
    return root_len && !strncmp(path, root, root_len) && (path[root_len] == '/' || !path[root_len]);
}

/* The path of an open file into `path`, of PATH_MAX bytes. */
static int path_of(int fd, char *path) {
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    path[len > 0 ? len : 0] = 0;
    return len > 0;
}

/* The absolute path of what a call names, if that is under the root. */
static int ours(int dir, const char *name, char *path) {
    if (!root_len || !name) return 0;
    if (name[0] == '/') {
        if (strlen(name) >= PATH_MAX) return 0;
        strcpy(path, name);
    } else {
        if (dir == AT_FDCWD ? syscall(SYS_getcwd, path, PATH_MAX) < 0 : !path_of(dir, path)) return 0;
        size_t len = strlen(path);
        if (len + strlen(name) + 2 > PATH_MAX) return 0;
        path[len] = '/';
        strcpy(path + len + 1, name);
    }
    return under_root(path);
}

/* The inode of an open file under the root, or 0. */
static uint64_t tracked(int fd) {
    if (!root_len || fd < 0 || fd >= MAX_FD) return 0;
    uint64_t known = atomic_load(&inodes[fd]);
    if (!known) {
        char path[PATH_MAX];
        struct stat st;
        known = NOT_OURS;
        if (path_of(fd, path) && under_root(path) && !syscall(SYS_fstat, fd, &st)) known = st.st_ino;
        atomic_store(&inodes[fd], known);
    }
    return known == NOT_OURS ? 0 : known;
}

static void forget(int fd) {
    if (fd >= 0 && fd < MAX_FD) atomic_store(&inodes[fd], 0);
}

static const char *relative(const char *path) {
    if (!path) return "";
    path += root_len;
    while (*path == '/') path++;
    return path;
}

/* One append: it is whole in the trace, or, when the process is killed before, not there. */
static void record(struct event event, const char *path, const char *other, const struct iovec *data, int parts) {
    if (trace < 0) return;
    int saved = errno;
    path = relative(path), other = relative(other);
    event.path_len = strlen(path), event.other_len = strlen(other);
    event.size = sizeof event + event.path_len + event.other_len + event.len * (event.kind == WRITE);
    struct iovec out[67] = {{&event, sizeof event}, {(void *)path, event.path_len}, {(void *)other, event.other_len}};
    int count = 3;
    uint64_t left = event.kind == WRITE ? event.len : 0;
    for (int i = 0; i < parts && left; i++) {
        size_t len = data[i].iov_len < left ? data[i].iov_len : left;
        out[count++] = (struct iovec){data[i].iov_base, len};
        left -= len;
    }
    if (syscall(SYS_writev, trace, out, count) != (long)event.size) abort();
    errno = saved;
}

static int fails(int fd, uint32_t what) {
    if (!control || !(atomic_load(&control->failing) & what)) return 0;
    char path[PATH_MAX];
    if (!path_of(fd, path) || !under_root(path) || !strstr(path, control->path)) return 0;
    errno = EIO;
    return 1;
}

static int is_full(void) {
    if (!control || atomic_load(&control->room) != 0) return 0;
    errno = ENOSPC;
    return 1;
}

/* How much of a write there is room for; takes it. */
static size_t take_room(int fd, off_t at, size_t len) {
    if (!control || atomic_load(&control->room) < 0) return len;
    struct stat st;
    pthread_mutex_lock(&names);
    if (syscall(SYS_fstat, fd, &st)) st.st_size = 0;
    if (at < 0) at = syscall(SYS_fcntl, fd, F_GETFL) & O_APPEND ? st.st_size : syscall(SYS_lseek, fd, 0, SEEK_CUR);
    int64_t room = atomic_load(&control->room), growth = at + (int64_t)len - st.st_size;
    if (room >= 0 && growth > 0) {
        if (growth > (int64_t)len) growth = len;
        int64_t taken = growth < room ? growth : room;
        atomic_fetch_sub(&control->room, taken);
        len -= growth - taken;
    }
    pthread_mutex_unlock(&names);
    return len;
}

/* Writes at `at`, or, if negative, where the file stands. */
static ssize_t put(int fd, const struct iovec *data, int parts, off_t at) {
    uint64_t inode = tracked(fd);
    if (!inode) {
        if (parts == 1 && at < 0) return syscall(SYS_write, fd, data->iov_base, data->iov_len);
        if (parts == 1) return syscall(SYS_pwrite64, fd, data->iov_base, data->iov_len, at);
        return at < 0 ? syscall(SYS_writev, fd, data, parts) : syscall(SYS_pwritev, fd, data, parts, at, 0);
    }
    if (fails(fd, FAIL_WRITES)) return -1;
    if (parts > 64) parts = 64; /* a short write, as any other */
    size_t wanted = 0;
    for (int i = 0; i < parts; i++) wanted += data[i].iov_len;
    size_t len = take_room(fd, at, wanted);
    if (!len && wanted) {
        errno = ENOSPC;
        return -1;
    }
    struct iovec cut[64];
    int count = 0;
    for (size_t left = len; count < parts && left; count++) {
        cut[count] = data[count];
        if (cut[count].iov_len > left) cut[count].iov_len = left;
        left -= cut[count].iov_len;
    }
    ssize_t done = at < 0 ? syscall(SYS_writev, fd, cut, count) : syscall(SYS_pwritev, fd, cut, count, at, 0);
    if (done > 0) {
        off_t began = at < 0 ? syscall(SYS_lseek, fd, 0, SEEK_CUR) - done : at;
        struct event event = {.kind = WRITE, .inode = inode, .at = began, .len = done};
        record(event, 0, 0, cut, count);
    }
    return done;
}

ssize_t write(int fd, const void *data, size_t len) {
    struct iovec one = {(void *)data, len};
    return put(fd, &one, 1, -1);
}
ssize_t writev(int fd, const struct iovec *data, int parts) { return put(fd, data, parts, -1); }
ssize_t pwrite64(int fd, const void *data, size_t len, off64_t at) {
    struct iovec one = {(void *)data, len};
    return put(fd, &one, 1, at);
}
ssize_t pwrite(int fd, const void *data, size_t len, off_t at) { return pwrite64(fd, data, len, at); }
ssize_t pwritev64(int fd, const struct iovec *data, int parts, off64_t at) { return put(fd, data, parts, at); }
ssize_t pwritev(int fd, const struct iovec *data, int parts, off_t at) { return put(fd, data, parts, at); }

ssize_t read(int fd, void *data, size_t len) { return fails(fd, FAIL_READS) ? -1 : syscall(SYS_read, fd, data, len); }
ssize_t pread64(int fd, void *data, size_t len, off64_t at) {
    return fails(fd, FAIL_READS) ? -1 : syscall(SYS_pread64, fd, data, len, at);
}
ssize_t pread(int fd, void *data, size_t len, off_t at) { return pread64(fd, data, len, at); }

/* Callers fall back on reading and writing. */
ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t len, unsigned flags) {
    if (!tracked(out)) return syscall(SYS_copy_file_range, in, from, out, to, len, flags);
    errno = EXDEV;
    return -1;
}
ssize_t sendfile64(int out, int in, off64_t *from, size_t len) {
    if (!tracked(out)) return syscall(SYS_sendfile, out, in, from, len);
    errno = EINVAL;
    return -1;
}
ssize_t sendfile(int out, int in, off_t *from, size_t len) { return sendfile64(out, in, from, len); }

int ftruncate64(int fd, off64_t len) {
    uint64_t inode = tracked(fd);
    if (inode && fails(fd, FAIL_WRITES)) return -1;
    int result = (int)syscall(SYS_ftruncate, fd, len);
    struct event event = {.kind = TRUNCATE, .inode = inode, .at = len};
    if (inode && !result) record(event, 0, 0, 0, 0);
    return result;
}
int ftruncate(int fd, off_t len) { return ftruncate64(fd, len); }

/* Space that is set aside does not count: what is written into it does. */
int fallocate64(int fd, int mode, off64_t at, off64_t len) {
    uint64_t inode = tracked(fd);
    struct stat st;
    int result = (int)syscall(SYS_fallocate, fd, mode, at, len);
    if (inode && !result && !(mode & FALLOC_FL_KEEP_SIZE) && !syscall(SYS_fstat, fd, &st)) {
        struct event event = {.kind = TRUNCATE, .inode = inode, .at = st.st_size};
        record(event, 0, 0, 0, 0);
    }
    return result;
}
int fallocate(int fd, int mode, off_t at, off_t len) { return fallocate64(fd, mode, at, len); }

static int sync_file(int fd, long call) {
    uint64_t inode = tracked(fd);
    if (!inode) return (int)syscall(call, fd);
    if (fails(fd, FAIL_SYNCS)) return -1;
    char path[PATH_MAX];
    struct stat st;
    path_of(fd, path);
    syscall(SYS_fstat, fd, &st);
    struct event event = {.kind = SYNC_BEGIN, .flag = S_ISDIR(st.st_mode), .inode = inode, .at = atomic_fetch_add(&syncs, 1)};
    record(event, path, 0, 0, 0);
    int result = (int)syscall(call, fd);
    event.kind = SYNC_END;
    if (!result) record(event, path, 0, 0, 0);
    return result;
}
int fsync(int fd) { return sync_file(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_file(fd, SYS_fdatasync); }

static int open_file(int dir, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    if (boot_id && !strcmp(name, "/proc/sys/kernel/random/boot_id")) name = boot_id;
    if (!(flags & (O_CREAT | O_TRUNC | O_WRONLY | O_RDWR)) || !ours(dir, name, path)) {
        int fd = (int)syscall(SYS_openat, dir, name, flags, mode);
        forget(fd);
        return fd;
    }
    pthread_mutex_lock(&names);
    int is_new = syscall(SYS_faccessat, AT_FDCWD, path, F_OK) != 0, fd = -1;
    if (!(is_new && (flags & O_CREAT) && is_full())) fd = (int)syscall(SYS_openat, dir, name, flags, mode);
    struct stat st;
    if (fd >= 0 && !syscall(SYS_fstat, fd, &st) && S_ISREG(st.st_mode)) {
        struct event event = {.kind = OPEN, .inode = st.st_ino, .flag = is_new};
        record(event, path, 0, 0, 0);
        event = (struct event){.kind = TRUNCATE, .inode = st.st_ino};
        if (!is_new && (flags & O_TRUNC)) record(event, 0, 0, 0, 0);
    }
    pthread_mutex_unlock(&names);
    forget(fd);
    return fd;
}

#define MODE(flags, mode)                             \
    mode_t mode = 0;                                  \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {          \
        va_list rest;                                 \
        va_start(rest, flags);                        \
        mode = va_arg(rest, mode_t);                  \
        va_end(rest);                                 \
    }

int open(const char *name, int flags, ...) {
    MODE(flags, mode)
    return open_file(AT_FDCWD, name, flags, mode);
}
int open64(const char *name, int flags, ...) {
    MODE(flags, mode)
    return open_file(AT_FDCWD, name, flags, mode);
}
int openat(int dir, const char *name, int flags, ...) {
    MODE(flags, mode)
    return open_file(dir, name, flags, mode);
}
int openat64(int dir, const char *name, int flags, ...) {
    MODE(flags, mode)
    return open_file(dir, name, flags, mode);
}

int close(int fd) {
    forget(fd);
    return (int)syscall(SYS_close, fd);
}

/* A change of names: carried out and recorded before the next one. */
#define CHANGE(event_kind, is_ours, path, other, call)            \
    do {                                                          \
        if (!(is_ours)) return (int)(call);                       \
        pthread_mutex_lock(&names);                               \
        struct event event = {.kind = event_kind};                \
        int adds = event_kind == LINK || event_kind == MKDIR;     \
        int result = adds && is_full() ? -1 : (int)(call);        \
        if (!result) record(event, path, other, 0, 0);            \
        pthread_mutex_unlock(&names);                             \
        return result;                                            \
    } while (0)

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    char path[PATH_MAX], other[PATH_MAX];
    int both = ours(from_dir, from, path) & ours(to_dir, to, other);
    CHANGE(RENAME, both, path, other, syscall(SYS_renameat2, from_dir, from, to_dir, to, flags));
}
int renameat(int from_dir, const char *from, int to_dir, const char *to) {
    return renameat2(from_dir, from, to_dir, to, 0);
}
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }
int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    char path[PATH_MAX], other[PATH_MAX];
    int both = ours(from_dir, from, path) & ours(to_dir, to, other);
    CHANGE(LINK, both, path, other, syscall(SYS_linkat, from_dir, from, to_dir, to, flags));
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }
int unlinkat(int dir, const char *name, int flags) {
    char path[PATH_MAX];
    int kind = flags & AT_REMOVEDIR ? RMDIR : UNLINK;
    CHANGE(kind, ours(dir, name, path), path, 0, syscall(SYS_unlinkat, dir, name, flags));
}
int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }
int remove(const char *name) {
    int result = unlinkat(AT_FDCWD, name, 0);
    return result && errno == EISDIR ? rmdir(name) : result;
}
int mkdirat(int dir, const char *name, mode_t mode) {
    char path[PATH_MAX];
    CHANGE(MKDIR, ours(dir, name, path), path, 0, syscall(SYS_mkdirat, dir, name, mode));
}
int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

int statvfs(const char *name, struct statvfs *out) {
    struct statfs st;
    char path[PATH_MAX];
    if (syscall(SYS_statfs, name, &st)) return -1;
    memset(out, 0, sizeof *out);
    out->f_bsize = st.f_bsize;
    out->f_frsize = st.f_frsize ? st.f_frsize : st.f_bsize;
    out->f_blocks = st.f_blocks, out->f_bfree = st.f_bfree, out->f_bavail = st.f_bavail;
    out->f_files = st.f_files, out->f_ffree = out->f_favail = st.f_ffree;
    out->f_namemax = st.f_namelen;
    int64_t room = control ? atomic_load(&control->room) : -1;
    if (room >= 0 && ours(AT_FDCWD, name, path)) {
        uint64_t blocks = (uint64_t)room / out->f_frsize;
        if (blocks < out->f_bavail) out->f_bavail = out->f_bfree = blocks;
    }
    return 0;
}
int statvfs64(const char *name, struct statvfs64 *out) { return statvfs(name, (struct statvfs *)out); }
